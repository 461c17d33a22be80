"""Groups: rows that share a page, fragment, claim or text, and so prove nothing apart."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

Side = Literal["train", "dev", "holdout", "aside"]


@dataclass(frozen=True, slots=True)
class Row:
    """What splitting needs to know of a row; `at` is when it was reviewed, ISO-8601."""

    id: str
    label: str
    anchors: frozenset[str]
    at: str = ""


def components(rows: Sequence[Row], without: Sequence[str] = ()) -> list[str]:
    """For each row, the name of its connected component over shared anchors.

    Args:
        without: anchors of these kinds (the part before the colon) don't connect.

    A component is named after the smallest id among its rows.
    """
    parent = list(range(len(rows)))

    def find(item: int) -> int:
        while parent[item] != item:
            parent[item] = parent[parent[item]]
            item = parent[item]
        return item

    owner: dict[str, int] = {}
    for index, row in enumerate(rows):
        for anchor in row.anchors:
            if anchor.partition(":")[0] not in without:
                parent[find(index)] = find(owner.setdefault(anchor, index))
    name: dict[int, str] = {}
    for index, row in enumerate(rows):
        root = find(index)
        name[root] = min(name.get(root, row.id), row.id)
    return [name[find(index)] for index in range(len(rows))]


def tied(rows: Sequence[Row], learned: Collection[str]) -> frozenset[str]:
    """Ids of the rows that share an anchor with a learned one, which is itself among them."""
    known = set().union(*(row.anchors for row in rows if row.id in learned))
    return frozenset(row.id for row in rows if row.id in learned or row.anchors & known)


def foldable(groups: Sequence[str]) -> bool:
    """Whether folds of whole groups leave every student at least half of the rows."""
    return 2 * max(Counter(groups).values(), default=1) <= len(groups)


def leaks(rows: Sequence[Row], sides: Sequence[Side]) -> list[str]:
    """Anchors that stand both in the hold-out and in what is learned from; must be empty."""
    places: dict[str, set[bool]] = defaultdict(set)
    for row, side in zip(rows, sides, strict=True):
        if side != "aside":
            for anchor in row.anchors:
                places[anchor].add(side == "holdout")
    return sorted(anchor for anchor, both in places.items() if len(both) > 1)
