"""Corrections of edges: a human confirms or changes what the model said about a pair."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Connection, Engine, Row, insert, select, update

from lyra_nli.errors import InputError
from lyra_nli.feedback.fields import check_notes, fault
from lyra_nli.labels import LABELS, Label, parse_label
from lyra_nli.records import Pair, Sampling
from lyra_nli.storage.engine import new_id, now, write
from lyra_nli.storage.generation import Generation, inspect_database
from lyra_nli.storage.reviews import graph_anchors
from lyra_nli.storage.tables import nli_reviews
from lyra_nli.storage.verdicts import Verdicts

_WHY_NOT = {
    "origin": "it says which fragment a claim was taken from",
    "cites": "it is a citation between pages",
}


@dataclass(frozen=True, slots=True)
class EdgeReview:
    """What a human says about one edge.

    Attributes:
        predicted_by: the model version whose judgement the human saw, where known.
    """

    edge_id: str
    correct_relation: str
    reason: str = ""
    reviewer: str = ""
    sampling: Sampling = "unknown"
    predicted_by: str | None = None


@dataclass(frozen=True, slots=True)
class EdgeCorrection:
    """The answer to an `edge_correct`, as Lyra's tool gives it.

    Attributes:
        sample_id: the row of ``nli_corrections``; None when none was written.
    """

    ok: bool
    action: Literal["edge_correct"]
    edge_id: str
    previous_relation: Label
    new_relation: Label
    sample_id: str | None
    message: str


def edge_correct(
    engine: Engine,
    edge_id: str,
    correct_relation: str,
    *,
    reason: str = "",
    reviewer: str = "",
    sampling: Sampling = "unknown",
    predicted_by: str | None = None,
) -> EdgeCorrection:
    """Record one human verdict on an edge, in one transaction.

    A changed label becomes a row of ``nli_corrections`` and the edge's new label; an
    unchanged one marks the edge as reviewed. Either way ``nli_reviews`` keeps the texts and
    what the model had said, also when the edge is reviewed again.

    Raises:
        InputError: for an unknown edge, one that is no NLI judgement (``origin``,
            ``cites``), an unknown label, or notes that can't be stored.
        StorageError: when the database was not upgraded or can't be written.
    """
    review = EdgeReview(edge_id, correct_relation, reason, reviewer, sampling, predicted_by)
    return correct_edges(engine, [review])[0]


def correct_edges(engine: Engine, reviews: Iterable[EdgeReview]) -> list[EdgeCorrection]:
    """Record many verdicts in one transaction: all of them, or none.

    Raises:
        InputError, StorageError: as `edge_correct`, for the first verdict that fails.
    """
    generation = inspect_database(engine)
    with write(engine) as connection:
        return [correct_edge(connection, generation, review) for review in reviews]


def correct_edge(
    connection: Connection, generation: Generation, review: EdgeReview
) -> EdgeCorrection:
    """Record one verdict in a transaction of the caller's; see `edge_correct`."""
    generation.require_upgraded()
    label = _check(review)
    tables = Verdicts(generation)
    edge = _find_edge(connection, tables, review.edge_id)
    previous: Label = edge.label
    changed = label != previous
    prediction = _prediction(connection, tables, edge, review.predicted_by)
    at = now()
    sample_id = None
    if changed or generation.stores_agreed:
        sample_id = new_id("nlc")
        row = _correction_row(generation, edge, prediction, review, sample_id, at)
        connection.execute(insert(tables.correction).values(row))
    connection.execute(
        insert(nli_reviews).values(_review_row(edge, prediction, review, sample_id, at))
    )
    _update_edge(connection, tables, review, at, changed=changed)
    return EdgeCorrection(
        ok=True,
        action="edge_correct",
        edge_id=review.edge_id,
        previous_relation=previous,
        new_relation=label,
        sample_id=sample_id,
        message=_message(edge, previous, label),
    )


@dataclass(frozen=True, slots=True)
class _Prediction:
    """What the model had said before any human touched the edge."""

    label: str
    confidence: float | None
    by: str | None


def _check(review: EdgeReview) -> Label:
    words = fault(review.edge_id, 200) if review.edge_id else "is empty"
    if words:
        raise InputError(f"edge_id: {words}")
    check_notes(reason=review.reason, reviewer=review.reviewer)
    if review.sampling not in ("random", "queue", "unknown"):
        raise InputError(f"sampling: {review.sampling!r}: expected random, queue or unknown")
    return parse_label(review.correct_relation)


def _find_edge(connection: Connection, tables: Verdicts, edge_id: str) -> Row[Any]:
    edge = None
    if tables.generation.has_edges:
        edge = connection.execute(
            tables.edge_texts().where(tables.edge.c.id == edge_id).with_for_update(of=tables.edge)
        ).one_or_none()
    if edge is None:
        raise InputError(f"there is no edge {edge_id!r}")
    if edge.relation not in LABELS:
        why = _WHY_NOT.get(edge.relation, "it is no judgement of the model")
        raise InputError(
            f"edge {edge_id!r} has the relation {edge.relation!r} and can't be corrected: {why}",
            hint=f"Only edges with {', '.join(LABELS)} can.",
        )
    return edge


def _prediction(
    connection: Connection, tables: Verdicts, edge: Row[Any], by: str | None
) -> _Prediction:
    """Find the model's own judgement, which after a review no longer stands on the edge."""
    if not edge.edge_human_corrected:
        return _Prediction(edge.label, edge.confidence, by)
    review, row = tables.review, tables.correction
    found = connection.execute(
        select(review.c.predicted_label, review.c.predicted_confidence, review.c.predicted_by)
        .where(review.c.edge_id == edge.id)
        .order_by(review.c.reviewed_at.desc())
        .limit(1)
    ).one_or_none()
    if found:
        return _Prediction(*found)
    first = connection.execute(
        select(row.c.predicted_label, row.c.predicted_confidence)
        .where(row.c.edge_id == edge.id, row.c.predicted_label.in_(LABELS))
        .order_by(row.c.corrected_at, row.c.id)
        .limit(1)
    ).one_or_none()
    if first:
        return _Prediction(first[0], first[1] or None, None)
    # Reviewed elsewhere without a trace: then the label is the model's, and the confidence
    # too, unless it is the 1.0 that a review leaves.
    return _Prediction(edge.label, None if edge.confidence == 1.0 else edge.confidence, None)


def _correction_row(
    generation: Generation,
    edge: Row[Any],
    prediction: _Prediction,
    review: EdgeReview,
    sample_id: str,
    at: str,
) -> dict[str, object]:
    confidence = prediction.confidence
    if confidence is None and ("nli_corrections", "predicted_confidence") in generation.required:
        confidence = 0.0  # what Lyra writes where it has none
    row = {
        "id": sample_id,
        "edge_id": edge.id,
        "task_id": edge.task_id,
        "premise": edge.premise,
        generation.corrections_hypothesis: edge.hypothesis,
        "predicted_label": prediction.label,
        "predicted_confidence": confidence,
        "correct_label": review.correct_relation,
        "reason": review.reason or None,
        "corrected_at": at,
    }
    return {name: value for name, value in row.items() if generation.has("nli_corrections", name)}


def _review_row(
    edge: Row[Any], prediction: _Prediction, review: EdgeReview, sample_id: str | None, at: str
) -> dict[str, object]:
    return {
        "id": new_id("nlr"),
        "edge_id": edge.id,
        "correction_id": sample_id,
        "pair_key": Pair(edge.premise, edge.hypothesis).key,
        "premise": edge.premise,
        "hypothesis": edge.hypothesis,
        "predicted_label": prediction.label,
        "predicted_confidence": prediction.confidence,
        "predicted_by": prediction.by,
        "correct_label": review.correct_relation,
        "anchors_json": json.dumps(graph_anchors(edge)),  # the edge may be gone one day
        "reviewer": review.reviewer,
        "reason": review.reason,
        "sampling": review.sampling,
        "source_url": edge.page_url or "",
        "reviewed_at": at,
    }


def _update_edge(
    connection: Connection, tables: Verdicts, review: EdgeReview, at: str, *, changed: bool
) -> None:
    generation, edge = tables.generation, tables.edge
    values: dict[str, object] = {
        "edge_human_corrected": 1,
        "edge_correction_reason": review.reason or None,
        "edge_corrected_at": at,
    }
    if changed:
        values["relation"] = values["nli_label"] = review.correct_relation
        values[generation.edge_confidence] = 1.0
    connection.execute(update(edge).where(edge.c.id == review.edge_id).values(values))


def _message(edge: Row[Any], previous: Label, label: Label) -> str:
    if previous == label:
        words = f"Edge reviewed: {label} confirmed."
    else:
        words = f"Edge corrected: {previous} -> {label}."
    if not edge.premise.strip() or not edge.hypothesis.strip():
        return f"{words} Its fragment or claim has no text, so nothing can be learned from it."
    return f"{words} Saved for training."
