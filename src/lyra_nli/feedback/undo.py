"""Taking a review back: an entry in the history, never a deletion."""

from __future__ import annotations

import json
from typing import Any

from sqlalchemy import Connection, Engine, Row, insert, select, update

from lyra_nli.errors import ConflictError, FeedbackError
from lyra_nli.feedback.idempotency import once
from lyra_nli.feedback.parameters import REASON, WHO, Parameter, check
from lyra_nli.labels import LABELS
from lyra_nli.storage.engine import now, write
from lyra_nli.storage.generation import Generation, inspect_database
from lyra_nli.storage.scores import restore_scores
from lyra_nli.storage.tables import nli_review_events, nli_reviews
from lyra_nli.storage.verdicts import Verdicts

REVIEW_ID = Parameter("review_id", "the review, as its answer named it", required=True)


def undo_review(
    engine: Engine,
    review_id: str,
    *,
    who: str,
    reason: str = "",
    idempotency_key: str | None = None,
) -> dict[str, object]:
    """Take a review back, and put its edge into the state before it, in one transaction.

    The review stays, marked as undone, and counts and teaches nothing any more; nor does the
    row of ``nli_corrections`` that it wrote. An imported review never changed an edge, so there
    is none to restore.

    Returns:
        ``ok``, ``action``, ``review_id``, ``edge_id``, ``restored_relation``, ``message``.

    Raises:
        FeedbackError: for an unknown review, or notes that can't be stored.
        ConflictError: when it is undone already, is not the newest of its edge, or the edge
            is no longer as this review left it.
        StorageError: when the database was not upgraded or can't be written.
    """
    check([REVIEW_ID, REASON, WHO], {"review_id": review_id, "reason": reason, "who": who})
    generation = inspect_database(engine)
    generation.require_upgraded()
    with write(engine) as connection:
        return once(
            connection,
            idempotency_key,
            ["undo", review_id, who, reason],
            lambda: _undo(connection, generation, review_id, who, reason),
        )


def _undo(
    connection: Connection, generation: Generation, review_id: str, who: str, reason: str
) -> dict[str, object]:
    review = _find(connection, review_id)
    relation = _restore_edge(connection, generation, review)
    at = now()
    undone = (
        update(nli_reviews)
        .where(nli_reviews.c.id == review_id, nli_reviews.c.undone_at.is_(None))
        .values(undone_at=at)
    )
    if not connection.execute(undone).rowcount:
        raise _too_late(review_id, "it was undone just now")
    connection.execute(
        insert(nli_review_events).values(
            at=at,
            who=who,
            action="undo",
            review_id=review_id,
            edge_id=review.edge_id,
            reason=reason,
        )
    )
    words = f"the edge is {relation} again" if relation else "there was no edge to restore"
    return {
        "ok": True,
        "action": "undo",
        "review_id": review_id,
        "edge_id": review.edge_id,
        "restored_relation": relation,
        "message": f"Review undone: {words}.",
    }


def _find(connection: Connection, review_id: str) -> Row[Any]:
    """Find a review that stands."""
    table = nli_reviews
    review = connection.execute(select(table).where(table.c.id == review_id)).one_or_none()
    if review is None:
        raise FeedbackError(
            f"there is no review {review_id!r}",
            code="unknown_review",
            parameter=REVIEW_ID.name,
            expected="the id of a review: nlr_…",
            hint="`lyra-nli reviews list` shows them.",
        )
    if review.undone_at is not None:
        raise _too_late(review_id, f"it was undone on {review.undone_at[:19]}")
    return review


def _restore_edge(connection: Connection, generation: Generation, review: Row[Any]) -> str | None:
    """Put the edge back; None when the review changed none (an import), or it is gone."""
    if review.edge_id is None:
        return None
    tables = Verdicts(generation)
    edge = connection.execute(
        tables.edge_texts()
        .where(tables.edge.c.id == review.edge_id)
        .with_for_update(of=tables.edge)
    ).one_or_none()
    if edge is None:
        return None
    if review.before_json is None:
        if review.correction_id is None and str(edge.edge_corrected_at) != review.reviewed_at:
            return None
        raise _too_late(review.id, "it is older than undo, and nobody noted the edge before it")
    before = json.loads(review.before_json)
    _require_newest(connection, review)
    _require_as_left(edge, review, before)
    connection.execute(
        update(tables.edge)
        .where(tables.edge.c.id == review.edge_id)
        .values(
            {
                "relation": before["relation"],
                "nli_label": before["nli_label"],
                generation.edge_confidence: before["confidence"],
                "edge_human_corrected": before["edge_human_corrected"],
                "edge_correction_reason": before["reason"],
                "edge_corrected_at": before["corrected_at"],
            }
        )
    )
    restore_scores(connection, review.edge_id, before.get("scores", []))
    return str(before["relation"])


def _require_newest(connection: Connection, review: Row[Any]) -> None:
    table = nli_reviews
    newest = connection.execute(
        select(table.c.id, table.c.reviewer, table.c.reviewed_at)
        .where(table.c.edge_id == review.edge_id, table.c.undone_at.is_(None))
        .order_by(table.c.reviewed_at.desc())
        .limit(1)
    ).one_or_none()
    if newest is None:  # it stood when we looked, before we had the edge for ourselves
        raise _too_late(review.id, "it was undone just now")
    if newest.id != review.id:
        who = newest.reviewer or "somebody"
        words = f"{who} reviewed the edge again on {newest.reviewed_at[:19]} ({newest.id})"
        raise _too_late(review.id, words)


def _require_as_left(edge: Row[Any], review: Row[Any], before: dict[str, Any]) -> None:
    """Compare what the review wrote on the edge with what stands there."""
    before_label = before["nli_label"] if before["nli_label"] in LABELS else before["relation"]
    agreed = before_label == review.correct_label
    same = (
        edge.label == review.correct_label
        and edge.confidence == (before["confidence"] if agreed else 1.0)
        and edge.edge_human_corrected
        and str(edge.edge_corrected_at) == review.reviewed_at
        and (edge.edge_correction_reason or "") == review.reason
    )
    if not same:
        raise _too_late(review.id, f"the edge has changed since; it is {edge.label} now")


def _too_late(review_id: str, why: str) -> ConflictError:
    return ConflictError(
        f"review {review_id!r} can't be undone: {why}",
        parameter=REVIEW_ID.name,
        expected="the newest review of an edge that stands as that review left it",
    )
