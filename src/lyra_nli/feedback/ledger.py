"""What a verdict writes down: the pair, the model's own judgement, the edge as it stood."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, select

from lyra_nli.errors import ConflictError, FeedbackError
from lyra_nli.labels import LABELS, Label
from lyra_nli.records import Pair
from lyra_nli.storage.generation import Generation
from lyra_nli.storage.reviews import graph_anchors
from lyra_nli.storage.tables import nli_review_events
from lyra_nli.storage.verdicts import Verdicts

_WHY_NOT = {
    "origin": "it says which fragment a claim was taken from",
    "cites": "it is a citation between pages",
}


@dataclass(frozen=True, slots=True)
class Prediction:
    """What the model had said before any human touched the edge."""

    label: str
    confidence: float | None
    by: str | None


def find_edge(connection: Connection, tables: Verdicts, edge_id: str) -> Row[Any]:
    """Find an edge that can be reviewed, and keep others from changing it meanwhile.

    Raises:
        FeedbackError: when there is none of that id, or it is no judgement of the model.
    """
    edge = None
    if tables.generation.has_edges:
        edge = connection.execute(
            tables.edge_texts().where(tables.edge.c.id == edge_id).with_for_update(of=tables.edge)
        ).one_or_none()
    if edge is None:
        raise FeedbackError(
            f"there is no edge {edge_id!r}",
            code="unknown_edge",
            parameter="edge_id",
            expected="the id of an edge in this database",
        )
    if edge.relation not in LABELS:
        why = _WHY_NOT.get(edge.relation, "it is no judgement of the model")
        raise FeedbackError(
            f"edge {edge_id!r} has the relation {edge.relation!r} and can't be corrected: {why}",
            code="not_nli",
            parameter="edge_id",
            expected=f"an edge with the relation {', '.join(LABELS)}",
            hint=f"Only edges with {', '.join(LABELS)} can.",
        )
    return edge


def prediction_of(
    connection: Connection, tables: Verdicts, edge: Row[Any], by: str | None
) -> Prediction:
    """Find the model's own judgement, which after a review no longer stands on the edge.

    Args:
        by: the version that judged, as far as the reviewer knows.
    """
    if not edge.edge_human_corrected:
        return Prediction(edge.label, edge.confidence, by)
    review, row = tables.review, tables.correction
    found = connection.execute(
        select(review.c.predicted_label, review.c.predicted_confidence, review.c.predicted_by)
        .where(review.c.edge_id == edge.id, tables.stands())
        .order_by(review.c.reviewed_at.desc())
        .limit(1)
    ).one_or_none()
    if found:
        return Prediction(*found)
    first = connection.execute(
        select(row.c.predicted_label, row.c.predicted_confidence)
        .where(
            row.c.edge_id == edge.id,
            row.c.predicted_label.in_(LABELS),
            tables.correction_stands(row),
        )
        .order_by(row.c.corrected_at, row.c.id)
        .limit(1)
    ).one_or_none()
    if first:
        return Prediction(first[0], first[1] or None, None)
    # Reviewed elsewhere without a trace: then the label is the model's, and the confidence
    # too, unless it is the 1.0 that a review leaves.
    return Prediction(edge.label, None if edge.confidence == 1.0 else edge.confidence, None)


def correction_row(
    generation: Generation, edge: Row[Any], prediction: Prediction, label: Label, reason: str
) -> dict[str, object]:
    """Fill a row of Lyra's ``nli_corrections``, as far as this database has the columns."""
    confidence = prediction.confidence
    if confidence is None and ("nli_corrections", "predicted_confidence") in generation.required:
        confidence = 0.0  # what Lyra writes where it has none
    row = {
        "edge_id": edge.id,
        "task_id": edge.task_id,
        "premise": edge.premise,
        generation.corrections_hypothesis: edge.hypothesis,
        "predicted_label": prediction.label,
        "predicted_confidence": confidence,
        "correct_label": label,
        "reason": reason or None,
    }
    return {name: value for name, value in row.items() if generation.has("nli_corrections", name)}


def review_row(edge: Row[Any], prediction: Prediction) -> dict[str, object]:
    """Fill the part of a row of ``nli_reviews`` that the edge and the model decide."""
    return {
        "edge_id": edge.id,
        "pair_key": Pair(edge.premise, edge.hypothesis).key,
        "premise": edge.premise,
        "hypothesis": edge.hypothesis,
        "predicted_label": prediction.label,
        "predicted_confidence": prediction.confidence,
        "predicted_by": prediction.by,
        "anchors_json": json.dumps(graph_anchors(edge)),  # the edge may be gone one day
        "source_url": edge.page_url or "",
    }


def edge_before(edge: Row[Any], scores: Sequence[Mapping[str, Any]]) -> str:
    """Keep an edge's state and its scores in the queue as JSON, for `undo`."""
    return json.dumps(
        {
            "relation": edge.relation,
            "nli_label": edge.nli_label,
            "confidence": edge.confidence,
            "edge_human_corrected": int(edge.edge_human_corrected or 0),
            "reason": edge.edge_correction_reason,
            "corrected_at": _text(edge.edge_corrected_at),
            "scores": scores,
        }
    )


def edge_version(edge: Row[Any]) -> str:
    """Name the state of an edge's judgement; another state has another name.

    Args:
        edge: a row of `Verdicts.edge_texts`.
    """
    state = (
        edge.relation,
        edge.label,
        int(edge.edge_human_corrected or 0),
        _text(edge.edge_corrected_at),
        edge.edge_correction_reason,
    )
    return hashlib.sha256(json.dumps(state).encode()).hexdigest()[:16]


def require_unchanged(
    connection: Connection, tables: Verdicts, edge: Row[Any], version: str | None
) -> None:
    """Stop a verdict on a state of the edge that is past.

    Args:
        version: what `edge_version` was when the human saw it; None asks for nothing.

    Raises:
        ConflictError: saying what the edge is now, and who changed it when.
    """
    if version is None or version == edge_version(edge):
        return
    raise ConflictError(
        f"edge {edge.id!r} has changed since you saw it: {_last_change(connection, tables, edge)}",
        parameter="edge_version",
        expected=edge_version(edge),
        hint="Look at it again before you decide.",
    )


def _last_change(connection: Connection, tables: Verdicts, edge: Row[Any]) -> str:
    if not edge.edge_human_corrected:
        event = nli_review_events.c
        undo = connection.execute(
            select(event.who, event.at).where(event.edge_id == edge.id).order_by(event.id.desc())
        ).first()
        undone = f"{_by(undo.who)} took a review back on {undo.at[:19]}" if undo else "not reviewed"
        return f"it is {edge.label}, {undone}"
    review = tables.review.c
    newest = connection.execute(
        select(review.reviewer, review.correct_label, review.reviewed_at)
        .where(review.edge_id == edge.id, review.reviewed_at == _text(edge.edge_corrected_at))
        .limit(1)
    ).first()
    when = (_text(edge.edge_corrected_at) or "an unknown time")[:19]
    who = _by(newest.reviewer) if newest else "somebody"
    return f"{who} reviewed it as {edge.label} on {when}"


def _by(name: str) -> str:
    return name or "somebody"


def _text(value: object) -> str | None:
    return None if value is None else str(value)
