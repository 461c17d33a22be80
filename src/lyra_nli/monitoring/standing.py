"""Where one base stands: everything that the rules and the people look at, read at one moment."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, Final

import numpy as np
from sqlalchemy import Connection, or_, select

from lyra_nli.evaluation.estimates import Estimate, estimate
from lyra_nli.evaluation.reliability import by_mass, debiased_error
from lyra_nli.monitoring.changes import BASE, Change, last_change
from lyra_nli.monitoring.drift import Drift, drifts
from lyra_nli.monitoring.rates import RandomReview, read_random_reviews
from lyra_nli.monitoring.shares import Share
from lyra_nli.registry.rows import Event, load_aliases, load_events
from lyra_nli.settings import MonitoringSettings
from lyra_nli.storage.generation import Generation
from lyra_nli.storage.tables import nli_comparisons

NEWEST: Final = 1000
"""Reviews that say how well the served version is calibrated: the newest count."""


@dataclass(frozen=True, slots=True)
class Compared:
    """How far two versions agreed on the same pairs.

    Attributes:
        kind: ``compare`` on unreviewed edges, or ``shadow`` on live traffic.
        disagreed: share of pairs with different labels.
        details: ``labels`` (a matrix, one by other) and ``confidence_shift`` (mean of other
            minus one), where they were kept.
    """

    id: str
    at: str
    kind: str
    one: str
    other: str
    disagreed: Share
    details: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Standing:
    """What is known of one base and of the version that serves it.

    Attributes:
        version: what serves; ``base`` for the base itself.
        previous: what served before.
        events: all decisions, oldest first.
        reviews: the random reviews of all versions, oldest first.
        change: the change to what serves now; None when nothing was ever changed.
        error: calibration error of the served confidence, freed from what chance adds to it;
            None without a review of a logged answer.
        drifts: of this week against the four weeks before.
        comparisons: the newest of each pair of versions that has what serves in it.
    """

    base_model: str
    version: str
    previous: str
    events: list[Event]
    reviews: list[RandomReview]
    change: Change | None
    error: Estimate | None
    drifts: list[Drift]
    comparisons: list[Compared]

    @property
    def rate(self) -> Share:
        """The correction rate of what serves."""
        own = [review.corrected for review in self.reviews if review.version == self.version]
        return Share(sum(own), len(own))


def read_standing(
    connection: Connection,
    generation: Generation,
    base_model: str,
    settings: MonitoringSettings,
    today: date | None = None,
    reviews: list[RandomReview] | None = None,
) -> Standing:
    """Read it. What a database does not have is empty; nothing is refused.

    Args:
        connection: for reading.
        generation: what the database is.
        base_model: whose versions.
        settings: the bounds.
        today: UTC.
        reviews: from `read_random_reviews`, if they were read already.
    """
    aliases = load_aliases(connection, base_model) if generation.has("nli_aliases") else {}
    version = aliases.get("active", BASE)
    events = load_events(connection, base_model, None)
    if reviews is None:
        reviews = read_random_reviews(connection, generation, today)
    return Standing(
        base_model=base_model,
        version=version,
        previous=aliases.get("previous", BASE),
        events=events,
        reviews=reviews,
        change=last_change(events, reviews, settings.alert_alpha, today),
        error=calibration_error([review for review in reviews if review.version == version]),
        drifts=drifts(connection, generation, base_model, version, settings.alert_drift, today),
        comparisons=read_comparisons(connection, generation, base_model, version),
    )


def calibration_error(reviews: Sequence[RandomReview]) -> Estimate | None:
    """Calibration error of what was answered, by the newest reviews of one version.

    See `lyra_nli.evaluation.reliability.debiased_error`.
    """
    known = [(r.confidence, not r.corrected) for r in reviews if r.confidence is not None]
    if not known:
        return None
    said = np.array([confidence for confidence, _ in known[-NEWEST:]], dtype=np.float64)
    true = np.array([hit for _, hit in known[-NEWEST:]], dtype=np.bool_)
    metric = debiased_error(said, true, by_mass(said))
    return estimate({"error": metric}, [str(index) for index in range(len(said))])["error"]


def read_comparisons(
    connection: Connection, generation: Generation, base_model: str, version: str
) -> list[Compared]:
    """Read the newest comparison of a version with each other one, newest first."""
    table = nli_comparisons
    if not generation.has(table.name):
        return []
    rows = connection.execute(
        select(table)
        .where(
            table.c.base_model == base_model,
            or_(table.c.one == version, table.c.other == version),
        )
        .order_by(table.c.at.desc())
    )
    newest: dict[frozenset[str], Compared] = {}
    for row in rows:
        newest.setdefault(frozenset((row.one, row.other)), compared_of(row))
    return list(newest.values())


def compared_of(row: Any) -> Compared:
    """A row of ``nli_comparisons``; details that can't be read are none."""
    try:
        details = json.loads(row.details_json)
    except ValueError:
        details = {}
    share = Share(row.disagreed, row.compared)
    known = details if isinstance(details, dict) else {}
    return Compared(row.id, row.at, row.kind, row.one, row.other, share, known)
