"""Blind second reviews: how far can a human label be trusted? No label is changed by them.

Cohen's kappa is ``(po - pe) / (1 - pe)``: of the agreement that chance leaves open, the share
that two people reach (J. Cohen, *A coefficient of agreement for nominal scales*, 1960). Its
large-sample standard error is that of J. L. Fleiss, J. Cohen and B. S. Everitt, *Large sample
standard errors of kappa and weighted kappa*, 1969, equation 13.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import Connection, Engine, func, insert, select

from lyra_nli.errors import ConflictError, FeedbackError
from lyra_nli.feedback.edges import EDGE_ID, LEASE, take_lease
from lyra_nli.feedback.idempotency import Answer, once
from lyra_nli.feedback.ledger import find_edge
from lyra_nli.feedback.parameters import REASON, Parameter, check
from lyra_nli.labels import LABELS, Label, parse_label
from lyra_nli.storage.engine import insert_into, new_id, now, write
from lyra_nli.storage.generation import Generation, inspect_database
from lyra_nli.storage.scores import DISPUTED
from lyra_nli.storage.tables import nli_queue_scores, nli_reviews, nli_second_reviews
from lyra_nli.storage.verdicts import Verdicts

MIN_SECONDS = 20
"""With fewer second reviews a large-sample interval says nothing."""

_Z = 1.959963984540054  # 95%

REVIEWER = Parameter("reviewer", "the second person", required=True)
PARAMETERS = (
    EDGE_ID,
    Parameter("label", "the second verdict", required=True, choices=LABELS, noun="label"),
    REVIEWER,
    REASON,
    LEASE,
)


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far two people who don't see each other's verdict agree.

    Attributes:
        n: pairs of verdicts.
        observed: the share of equal ones; None without any.
        kappa: None without any, or when both always gave one and the same label.
        low, high: 95% interval of kappa; None below `MIN_SECONDS`.
    """

    n: int
    observed: float | None
    kappa: float | None
    low: float | None
    high: float | None

    @property
    def text(self) -> str:
        """One line for people."""
        if self.observed is None:
            return "no second reviews yet"
        words = f"{self.observed:.0%} of {self.n} second reviews agree"
        if self.kappa is None:
            return f"{words}; kappa needs more than one label"
        if self.low is None or self.high is None:
            return f"{words}, kappa {self.kappa:.2f}; an interval needs {MIN_SECONDS}"
        return f"{words}, kappa {self.kappa:.2f} (95%: {self.low:.2f} to {self.high:.2f})"


def second_review(
    engine: Engine,
    edge_id: str,
    label: str,
    *,
    reviewer: str,
    reason: str = "",
    lease: str | None = None,
    idempotency_key: str | None = None,
) -> Answer:
    """Record a second person's blind verdict on a reviewed edge, in one transaction.

    Edge, training data and counts stay as they are. When the two disagree, the edge comes
    first in the queue's order ``suspect``.

    Returns:
        ``ok``, ``action``, ``edge_id``, ``second_review_id``, ``agrees``, ``first_label``,
        ``message``.

    Raises:
        FeedbackError: for an unknown edge, one that nobody reviewed with us, a reviewer who
            gave the first verdict, or arguments that can't be stored.
        ConflictError: when this person has judged this review already.
        StorageError: when the database was not upgraded or can't be written.
    """
    values = check(
        PARAMETERS,
        {
            "edge_id": edge_id,
            "label": label,
            "reviewer": reviewer,
            "reason": reason,
            "lease": lease,
        },
    )
    generation = inspect_database(engine)
    generation.require_upgraded()
    with write(engine) as connection:
        return once(
            connection,
            idempotency_key,
            ["second_review", values],
            lambda: _record(connection, generation, values),
        )


def agreement(connection: Connection) -> Agreement:
    """Measure the agreement of all second reviews with the first ones that stand."""
    first, second = nli_reviews, nli_second_reviews
    statement = (
        select(first.c.correct_label, second.c.label, func.count())
        .join_from(second, first, first.c.id == second.c.review_id)
        .where(first.c.undone_at.is_(None))
        .group_by(first.c.correct_label, second.c.label)
    )
    return kappa({(one, two): count for one, two, count in connection.execute(statement)})


def kappa(table: Mapping[tuple[str, str], int]) -> Agreement:
    """Compute Cohen's kappa from the counts of (first label, second label).

    When all verdicts are equal the large-sample error is 0, which no sample can know; the
    lower end is then what Wilson's interval leaves of the observed agreement.
    """
    n = sum(table.values())
    if not n:
        return Agreement(0, None, None, None, None)
    first: Counter[str] = Counter()
    second: Counter[str] = Counter()
    for (one, two), count in table.items():
        first[one] += count
        second[two] += count
    observed = sum(count for (one, two), count in table.items() if one == two) / n
    chance = sum(first[label] * second[label] for label in LABELS) / n**2
    if chance == 1:
        return Agreement(n, observed, None, None, None)
    value = (observed - chance) / (1 - chance)
    if n < MIN_SECONDS:
        return Agreement(n, observed, value, None, None)
    if observed == 1:
        return Agreement(n, 1.0, 1.0, (n / (n + _Z**2) - chance) / (1 - chance), 1.0)
    spread = sum(
        count / n * (1 - (first[one] + second[one]) / n * (1 - value)) ** 2
        if one == two
        else count / n * ((second[one] + first[two]) / n * (1 - value)) ** 2
        for (one, two), count in table.items()
    )
    error = math.sqrt(max(0.0, spread - (value - chance * (1 - value)) ** 2) / n) / (1 - chance)
    low, high = max(-1.0, value - _Z * error), min(1.0, value + _Z * error)
    return Agreement(n, observed, value, low, high)


def _record(connection: Connection, generation: Generation, values: dict[str, str]) -> Answer:
    edge_id, label = values["edge_id"], parse_label(values["label"])
    find_edge(connection, Verdicts(generation), edge_id)
    review_id, first = _first_review(connection, edge_id, values["reviewer"])
    if "lease" in values:
        take_lease(connection, values["lease"], edge_id, "second")
    second_id = new_id("nls")
    connection.execute(
        insert(nli_second_reviews).values(
            id=second_id,
            review_id=review_id,
            edge_id=edge_id,
            label=label,
            reviewer=values["reviewer"],
            reason=values.get("reason", ""),
            reviewed_at=now(),
        )
    )
    if first != label:
        _suspect(connection, edge_id, first, label)
    agrees = first == label
    return {
        "ok": True,
        "action": "second_review",
        "edge_id": edge_id,
        "second_review_id": second_id,
        "agrees": agrees,
        "first_label": first,
        "message": "You agree with the first reviewer."
        if agrees
        else f"The first reviewer said {first}: the edge will be looked at again.",
    }


def _first_review(connection: Connection, edge_id: str, reviewer: str) -> tuple[str, Label]:
    """Find the verdict that the edge stands on, and who may judge it."""
    review, second = nli_reviews, nli_second_reviews
    first = connection.execute(
        select(review.c.id, review.c.correct_label, review.c.reviewer)
        .where(review.c.edge_id == edge_id, review.c.undone_at.is_(None))
        .order_by(review.c.reviewed_at.desc())
        .limit(1)
    ).one_or_none()
    if first is None:
        raise FeedbackError(
            f"edge {edge_id!r} has no first review that a second one could be compared with",
            code="wrong_value",
            parameter=EDGE_ID.name,
            expected="an edge with a review of this ledger",
        )
    if first.reviewer == reviewer:
        raise FeedbackError(
            f"reviewer: {reviewer!r} gave the first verdict; a second one takes a second person",
            code="wrong_value",
            parameter=REVIEWER.name,
            expected="somebody else than the first reviewer",
        )
    again = select(second.c.id).where(second.c.review_id == first.id, second.c.reviewer == reviewer)
    if connection.scalar(again) is not None:
        raise ConflictError(
            f"{reviewer} has given a second verdict on edge {edge_id!r} already",
            parameter=REVIEWER.name,
        )
    return first.id, first.correct_label


def _suspect(connection: Connection, edge_id: str, first: str, second: str) -> None:
    values = {
        "score": DISPUTED,
        "detail_json": json.dumps({"first": first, "second": second}),
        "source": "second review",
        "at": now(),
    }
    connection.execute(
        insert_into(connection, nli_queue_scores)
        .values(kind="suspect", edge_id=edge_id, **values)
        .on_conflict_do_update(index_elements=["kind", "edge_id"], set_=values)
    )


def second_looks(connection: Connection, generation: Generation) -> Counter[str]:
    """Count the blind second verdicts on each row of ``nli_reviews``."""
    if not generation.has(nli_second_reviews.name):
        return Counter()
    review = nli_second_reviews.c.review_id
    statement = select(review, func.count().label("looks")).group_by(review)
    return Counter({row.review_id: row.looks for row in connection.execute(statement)})
