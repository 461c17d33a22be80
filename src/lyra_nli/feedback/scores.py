"""What makes an edge worth a look: taken away when somebody looks, put back when that is undone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import Connection, delete
from sqlalchemy.dialects import postgresql, sqlite

from lyra_nli.storage.tables import nli_queue_scores


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
    dialect = sqlite if connection.dialect.name == "sqlite" else postgresql
    if rows:
        connection.execute(dialect.insert(nli_queue_scores).on_conflict_do_nothing(), rows)
