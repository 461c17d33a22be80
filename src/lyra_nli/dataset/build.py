"""Building: reviews and replay -> a Dataset with a content hash."""

from __future__ import annotations

import hashlib
import json
import random
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from lyra_nli.dataset.clean import Cleaned, clean, text_anchors
from lyra_nli.dataset.split import Row, Side, leaks, split
from lyra_nli.errors import DatasetError
from lyra_nli.records import Example, Review, Source
from lyra_nli.settings import DatasetSettings

GENERAL_ROWS = 300
"""Replay pairs kept from training, on which the gate measures forgetting."""


@dataclass(frozen=True)
class Dataset:
    """What one training run learns from and is judged on.

    Attributes:
        general: general NLI that is never trained on, for the forgetting check.
        aside: rows that straddle a cut group or do not fit the model: not learned from, not
            judged on.
        cleaned: what cleaning found.
    """

    train: tuple[Example, ...]
    dev: tuple[Example, ...]
    holdout: tuple[Example, ...]
    general: tuple[Example, ...]
    aside: tuple[Example, ...]
    cleaned: Cleaned
    leaking: tuple[str, ...]

    @property
    def content_hash(self) -> str:
        """SHA-256 over every example that is learned from or judged on."""
        return _hash(
            (e.id, e.pair.premise, e.pair.hypothesis, e.label, e.source, e.weight)
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

    def row_ids(self) -> dict[str, list[str]]:
        """Side -> ids of its examples, in order."""
        return {name: [example.id for example in side] for name, side in self.sides().items()}

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
) -> Dataset:
    """Clean, group, split and mix.

    Args:
        replay: general NLI; whole groups of it are kept for the forgetting check.
        seen: row id -> side in the active version's training, see `split`.

    Raises:
        DatasetError: when there are no usable reviews, or no honest split exists.
    """
    cleaned = clean(reviews)
    if not cleaned.reviews:
        raise DatasetError(
            "there are no usable reviews", hint="Correct or confirm some of the model's edges."
        )
    rows = [_row(review) for review in cleaned.reviews]
    sides, groups = split(
        rows,
        holdout=settings.holdout_fraction,
        dev=settings.dev_fraction,
        seed=settings.seed,
        seen=seen,
    )
    examples = [_example(r, g) for r, g in zip(cleaned.reviews, groups, strict=True)]
    parts: dict[Side, list[Example]] = {"train": [], "dev": [], "holdout": [], "aside": []}
    for example, side in zip(examples, sides, strict=True):
        parts[side].append(example)
    if not parts["train"] or (settings.holdout_fraction and not parts["holdout"]):
        raise DatasetError(
            f"{len(examples)} reviews in {len(set(groups))} group(s) can't be split into "
            "training and hold-out",
            hint="Rows of one page, fragment, claim or group stay together: review edges of "
            "more pages and claims.",
        )
    learned, general = _mix_replay(replay, settings)
    return Dataset(
        train=(*parts["train"], *learned),
        dev=tuple(parts["dev"]),
        holdout=tuple(parts["holdout"]),
        general=tuple(general),
        aside=tuple(parts["aside"]),
        cleaned=cleaned,
        leaking=tuple(leaks(rows, sides)),
    )


def rebuild(
    reviews: Sequence[Review], replay: Sequence[Example], row_ids: Mapping[str, Sequence[str]]
) -> Dataset:
    """The dataset of an earlier run, from the row ids that its manifest keeps.

    Raises:
        DatasetError: naming rows that are gone.
    """
    wanted = {row_id for ids in row_ids.values() for row_id in ids}
    cleaned = clean([review for review in reviews if review.id in wanted])
    found = {e.id: e for e in replay} | {r.id: _example(r, r.id) for r in cleaned.reviews}
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


def _row(review: Review) -> Row:
    return Row(review.id, review.label, review.anchors | text_anchors(review))


def _example(review: Review, group: str) -> Example:
    source: Source = "correction" if review.corrected else "agreed"
    return Example(id=review.id, pair=review.pair, label=review.label, source=source, group=group)


def _mix_replay(
    replay: Sequence[Example], settings: DatasetSettings
) -> tuple[list[Example], list[Example]]:
    """Draw the rows to learn from and, of other groups, the rows for the forgetting check."""
    groups = sorted({example.group for example in replay})
    rng = random.Random(settings.seed)
    rng.shuffle(groups)
    held: set[str] = set()
    sizes = Counter(example.group for example in replay)
    kept = 0
    for group in groups:
        if kept >= min(GENERAL_ROWS, len(replay) // 3):
            break
        held.add(group)
        kept += sizes[group]
    pool = [example for example in replay if example.group not in held]
    rng.shuffle(pool)
    general = [example for example in replay if example.group in held]
    return pool[: settings.replay_rows], general


def _hash(rows: Iterable[object]) -> str:
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps(row, ensure_ascii=True).encode() + b"\n")
    return digest.hexdigest()
