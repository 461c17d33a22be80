"""Suspects: reviewed edges whose human label a training found hard to believe."""

from __future__ import annotations

import json
from collections.abc import Mapping

from sqlalchemy import Connection, delete, insert, select

from lyra_nli.storage.engine import batches, now
from lyra_nli.storage.generation import Generation
from lyra_nli.storage.tables import nli_queue_scores
from lyra_nli.storage.verdicts import Verdicts

_SOURCE = "training"


def note_suspects(
    connection: Connection,
    generation: Generation,
    losses: Mapping[str, float],
    version: str,
) -> int:
    """Put reviews into the queue's ``suspect`` order, in place of an earlier training's.

    Args:
        connection: in a transaction for writing.
        losses: `Review.id` -> what its label cost a model that had not learned from it, nats.
        version: the adapter version whose training said so.

    Returns:
        How many edges stand in the queue; reviews of files have none.
    """
    scores = nli_queue_scores
    connection.execute(delete(scores).where(scores.c.source == _SOURCE))
    edges = _edges(connection, generation, losses)
    taken = set(connection.scalars(select(scores.c.edge_id).where(scores.c.kind == "suspect")))
    at, detail = now(), json.dumps({"version": version})
    rows = [
        {
            "kind": "suspect",
            "edge_id": edge,
            "score": losses[review],
            "detail_json": detail,
            "source": _SOURCE,
            "at": at,
        }
        for edge, review in edges.items()
        if edge not in taken  # two people disagree on it: that weighs more
    ]
    for part in batches(rows):
        connection.execute(insert(scores), part)
    return len(rows)


def _edges(
    connection: Connection, generation: Generation, losses: Mapping[str, float]
) -> dict[str, str]:
    """The edge of each review that has one."""
    tables = Verdicts(generation)
    by_table: dict[str, list[str]] = {}
    for review in losses:
        origin, _, key = review.partition(":")
        by_table.setdefault(origin, []).append(key)
    edges = {key: f"edges:{key}" for key in by_table.get("edges", ())}
    for name, table in (("nli_corrections", tables.correction), ("nli_reviews", tables.review)):
        for keys in batches(by_table.get(name, ())):
            found = select(table.c.id, table.c.edge_id).where(
                table.c.id.in_(keys), table.c.edge_id.is_not(None)
            )
            edges |= {edge: f"{name}:{key}" for key, edge in connection.execute(found)}
    return edges
