"""Stamps: cheap questions whose answers change when the rows behind a figure have changed.

A count and the newest of each table's ends: rows of a ledger are added and marked, never
rewritten. Each takes a walk over a small index at most.
"""

from __future__ import annotations

from collections.abc import Hashable

from sqlalchemy import Connection, Select, func, select

from lyra_nli.storage.generation import Generation
from lyra_nli.storage.tables import (
    edges,
    nli_corrections,
    nli_review_events,
    nli_reviews,
    nli_second_reviews,
    nli_training_runs,
    nli_version_events,
)


def of_reviews(connection: Connection, generation: Generation) -> Hashable:
    """Change with every review that is given or taken back."""
    review = nli_reviews.c
    asked: list[Select[int]] = []
    if generation.has("nli_reviews", "undone_at"):
        asked += [
            select(func.count()).select_from(nli_reviews),
            select(func.max(review.reviewed_at)),
            select(func.count()).where(review.undone_at.is_not(None)),
        ]
    if generation.has("nli_review_events"):
        asked.append(select(func.max(nli_review_events.c.id)))
    if generation.has("nli_second_reviews"):
        asked.append(select(func.count()).select_from(nli_second_reviews))
    return _answers(connection, asked)


def of_verdicts(connection: Connection, generation: Generation) -> Hashable:
    """Change with everything that people say, in Lyra's own tables too, and with trainings."""
    asked: list[Select[int]] = []
    if generation.has_corrections:
        asked.append(select(func.count()).select_from(nli_corrections))
    if generation.has("edges", "edge_human_corrected"):
        reviewed = edges.c.edge_human_corrected == 1
        asked.append(select(func.count()).select_from(edges).where(reviewed))
    if generation.has("nli_training_runs"):
        asked.append(select(func.max(nli_training_runs.c.finished_at)))
    return of_reviews(connection, generation), _answers(connection, asked)


def of_events(connection: Connection) -> Hashable:
    """Change with everything that changes what serves."""
    return _answers(connection, [select(func.max(nli_version_events.c.id))])


def _answers(connection: Connection, asked: list[Select[int]]) -> Hashable:
    return tuple(connection.scalar(each) for each in asked)
