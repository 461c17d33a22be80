"""Cleaning: one pair, one label; everything that is set aside is counted."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

from lyra_nli.records import Review, normalise

_NOT_WORD = re.compile(r"[\W_]+")


@dataclass(frozen=True)
class Conflict:
    """One pair that people labelled differently; the newest label is the one kept."""

    kept: Review
    overruled: tuple[Review, ...]


@dataclass(frozen=True)
class Cleaned:
    """Reviews with one label a pair, and what was found on the way.

    Attributes:
        reviews: newest review of every pair, oldest first; it counts the people who agree.
        duplicates: further reviews of a pair with the same label.
        near_duplicates: pairs that differ from another one in punctuation alone. They are
            kept, and `anchors` ties them to one side of the split.
        empty: ids of reviews with an empty text; they are left out.
        confirmed: ids of reviews whose label was given more than once.
    """

    reviews: tuple[Review, ...]
    duplicates: int
    conflicts: tuple[Conflict, ...]
    near_duplicates: int
    empty: tuple[str, ...]
    confirmed: frozenset[str] = frozenset()

    @property
    def disputed(self) -> frozenset[str]:
        """Ids of reviews that somebody else saw otherwise, where nobody has settled it since."""
        return frozenset(
            kept.id
            for kept, overruled in ((c.kept, c.overruled) for c in self.conflicts)
            if kept.people == 1 and any(review.reviewer != kept.reviewer for review in overruled)
        )


def clean(reviews: Sequence[Review]) -> Cleaned:
    """Keep the newest review of every pair (ties: the last one read)."""
    empty = tuple(r.id for r in reviews if _is_empty(r))
    by_pair: dict[str, list[Review]] = defaultdict(list)
    for review in reviews:
        if not _is_empty(review):
            by_pair[review.pair.key].append(review)
    kept, conflicts, confirmed, duplicates = [], [], set(), 0
    for same in by_pair.values():
        same.sort(key=lambda review: review.reviewed_at)
        newest, earlier = same[-1], same[:-1]
        people = _people(newest, same)
        if people != newest.people:
            newest = replace(newest, people=people)
        overruled = tuple(review for review in earlier if review.label != newest.label)
        duplicates += len(earlier) - len(overruled)
        if overruled:
            conflicts.append(Conflict(newest, overruled))
        if len(overruled) < len(earlier) or newest.people > 1:
            confirmed.add(newest.id)
        kept.append(newest)
    kept.sort(key=lambda review: (review.reviewed_at, review.id))
    return Cleaned(
        reviews=tuple(kept),
        duplicates=duplicates,
        conflicts=tuple(conflicts),
        near_duplicates=len(kept) - len({_skeleton(review) for review in kept}),
        empty=empty,
        confirmed=frozenset(confirmed),
    )


def text_anchors(review: Review) -> frozenset[str]:
    """Anchors of the texts themselves: the same premise or claim is never on both sides.

    Texts are compared without case, white space and punctuation, so that near-duplicates
    stay together too.
    """
    pair = review.pair
    return frozenset(
        f"{kind}:{_squash(text)}"
        for kind, text in (("premise", pair.premise), ("hypothesis", pair.hypothesis))
    )


def _people(newest: Review, same: Sequence[Review]) -> int:
    """How many people gave the newest label; those without a name are taken for one."""
    agreeing = [review for review in same if review.label == newest.label]
    seconded = sum(review.people - 1 for review in agreeing)
    return len({review.reviewer for review in agreeing}) + seconded


def _squash(text: str) -> str:
    # A text of punctuation alone squashes to nothing: it must stay itself.
    return _NOT_WORD.sub(" ", normalise(text)).strip() or normalise(text)


def _skeleton(review: Review) -> tuple[str, str]:
    return _squash(review.pair.premise), _squash(review.pair.hypothesis)


def _is_empty(review: Review) -> bool:
    return not (review.pair.premise.strip() and review.pair.hypothesis.strip())
