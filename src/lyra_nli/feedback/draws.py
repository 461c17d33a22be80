"""Which edge comes next: one short statement for each order of the review queue.

Every statement walks one index from its best end and stops at the first edge that will do;
none reads a table whole. On SQLite the index is named (``INDEXED BY``), because without
statistics the planner may prefer an index of Lyra's on ``relation``, and sort a million rows.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final, Literal

from sqlalchemy import Connection, bindparam, text
from sqlalchemy.sql.elements import TextClause

from lyra_nli.storage.generation import Generation
from lyra_nli.storage.tables import UNREVIEWED

Order = Literal["uncertain", "disagree", "suspect", "random", "recent"]

DRAWN_AT_ONCE: Final = 64
ROUNDS: Final = 30
"""Rowids tried, 64 at a time, before the edges that are left are listed instead."""

SEEN_AT_ONCE: Final = 1_000
"""Reviews that a draw for a second look goes through at most, twice when it wraps around."""

END: Final = "nlr_g"
"""After every id that we make: those end in hexadecimal digits."""

BLANK: Final = " \t\n\r\f\v\u00a0\u3000"

_REVIEWED: Final = UNREVIEWED.replace("= 0", "= 1")
_WITH_TEXTS: Final = """
LEFT JOIN fragments ON edges.source_type = 'fragment' AND fragments.id = edges.source_id
LEFT JOIN claims ON edges.target_type = 'claim' AND claims.id = edges.target_id
"""
_READABLE: Final = """
trim(coalesce(fragments.text_content, ''), :blank) <> ''
AND trim(coalesce(claims.claim_text, ''), :blank) <> ''
"""
_FREE: Final = """
edges.id NOT IN :skip
AND NOT EXISTS (
    SELECT 1 FROM nli_leases WHERE nli_leases.edge_id = edges.id AND expires_at > :moment
)
"""


@dataclass(frozen=True, slots=True)
class Drawn:
    """An edge to hand out, and why.

    Attributes:
        score: how suspect, or how much in dispute; None in the other orders.
        detail: what the score was made of.
        review_id: the first review, when this is a second look.
    """

    edge_id: str
    score: float | None = None
    detail: Mapping[str, Any] = field(default_factory=dict)
    review_id: str | None = None


class Draws:
    """The statements for one database at one moment.

    Args:
        connection: where to ask.
        generation: the database's names.
        moment: the present, ISO-8601; leases that ended before count as free.
        skip: edges that are not to be drawn.
        rng: for the random draw.
    """

    def __init__(
        self,
        connection: Connection,
        generation: Generation,
        *,
        moment: str,
        skip: Iterable[str] = (),
        rng: Random | None = None,
    ) -> None:
        self._connection = connection
        self._sqlite = connection.dialect.name == "sqlite"
        self._confidence = f"edges.{generation.edge_confidence}"
        # Neither label nor confidence: the model has not judged it yet.
        judged = f"(edges.nli_label IS NOT NULL OR {self._confidence} IS NOT NULL)"
        self._open = f"{UNREVIEWED} AND {judged} AND {_READABLE} AND {_FREE}"
        self._has_created = generation.has("edges", "created_at")
        self._moment = moment
        self._skip = set(skip)
        self._rng = rng or Random()

    def skip(self, edge_id: str) -> None:
        """Don't draw that edge again."""
        self._skip.add(edge_id)

    def draw(self, order: Order) -> Drawn | None:
        """Draw the next edge of an order; None when it has none."""
        if order == "random":
            return self._by_rowid() if self._sqlite else self._by_hash()
        if order in ("disagree", "suspect"):
            row = self._ask(self.scored(order), kind=order).first()
            return Drawn(row.id, row.score, _detail(row.detail_json)) if row else None
        edge_id = self._ask(self.ordered(order)).scalar()
        return Drawn(edge_id) if edge_id else None

    def ordered(self, order: Order) -> str:
        """Say how the least certain, or the newest, unreviewed edges are found."""
        known, by = "", self._confidence
        index = "ix_nli_edges_confidence"
        if order == "uncertain":
            known = f"AND {by} IS NOT NULL"
        elif self._has_created:
            by, index = "edges.created_at DESC", "ix_nli_edges_created"
        else:
            by, index = f"edges.{'rowid' if self._sqlite else 'id'} DESC", ""
        return f"""
SELECT edges.id FROM edges {self._by(index)} {_WITH_TEXTS}
WHERE {self._open} {known} ORDER BY {by} LIMIT 1"""  # noqa: S608 - names of our own

    def scored(self, order: Order) -> str:
        """Say how the edges with the highest scores are found.

        In dispute are unreviewed edges; suspect are reviewed ones. A review takes the edge's
        scores away.
        """
        state = _REVIEWED if order == "suspect" else UNREVIEWED
        return f"""
SELECT edges.id, score, detail_json
FROM nli_queue_scores LEFT JOIN edges ON edges.id = nli_queue_scores.edge_id {_WITH_TEXTS}
WHERE kind = :kind AND {state} AND {_READABLE} AND {_FREE}
ORDER BY score DESC LIMIT 1"""  # noqa: S608

    def rows(self) -> str:
        """Say how SQLite's rows are looked up by number."""
        return f"""
SELECT edges.rowid, edges.id FROM edges NOT INDEXED {_WITH_TEXTS}
WHERE edges.rowid IN :rowids AND {self._open}"""  # noqa: S608

    def listing(self) -> str:
        """Say how all open edges are listed, when few are left."""
        return f"""
SELECT edges.id FROM edges {self._by("ix_nli_edges_confidence")} {_WITH_TEXTS}
WHERE {self._open}"""  # noqa: S608

    def hashes(self) -> str:
        """Say how PostgreSQL's rows are looked up from a point on the circle of md5 sums."""
        return f"""
SELECT edges.id FROM edges {_WITH_TEXTS}
WHERE md5(edges.id) >= :point AND {self._open} ORDER BY md5(edges.id) LIMIT :limit"""  # noqa: S608

    def window(self) -> str:
        """Say which review is the first that a draw from a point does not see."""
        return f"""
SELECT id FROM nli_reviews WHERE id >= :point AND id < '{END}'
ORDER BY id LIMIT 1 OFFSET {SEEN_AT_ONCE}"""  # noqa: S608

    def second(self) -> str:
        """Say how a review for a second look is found: the ledger's ids are random.

        It stands, is the newest of its edge, is another person's, and nobody has had a
        second look. (`coalesce` keeps SQLite from starting at the edges and sorting.)
        """
        return f"""
SELECT edges.id, first.id AS review_id
FROM nli_reviews AS first LEFT JOIN edges ON edges.id = first.edge_id {_WITH_TEXTS}
WHERE first.id >= :point AND first.id < :end AND first.undone_at IS NULL
AND first.reviewer <> '' AND first.reviewer <> :reviewer
AND coalesce(edges.edge_human_corrected, 0) = 1
AND NOT EXISTS (SELECT 1 FROM nli_second_reviews WHERE review_id = first.id)
AND NOT EXISTS (
    SELECT 1 FROM nli_reviews AS later WHERE later.edge_id = first.edge_id
    AND later.undone_at IS NULL AND later.reviewed_at > first.reviewed_at
)
AND {_READABLE} AND {_FREE} ORDER BY first.id LIMIT 1"""  # noqa: S608

    def second_look(self, reviewer: str) -> Drawn | None:
        """Draw another person's review for a second look, at random.

        It looks at a stretch of the ledger, and at its beginning when that reaches the end:
        None when there is nothing in those, however much there may be elsewhere.
        """
        if not reviewer:
            return None
        for point in (f"nlr_{self._rng.getrandbits(64):016x}", "nlr_"):
            end = self._ask(self.window(), point=point).scalar()
            values = {"point": point, "end": end or END, "reviewer": reviewer}
            row = self._ask(self.second(), **values).first()
            if row:
                return Drawn(row.id, review_id=row.review_id)
            if end:
                break
        return None

    def _by_rowid(self) -> Drawn | None:
        """Rejection sampling: try row numbers until one is an open edge.

        Every open edge has the same chance in each round. When all rounds fail, hardly one
        row in a thousand is open; then the index of the unreviewed is short, and is listed.
        """
        low, high = self._connection.exec_driver_sql(
            "SELECT (SELECT min(rowid) FROM edges), (SELECT max(rowid) FROM edges)"
        ).one()
        if low is None:
            return None
        for _ in range(ROUNDS):
            drawn = [self._rng.randint(low, high) for _ in range(DRAWN_AT_ONCE)]
            found = {row.rowid: row.id for row in self._ask(self.rows(), rowids=drawn)}
            hit = next((number for number in drawn if number in found), None)
            if hit is not None:
                return Drawn(found[hit])
        left = list(self._ask(self.listing()).scalars())
        return Drawn(self._rng.choice(left)) if left else None

    def _by_hash(self) -> Drawn | None:
        """One of the 64 open edges after a random point on the circle of md5 sums.

        The gaps between the sums differ, but have nothing to do with what the model said;
        taking one of 64 evens them out.
        """
        found: list[str] = []
        for point in (f"{self._rng.getrandbits(128):032x}", ""):
            missing = DRAWN_AT_ONCE - len(found)
            found += self._ask(self.hashes(), point=point, limit=missing).scalars()
            if len(found) == DRAWN_AT_ONCE:
                break
        return Drawn(self._rng.choice(sorted(set(found)))) if found else None

    def _ask(self, sql: str, **values: Any) -> Any:
        return self._connection.execute(statement(sql), {**self.shared(), **values})

    def shared(self) -> dict[str, Any]:
        """Give the values that every statement has."""
        return {"blank": BLANK, "moment": self._moment, "skip": ["", *sorted(self._skip)]}

    def _by(self, index: str) -> str:
        return f"INDEXED BY {index}" if index and self._sqlite else ""


def statement(sql: str) -> TextClause:
    """Make a statement whose lists may have any length."""
    lists = [name for name in ("skip", "rowids") if f":{name}" in sql]
    return text(sql).bindparams(*(bindparam(name, expanding=True) for name in lists))


def _detail(stored: str) -> dict[str, Any]:
    try:
        detail = json.loads(stored)
    except ValueError:
        return {}
    return detail if isinstance(detail, dict) else {}
