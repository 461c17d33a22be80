"""Suspects: reviewed edges whose human label a training found hard to believe."""

from __future__ import annotations

import json
from collections.abc import Mapping

from sqlalchemy import Connection, select

from lyra_nli.storage.engine import batches
from lyra_nli.storage.generation import Generation
from lyra_nli.storage.scores import replace_scores
from lyra_nli.storage.verdicts import Verdicts

_SOURCE = "training"


def note_suspects(
    connection: Connection,
    generation: Generation,
    suspicion: Mapping[str, float],
    version: str,
) -> int:
    """Put reviews into the queue's ``suspect`` order, in place of an earlier training's.

    Args:
        connection: in a transaction for writing.
        suspicion: `Review.id` -> how likely its label is wrong, 0 to 1.
        version: the adapter version whose training said so.

    Returns:
        How many edges stand in the queue; reviews of files have none.
    """
    edges = _edges(connection, generation, suspicion)
    scores = {edge: suspicion[review] for edge, review in edges.items()}
    details = dict.fromkeys(scores, json.dumps({"version": version}))
    # Where two people disagree, that weighs more, and stays.
    return replace_scores(connection, "suspect", _SOURCE, scores, details)


def _edges(
    connection: Connection, generation: Generation, suspicion: Mapping[str, float]
) -> dict[str, str]:
    """The edge of each review that has one."""
    tables = Verdicts(generation)
    by_table: dict[str, list[str]] = {}
    for review in suspicion:
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
