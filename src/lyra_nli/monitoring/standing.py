"""Where one base stands: everything that the rules and the people look at, read at one moment."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from typing import Final, TypeVar

import numpy as np
from sqlalchemy import Connection, func, or_, select

from lyra_nli.evaluation.estimates import Estimate, estimate
from lyra_nli.evaluation.reliability import by_mass, debiased_error
from lyra_nli.monitoring.canary import CanaryStanding, judge_canary
from lyra_nli.monitoring.changes import Change, last_change
from lyra_nli.monitoring.drift import DAYS, Drift, drifts
from lyra_nli.monitoring.rates import RandomReview, day_of, read_random_reviews
from lyra_nli.monitoring.shares import Share
from lyra_nli.records import BASE
from lyra_nli.registry.rows import Event, load_aliases, load_events
from lyra_nli.registry.trial_rows import open_trials
from lyra_nli.settings import MonitoringSettings
from lyra_nli.storage.engine import DAMAGED
from lyra_nli.storage.generation import Generation
from lyra_nli.storage.tables import nli_calibrations, nli_comparisons

logger = logging.getLogger(__name__)

T = TypeVar("T")

NEWEST: Final = 1000
"""Reviews that say how well the served version is calibrated: the newest count."""


@dataclass(frozen=True, slots=True)
class Compared:
    """How far two versions agreed on the same live pairs.

    Attributes:
        disagreed: share of pairs with different labels.
    """

    one: str
    other: str
    disagreed: Share


@dataclass(frozen=True, slots=True)
class Standing:
    """What is known of one base and of the version that serves it.

    Attributes:
        version: what serves; ``base`` for the base itself.
        previous: what served before.
        events: all decisions, oldest first.
        reviews: the random reviews of all versions, oldest first.
        change: the change to what serves now; None when nothing was ever changed.
        error: calibration error of the served confidence, freed from what chance adds to it,
            by the answers under the calibration that is served now; None without a review of one.
        drifts: of this week against the four weeks before.
        comparisons: on this week's live traffic, one for each pair of versions that has what
            serves in it.
        canary: the canary that is open, beside the active version; None without one.
        failed: rules whose figure can't be had, and why.
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
    canary: CanaryStanding | None = None
    failed: dict[str, str] = field(default_factory=dict)

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
    number = served_calibration(connection, generation, base_model, version)
    served = [r for r in reviews if r.version == version and r.calibration == number]
    of_served = (connection, generation, base_model, version)
    failed: dict[str, str] = {}
    return Standing(
        base_model=base_model,
        version=version,
        previous=aliases.get("previous", BASE),
        events=events,
        reviews=reviews,
        change=_alone(
            "correction_rate",
            lambda: last_change(events, reviews, settings.alert_alpha, today),
            None,
            failed,
        ),
        error=_alone("calibration", lambda: calibration_error(served), None, failed),
        drifts=_alone("drift", lambda: drifts(*of_served, settings.alert_drift, today), [], failed),
        comparisons=_alone("disagreement", lambda: read_comparisons(*of_served, today), [], failed),
        canary=_alone(
            "canary",
            lambda: next(
                (
                    judge_canary(trial, events, reviews, settings.alert_alpha, today)
                    for trial in open_trials(connection, base_model=base_model, kind="canary")
                ),
                None,
            ),
            None,
            failed,
        ),
        failed=failed,
    )


def _alone(rule: str, work: Callable[[], T], default: T, failed: dict[str, str]) -> T:
    """Get the figure of one rule: what is wrong with its rows must not silence the others."""
    try:
        return work()
    except DAMAGED as error:
        logger.warning("the rule %s can't be judged: %s", rule, error, exc_info=error)
        failed[rule] = str(error)
        return default


def served_calibration(
    connection: Connection, generation: Generation, base_model: str, version: str
) -> int | None:
    """The number of the calibration that is served with a version; None without one."""
    if not generation.has("nli_calibrations", "base_model", "source"):
        return None
    table = nli_calibrations.c
    own = (table.is_current == 1, table.base_model == base_model, table.source == version)
    number: int | None = connection.scalar(select(func.max(table.version)).where(*own))
    return number


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
    connection: Connection,
    generation: Generation,
    base_model: str,
    version: str,
    today: date | None = None,
) -> list[Compared]:
    """Sum up this week's comparisons on live traffic with each other version, the newest first.

    Those of `adapters compare` stay out: somebody chose their pairs. A row that can't be is
    passed over.
    """
    table = nli_comparisons
    if not generation.has(table.name):
        return []
    end = today or datetime.now(UTC).date()
    first = (end - timedelta(days=DAYS - 1)).isoformat()
    last = (end + timedelta(days=1)).isoformat()
    rows = connection.execute(
        select(table)
        .where(
            table.c.base_model == base_model,
            table.c.kind == "shadow",
            table.c.at >= first,
            or_(table.c.one == version, table.c.other == version),
        )
        .order_by(table.c.at.desc())
    )
    week: dict[frozenset[str], Compared] = {}
    for row in rows:
        if day_of(row.at, last) and _possible(row.disagreed, row.compared):
            key = frozenset((row.one, row.other))
            sofar = week.get(key) or Compared(row.one, row.other, Share(0, 0))
            n, k = sofar.disagreed.n + row.compared, sofar.disagreed.k + row.disagreed
            week[key] = replace(sofar, disagreed=Share(k, n))
    return list(week.values())


def _possible(disagreed: object, compared: object) -> bool:
    """Both are numbers, and no more disagree than there are: SQLite holds whatever is put there."""
    if not (isinstance(disagreed, int) and isinstance(compared, int)):
        return False
    return 0 <= disagreed <= compared
