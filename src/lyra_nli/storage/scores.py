"""Scores: why an edge is worth a look; taken away when somebody looks, put back on an undo."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

from sqlalchemy import Connection, delete, select

from lyra_nli.storage.engine import batches, insert_into, now
from lyra_nli.storage.tables import nli_queue_scores

DISPUTED = 1_000.0
"""More than any suspicion: an edge that two people see differently is the most suspect."""


def replace_scores(
    connection: Connection,
    kind: Literal["disagree", "suspect"],
    source: str,
    scores: Mapping[str, float],
    details: Mapping[str, str],
) -> int:
    """Put edges into one of the queue's orders, in place of what the same source put there.

    Args:
        connection: in a transaction for writing.
        source: who says so; what others said of the same edge stands.
        scores: edge id -> how much it is worth a look.
        details: edge id -> JSON.

    Returns:
        How many edges this source has in the queue now.
    """
    table = nli_queue_scores
    own = (table.c.kind == kind, table.c.source == source)
    connection.execute(delete(table).where(*own))
    taken = set(connection.scalars(select(table.c.edge_id).where(table.c.kind == kind)))
    at = now()
    rows = [
        {
            "kind": kind,
            "edge_id": edge,
            "score": score,
            "detail_json": details.get(edge, "{}"),
            "source": source,
            "at": at,
        }
        for edge, score in scores.items()
        if edge not in taken
    ]
    keep_other = insert_into(connection, table).on_conflict_do_nothing()  # one that came just now
    for part in batches(rows):
        connection.execute(keep_other, part)
    return len(rows)


def take_scores(connection: Connection, edge_id: str) -> list[dict[str, Any]]:
    """Delete an edge's scores; returns them, for `restore_scores`."""
    table = nli_queue_scores
    kept = [column for column in table.c if column is not table.c.edge_id]
    taken = connection.execute(delete(table).where(table.c.edge_id == edge_id).returning(*kept))
    return [dict(row) for row in taken.mappings()]


def restore_scores(
    connection: Connection, edge_id: str, scores: Iterable[Mapping[str, Any]]
) -> None:
    """Put an edge's scores back, where there is no newer one of the same kind."""
    rows = [{**score, "edge_id": edge_id} for score in scores]
    if rows:
        connection.execute(insert_into(connection, nli_queue_scores).on_conflict_do_nothing(), rows)
