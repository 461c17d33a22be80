"""Building: reviews and replay -> a Dataset with a content hash."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from lyra_nli.dataset.caps import Origin, cap
from lyra_nli.dataset.clean import Cleaned, clean, text_anchors
from lyra_nli.dataset.domains import find_domain, of_domain, untied
from lyra_nli.dataset.groups import Row, Side, components, foldable, leaks, tied
from lyra_nli.dataset.replay import share_out
from lyra_nli.dataset.split import split
from lyra_nli.errors import DatasetError
from lyra_nli.records import Example, Review, Source
from lyra_nli.settings import DatasetSettings

_LEARNED = ("train", "dev")


@dataclass(frozen=True)
class Dataset:
    """What one training run learns from and is judged on.

    Without a hold-out every reviewed row is learned from, and what judges are answers out of fold.

    Attributes:
        general: general NLI that is never trained on, for the forgetting check.
        aside: rows that straddle a cut group or do not fit the model: not learned from, not
            judged on.
        cleaned: what cleaning found.
        learned: ids of rows about which the active version proves nothing: it learned from them,
            or from others of the same page, fragment, claim, group or text.
        domain: the site or group that all reviewed rows are of; empty: of everything.
        capped: rows of each page, claim or person that has more than it counts for, see `weighed`.
    """

    train: tuple[Example, ...]
    dev: tuple[Example, ...]
    holdout: tuple[Example, ...]
    general: tuple[Example, ...]
    aside: tuple[Example, ...]
    cleaned: Cleaned
    leaking: tuple[str, ...]
    learned: frozenset[str] = frozenset()
    domain: str = ""
    capped: tuple[tuple[Origin, int], ...] = ()

    @property
    def content_hash(self) -> str:
        """SHA-256 over every example that is learned from or judged on."""
        return _hash(
            # Rows that one person judged hash as they did before people were counted.
            (e.id, e.pair.premise, e.pair.hypothesis, e.label, e.source, e.weight)
            + ((e.people,) if e.people > 1 else ())
            for side in self.sides().values()
            for e in side
        )

    @property
    def split_hash(self) -> str:
        """SHA-256 over the sides' row ids."""
        return _hash(self.row_ids().items())

    def examples(self) -> list[Example]:
        """All examples that have a part in a run."""
        return [example for side in self.sides().values() for example in side]

    def without(self, ids: Collection[str]) -> Dataset:
        """The same dataset, with these examples set aside."""

        def kept(side: tuple[Example, ...]) -> tuple[Example, ...]:
            return tuple(example for example in side if example.id not in ids)

        return replace(
            self,
            train=kept(self.train),
            dev=kept(self.dev),
            holdout=kept(self.holdout),
            general=kept(self.general),
            aside=(*self.aside, *(e for e in self.examples() if e.id in ids)),
        )

    def weighed(self, settings: DatasetSettings) -> Dataset:
        """The same dataset, where no page, claim or person counts for more than it may."""
        capped, train = cap([*self.train, *self.dev], settings), len(self.train)
        return replace(
            self, train=capped.rows[:train], dev=capped.rows[train:], capped=capped.origins
        )

    def row_ids(self) -> dict[str, list[str]]:
        """Side -> ids of its examples, in order."""
        return {name: [example.id for example in side] for name, side in self.sides().items()}

    def people(self) -> dict[str, int]:
        """Row id -> how many people gave its label, where several did."""
        return {e.id: e.people for e in self.examples() if e.people > 1}

    def groups(self) -> dict[str, str]:
        """Row id -> group of the reviewed rows that can be learned from."""
        return {e.id: e.group for e in (*self.train, *self.dev) if e.source != "replay"}

    def sides(self) -> dict[str, tuple[Example, ...]]:
        """The four sides that have a part in a run."""
        return {
            "train": self.train,
            "dev": self.dev,
            "holdout": self.holdout,
            "general": self.general,
        }

    def count(self, side: str, attribute: str) -> Counter[str]:
        """Rows of a side by ``label`` or ``source``."""
        return Counter(getattr(example, attribute) for example in self.sides()[side])


def build(
    reviews: Sequence[Review],
    replay: Sequence[Example],
    settings: DatasetSettings,
    seen: Mapping[str, Side] | None = None,
    *,
    folds: int = 0,
    domain: str = "",
) -> Dataset:
    """Clean, group, split and mix.

    Args:
        replay: general NLI; whole groups of it are kept for the forgetting check.
        seen: row id -> side in the active version's training, see `split`.
        folds: with two or more, a hold-out of less than `min_holdout` rows is not made: the folds'
            answers prove more, and nothing is lost to learning.
        domain: take the reviews of this site or group alone, see `find_domain`.

    Raises:
        DatasetError: when there are no usable reviews, or no honest split exists.
    """
    domain = domain and find_domain(reviews, domain)
    cleaned = clean(of_domain(reviews, domain) if domain else reviews)
    if not cleaned.reviews:
        raise DatasetError(
            "there are no usable reviews", hint="Correct or confirm some of the model's edges."
        )
    rows = [_row(review) for review in cleaned.reviews]
    past = _past(reviews, seen or {})
    sides, groups = split(
        rows,
        holdout=settings.holdout_fraction,
        dev=settings.dev_fraction,
        seed=settings.seed,
        seen=past,
    )
    whole = components(rows)
    if folds > 1 and sides.count("holdout") < settings.min_holdout and foldable(whole):
        sides, groups = ["train"] * len(rows), whole
    elif "train" not in sides or "holdout" not in sides:
        raise DatasetError(
            f"{len(rows)} reviews in {len(set(groups))} group(s) can't be split into "
            "training and hold-out",
            hint="Rows of one page, fragment, claim or group stay together, and what the active "
            "version learned from is never held out: review edges of more pages and claims.",
        )
    parts: dict[Side, list[Example]] = {"train": [], "dev": [], "holdout": [], "aside": []}
    for review, group, side in zip(cleaned.reviews, groups, sides, strict=True):
        parts[side].append(example_of(review, group))
    learned, general = share_out(replay, settings.replayed(len(parts["train"])), settings.seed)
    linked = untied(reviews, domain) if domain else reviews
    return Dataset(
        train=(*parts["train"], *learned),
        dev=tuple(parts["dev"]),
        holdout=tuple(parts["holdout"]),
        general=tuple(general),
        aside=tuple(parts["aside"]),
        cleaned=cleaned,
        leaking=tuple(leaks(rows, sides)),
        learned=known(linked, [row for row, side in (seen or {}).items() if side in _LEARNED]),
        domain=domain,
    )


def known(reviews: Sequence[Review], learned: Collection[str]) -> frozenset[str]:
    """Ids of the rows about which a version that learned from some proves nothing.

    Args:
        reviews: all of them, the overruled ones too.
        learned: ids of the rows that it learned from, replayed ones too.
    """
    return tied([_row(review) for review in reviews], frozenset(learned)) | frozenset(learned)


def rebuild(
    reviews: Sequence[Review],
    replay: Sequence[Example],
    row_ids: Mapping[str, Sequence[str]],
    people: Mapping[str, int],
    groups: Mapping[str, str],
) -> Dataset:
    """The dataset of an earlier run, from what its manifest keeps.

    Args:
        people: row id -> how many had given its label by then, see `Dataset.people`.
        groups: row id -> its group by then, see `Dataset.groups`; the others have their own.

    Raises:
        DatasetError: naming rows that are gone.
    """
    wanted = {row_id for ids in row_ids.values() for row_id in ids}
    cleaned = clean([review for review in reviews if review.id in wanted])
    found = {e.id: e for e in replay} | {
        r.id: example_of(replace(r, people=people.get(r.id, 1)), groups.get(r.id, r.id))
        for r in cleaned.reviews
    }
    missing = [i for ids in row_ids.values() for i in ids if i not in found]
    if missing:
        raise DatasetError(
            f"{len(missing)} rows of that run are no longer in the database", problems=missing[:10]
        )
    side = {name: tuple(found[i] for i in ids) for name, ids in row_ids.items()}
    return Dataset(
        train=side["train"],
        dev=side["dev"],
        holdout=side["holdout"],
        general=side["general"],
        aside=(),
        cleaned=cleaned,
        leaking=(),
    )


def _past(reviews: Sequence[Review], seen: Mapping[str, Side]) -> dict[str, Side]:
    """The side on which each row's pair stood: a pair may have been reviewed anew since."""
    sides: dict[str, Side] = {}
    for review in reviews:
        side = seen.get(review.id)
        if side and sides.get(review.pair.key) not in _LEARNED:
            sides[review.pair.key] = side
    return {r.id: sides[r.pair.key] for r in reviews if r.pair.key in sides}


def _row(review: Review) -> Row:
    anchors = review.anchors | text_anchors(review)
    return Row(review.id, review.label, anchors, review.reviewed_at)


def example_of(review: Review, group: str) -> Example:
    """A review as a row that a model learns from or is judged on."""
    source: Source = "correction" if review.corrected else "agreed"
    return Example(
        id=review.id,
        pair=review.pair,
        label=review.label,
        source=source,
        group=group,
        people=review.people,
        review=review,
    )


def _hash(rows: Iterable[object]) -> str:
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps(row, ensure_ascii=True).encode() + b"\n")
    return digest.hexdigest()
