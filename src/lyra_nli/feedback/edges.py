"""Corrections of edges: a human confirms or changes what the model said about a pair."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, cast, get_args

from sqlalchemy import Connection, Engine, Row, delete, insert, select, update

from lyra_nli.errors import FeedbackError
from lyra_nli.feedback.ledger import (
    correction_row,
    edge_before,
    find_edge,
    prediction_of,
    require_unchanged,
    review_row,
)
from lyra_nli.feedback.ledger import (
    edge_version as edge_version,
)
from lyra_nli.feedback.parameters import REASON, Parameter, check
from lyra_nli.labels import LABELS, Label, parse_label
from lyra_nli.records import Sampling
from lyra_nli.storage.engine import new_id, now, write
from lyra_nli.storage.generation import Generation, inspect_database
from lyra_nli.storage.scores import take_scores
from lyra_nli.storage.tables import nli_leases, nli_reviews
from lyra_nli.storage.verdicts import Verdicts

EDGE_ID = Parameter("edge_id", "the edge: one judgement of a fragment and a claim", required=True)
REVIEWER = Parameter("reviewer", "the person whose verdict it is")
LEASE = Parameter(
    "lease", "the token that came with the edge from the review queue; it knows how it was drawn"
)
SAMPLING = Parameter(
    "sampling",
    "why this edge was reviewed, without a lease; that it was drawn at random says only a lease",
    choices=("queue", "unknown"),
)
PARAMETERS = (
    EDGE_ID,
    Parameter(
        "correct_relation",
        "the right judgement; the same as the present one means that you agree",
        required=True,
        choices=LABELS,
        noun="label",
    ),
    REASON,
    REVIEWER,
    SAMPLING,
    Parameter("predicted_by", "the model version whose judgement the reviewer saw"),
    Parameter("edge_version", "the state of the edge that the reviewer saw, as the queue gave it"),
    LEASE,
)
_ANY_SAMPLING = replace(SAMPLING, choices=get_args(Sampling))
_OF_A_PROGRAM = tuple(_ANY_SAMPLING if each is SAMPLING else each for each in PARAMETERS)


@dataclass(frozen=True, slots=True)
class EdgeReview:
    """What a human says about one edge.

    Attributes:
        sampling: ``random`` only from a program that drew the edge itself; whoever acts by
            `actions.perform` needs a lease for it.
        predicted_by: the model version whose judgement the human saw, where known.
        edge_version: the state of the edge that the human saw; a verdict on another is refused.
        lease: the queue's token for this edge. It knows the sampling better than the caller.
    """

    edge_id: str
    correct_relation: str
    reason: str = ""
    reviewer: str = ""
    sampling: Sampling = "unknown"
    predicted_by: str | None = None
    edge_version: str | None = None
    lease: str | None = None


@dataclass(frozen=True, slots=True)
class EdgeCorrection:
    """The answer to an `edge_correct`, as Lyra's tool gives it.

    Attributes:
        sample_id: the row of ``nli_corrections``; None when none was written.
        review_id: the row of ``nli_reviews``, which can be undone.
    """

    ok: bool
    action: Literal["edge_correct"]
    edge_id: str
    previous_relation: Label
    new_relation: Label
    sample_id: str | None
    message: str
    review_id: str


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
        FeedbackError: for an unknown edge, one that is no NLI judgement (``origin``,
            ``cites``), an unknown label, or notes that can't be stored.
        StorageError: when the database was not upgraded or can't be written.
    """
    review = EdgeReview(edge_id, correct_relation, reason, reviewer, sampling, predicted_by)
    return correct_edges(engine, [review])[0]


def correct_edges(engine: Engine, reviews: Iterable[EdgeReview]) -> list[EdgeCorrection]:
    """Record many verdicts in one transaction: all of them, or none.

    Raises:
        FeedbackError, StorageError: as `edge_correct`, for the first verdict that fails.
    """
    generation = inspect_database(engine)
    with write(engine) as connection:
        return [correct_edge(connection, generation, review) for review in reviews]


def correct_edge(
    connection: Connection, generation: Generation, review: EdgeReview
) -> EdgeCorrection:
    """Record one verdict in a transaction of the caller's; see `edge_correct`.

    Raises:
        ConflictError: when the edge is not in the state that the human saw.
    """
    generation.require_upgraded()
    check(_OF_A_PROGRAM, asdict(review))
    label = parse_label(review.correct_relation)
    tables = Verdicts(generation)
    edge = find_edge(connection, tables, review.edge_id)
    require_unchanged(connection, tables, edge, review.edge_version)
    sampling: Sampling = review.sampling
    if review.lease is not None:
        sampling = take_lease(connection, review.lease, review.edge_id, "first")
    previous: Label = edge.label
    changed = label != previous
    prediction = prediction_of(connection, tables, edge, review.predicted_by)
    at, review_id, sample_id = now(), new_id("nlr"), None
    if changed or generation.stores_agreed:
        sample_id = new_id("nlc")
        noted = correction_row(generation, edge, prediction, label, review.reason)
        row = {**noted, "id": sample_id, "corrected_at": at}
        connection.execute(insert(tables.correction).values(row))
    connection.execute(
        insert(nli_reviews).values(
            **review_row(edge, prediction),
            id=review_id,
            correction_id=sample_id,
            correct_label=label,
            reviewer=review.reviewer,
            reason=review.reason,
            sampling=sampling,
            reviewed_at=at,
            before_json=edge_before(edge, take_scores(connection, review.edge_id)),
        )
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
        review_id=review_id,
    )


def perform_edge_correct(
    connection: Connection, generation: Generation, values: dict[str, str], who: str
) -> dict[str, object]:
    """Answer the action ``edge_correct``."""
    arguments: dict[str, Any] = {**values, "reviewer": values.get("reviewer", who)}
    return asdict(correct_edge(connection, generation, EdgeReview(**arguments)))


def take_lease(
    connection: Connection, token: str, edge_id: str, purpose: Literal["first", "second"]
) -> Sampling:
    """End the reviewer's lease, and tell how the queue had drawn the edge.

    A lease that has run out and was given to somebody else is not held against the reviewer:
    if that other person was quicker, the edge's version says so.

    Raises:
        FeedbackError: when the lease is for another edge or another purpose.
    """
    table = nli_leases
    lease = connection.execute(
        select(table.c.edge_id, table.c.purpose, table.c.sampling).where(table.c.token == token)
    ).one_or_none()
    if lease is None:
        return "unknown"
    if (lease.edge_id, lease.purpose) != (edge_id, purpose):
        raise FeedbackError(
            f"lease: it is for a {lease.purpose} review of edge {lease.edge_id!r}",
            code="wrong_value",
            parameter=LEASE.name,
            expected=f"the token that came with this edge, for a {purpose} review",
        )
    connection.execute(delete(table).where(table.c.token == token))
    return cast("Sampling", lease.sampling)


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
