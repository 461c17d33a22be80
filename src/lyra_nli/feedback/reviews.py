"""The reviews as people see them: a list, and what was done today."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, and_, case, func, or_, select

from lyra_nli.errors import FeedbackError
from lyra_nli.storage.engine import utc
from lyra_nli.storage.generation import Generation
from lyra_nli.storage.tables import nli_reviews
from lyra_nli.storage.verdicts import Verdicts

_SHOWN = (
    "id",
    "edge_id",
    "reviewed_at",
    "reviewer",
    "predicted_label",
    "predicted_confidence",
    "predicted_by",
    "correct_label",
    "reason",
    "sampling",
    "premise",
    "hypothesis",
    "source_url",
    "trained_version",
    "undone_at",
)


def list_reviews(
    connection: Connection,
    generation: Generation,
    *,
    limit: int = 50,
    before: str | None = None,
    reviewer: str | None = None,
    edge_id: str | None = None,
    include_undone: bool = True,
) -> list[dict[str, Any]]:
    """List reviews of our ledger, newest first.

    Works on a database that was never upgraded: then there are none.

    Args:
        before: the id of the last review of the page before; only older ones follow.

    Returns:
        For each its columns, and ``corrected``: whether the label was changed.

    Raises:
        FeedbackError: when there is no review `before`.
    """
    if not generation.has_reviews:
        return []
    tables = Verdicts(generation)
    review = tables.review
    columns = [review.c[name] for name in _SHOWN if name in review.c]
    conditions: list[ColumnElement[bool]] = []
    if before is not None:
        conditions.append(_older_than(connection, tables, before))
    if reviewer is not None:
        conditions.append(review.c.reviewer == reviewer)
    if edge_id is not None:
        conditions.append(review.c.edge_id == edge_id)
    if not include_undone:
        conditions.append(tables.stands())
    statement: Select[Any] = (
        select(*columns)
        .where(*conditions)
        .order_by(review.c.reviewed_at.desc(), review.c.id.desc())
        .limit(limit)
    )
    rows = connection.execute(statement).mappings()
    return [
        {"undone_at": None, **row, "corrected": row["predicted_label"] != row["correct_label"]}
        for row in rows
    ]


def today(connection: Connection, reviewer: str | None, day_start_utc: str) -> dict[str, int]:
    """Count the edges' reviews since a point in time, of one person or of all.

    Args:
        day_start_utc: when the reader's day began, ISO-8601.

    Returns:
        ``reviewed`` = ``corrected`` + ``agreed``, all that stand; and ``undone``. Imported
        reviews are nobody's work of today.
    """
    table, start = nli_reviews, utc(day_start_utc)
    if not start:
        raise FeedbackError(
            f"{day_start_utc!r} is no point in time",
            code="wrong_value",
            parameter="day_start",
            expected="ISO-8601, as 2026-03-01T00:00:00Z (in a URL a + is written %2B)",
        )
    corrected = table.c.predicted_label != table.c.correct_label
    since = and_(table.c.reviewed_at >= start, table.c.undone_at.is_(None))
    statement = select(
        func.count(case((since, 1))),
        func.count(case((and_(since, corrected), 1))),
        func.count(case((table.c.undone_at >= start, 1))),
    ).where(
        table.c.before_json.is_not(None),  # which an import has not, also of an edge's review
        or_(table.c.reviewed_at >= start, table.c.undone_at >= start),
    )
    if reviewer is not None:
        statement = statement.where(table.c.reviewer == reviewer)
    reviewed, changed, undone = connection.execute(statement).one()
    return {
        "reviewed": reviewed,
        "corrected": changed,
        "agreed": reviewed - changed,
        "undone": undone,
    }


def _older_than(connection: Connection, tables: Verdicts, review_id: str) -> ColumnElement[bool]:
    review = tables.review
    at = connection.scalar(select(review.c.reviewed_at).where(review.c.id == review_id))
    if at is None:
        raise FeedbackError(
            f"there is no review {review_id!r}",
            code="unknown_review",
            parameter="before",
            expected="the id of a review: nlr_…",
        )
    same_time = and_(review.c.reviewed_at == at, review.c.id < review_id)
    return or_(review.c.reviewed_at < at, same_time)
