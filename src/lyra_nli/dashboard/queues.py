"""What waits for people: how much, and the edges that are worth a look first."""

from __future__ import annotations

import json
from typing import Any, Literal

from sqlalchemy import Connection, select

from lyra_nli.dashboard.facts import queue_facts
from lyra_nli.dashboard.view import Fields, View
from lyra_nli.monitoring.overview import Queue, count_queue
from lyra_nli.storage.generation import Generation
from lyra_nli.storage.tables import nli_queue_scores
from lyra_nli.storage.verdicts import Verdicts

_SCORES = {"nli_queue_scores": ("kind", "edge_id", "score", "detail_json")}
SHOWN = 20


def queue(view: View) -> Fields | None:
    """How many edges wait, are on somebody's screen, look suspect, or are in dispute."""
    found: Queue | None = view.ask("the queue", None, count_queue, needs={})
    return queue_facts(found) if found else None


def scored(view: View, kind: Literal["suspect", "disagree"]) -> list[Fields]:
    """The edges with the highest scores, with their texts.

    Returns:
        of each edge what `nli_queue_scores` has, `detail` read, and its label and texts; those
        are empty when the edge is gone.
    """

    def read_scores(connection: Connection, generation: Generation) -> list[Fields]:
        table = nli_queue_scores
        statement = select(table).where(table.c.kind == kind)
        rows = connection.execute(statement.order_by(table.c.score.desc()).limit(SHOWN)).all()
        texts = _texts(connection, generation, [row.edge_id for row in rows])
        return [
            {
                "edge_id": row.edge_id,
                "score": row.score,
                "source": row.source,
                "at": row.at,
                "detail": _detail(row.detail_json),
                **texts.get(row.edge_id, {"label": None, "premise": "", "hypothesis": ""}),
            }
            for row in rows
        ]

    return view.ask("the edges that are worth a look", [], read_scores, needs=_SCORES)


def _texts(
    connection: Connection, generation: Generation, edge_ids: list[str]
) -> dict[str, Fields]:
    if not generation.has_edges:
        return {}
    tables = Verdicts(generation)
    statement = tables.edge_texts().where(tables.edge.c.id.in_(edge_ids))
    return {
        row.id: {"label": row.label, "premise": row.premise, "hypothesis": row.hypothesis}
        for row in connection.execute(statement)
    }


def _detail(stored: str) -> dict[str, Any]:
    try:
        detail = json.loads(stored)
    except ValueError:
        return {}
    return detail if isinstance(detail, dict) else {}
