"""Looks: how many candidates were judged on mostly the same rows.

Each look at the same rows is another chance to pass by luck, which the gate makes the later ones
pay for. What was looked at is kept with every evaluation, also of versions that were removed: not
thousands of ids, but the rows with the least hashes, which are a random sample of them and the
same sample every time (Broder 1997, On the resemblance and containment of documents).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Self

from pydantic_core import from_json
from sqlalchemy import Connection, select

from lyra_nli.records import Pair
from lyra_nli.storage.tables import nli_evaluations, nli_versions

_KEPT = 256
_MOSTLY = 0.5


@dataclass(frozen=True)
class Rows:
    """Which rows a candidate was judged on.

    Attributes:
        count: how many.
        least: the least `_KEPT` of their pairs' keys, shortened; all of them where there are fewer.
    """

    count: int
    least: tuple[str, ...]

    @classmethod
    def of(cls, pairs: Iterable[Pair]) -> Self:
        """Keep a sample of these rows."""
        keys = sorted({pair.key[:12] for pair in pairs})
        return cls(len(keys), tuple(keys[:_KEPT]))

    def shared_with(self, other: Rows) -> float:
        """Share of these rows that are among the others, 0 to 1.

        Exact where both are whole; else by the hashes up to which both are known.
        """
        theirs = set(other.least)
        bound = other.least[-1] if other.count > len(theirs) else "~"  # after every hash
        mine = [key for key in self.least if key <= bound]
        return sum(key in theirs for key in mine) / max(1, len(mine))


def count_looks(
    connection: Connection, base_model: str, rows: Rows, before: str | None = None
) -> int:
    """Candidates of a base that were judged on mostly these rows, the present one included.

    Args:
        before: when the present one was made, ISO-8601; None: now.
    """
    earlier = _looked_at(connection, base_model, before)
    return 1 + sum(rows.shared_with(other) > _MOSTLY for other in earlier)


def _looked_at(connection: Connection, base_model: str, before: str | None) -> Iterator[Rows]:
    query = (
        select(nli_evaluations.c.metrics_json)
        .join(nli_versions, nli_versions.c.name == nli_evaluations.c.version)
        .where(nli_versions.c.base_model == base_model)
    )
    if before:
        query = query.where(nli_versions.c.created_at < before)
    for stored in connection.scalars(query):
        metrics: dict[str, Any] = from_json(stored)
        if "evidence" in metrics:  # earlier releases kept none
            yield Rows(metrics["evidence"]["count"], tuple(metrics["evidence"]["least"]))
