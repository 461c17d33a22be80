"""Caps: no page, claim or person counts for more rows than the settings allow.

Nothing is left out: the rows of an origin that has too many weigh less, so that all of them
together count like as many as it may have.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from lyra_nli.records import Example, normalise
from lyra_nli.settings import DatasetSettings

Origin = tuple[str, str]
"""(kind, name): ``("page", "17")``."""


@dataclass(frozen=True)
class Capped:
    """Rows that learning is to go by, and what was held back.

    Attributes:
        rows: as many as before, in their order.
        origins: rows of each origin that has more than it may count for, the largest first.
    """

    rows: tuple[Example, ...]
    origins: tuple[tuple[Origin, int], ...]


def cap(rows: Sequence[Example], settings: DatasetSettings) -> Capped:
    """Weigh down the rows of an origin by ``allowed / rows``; of several origins the least counts.

    Args:
        rows: all that are learned from together; replayed ones stay as they are.
    """
    allowed = {
        "page": settings.page_rows,
        "claim": settings.claim_rows,
        "reviewer": settings.reviewer_rows,
    }
    counts = Counter(origin for row in rows for origin in _origins(row))
    shares = {
        origin: most / count
        for origin, count in counts.items()
        if (most := allowed[origin[0]]) is not None and count > most
    }

    def weighed(row: Example) -> Example:
        share = min((shares.get(origin, 1.0) for origin in _origins(row)), default=1.0)
        return replace(row, weight=row.weight * share) if share < 1 else row

    over = sorted(shares, key=lambda origin: (-counts[origin], origin))
    return Capped(tuple(map(weighed, rows)), tuple((origin, counts[origin]) for origin in over))


def _origins(row: Example) -> Iterator[Origin]:
    """The pages, claims and the person that a reviewed row is from.

    A claim without an id is its text.
    """
    if row.review is None:
        return
    parts = [anchor.partition(":") for anchor in row.review.anchors]
    named = {(kind, name) for kind, _, name in parts if kind in ("page", "claim")}
    if not any(kind == "claim" for kind, _ in named):
        named.add(("claim", normalise(row.pair.hypothesis)))
    if row.review.reviewer:
        named.add(("reviewer", row.review.reviewer))
    yield from sorted(named)
