"""Everything a person needs to know today, on one screen: `lyra-nli status` and the dashboard."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import Any, Final

from sqlalchemy import Connection, func, select, text

from lyra_nli.feedback.calibration import current_calibrator
from lyra_nli.feedback.sampling import SamplingCounts, count_sampling
from lyra_nli.feedback.seconds import Agreement, agreement
from lyra_nli.monitoring.alerts import Alert, open_alerts
from lyra_nli.monitoring.changes import Change
from lyra_nli.monitoring.rates import RandomReview
from lyra_nli.monitoring.standing import Standing, read_standing
from lyra_nli.registry.rows import Event
from lyra_nli.storage.engine import now, read, shown
from lyra_nli.storage.generation import Generation
from lyra_nli.storage.reviews import ReviewCounts, count_reviews
from lyra_nli.storage.tables import (
    UNREVIEWED,
    edges,
    nli_leases,
    nli_queue_scores,
    nli_training_runs,
)
from lyra_nli.training.due import Due, check_due
from lyra_nli.workspace import Workspace

MANY: Final = 10_000
"""Edges that wait are counted so far: a person can't review more, and it keeps the count quick."""

UPGRADE: Final = "bring the database up to date with `lyra-nli db upgrade`"


@dataclass(frozen=True, slots=True)
class Queue:
    """What waits for people.

    Attributes:
        waiting: judgements that nobody has reviewed, `MANY` for that many or more.
        on_screens: edges on somebody's screen now.
        suspects, disagree: edges in these two orders of the queue.
    """

    waiting: int
    on_screens: int
    suspects: int
    disagree: int

    @property
    def text(self) -> str:
        """One line for people."""
        waiting = f"{self.waiting:,}{' or more' if self.waiting >= MANY else ''}"
        return (
            f"{waiting} to review, {self.on_screens} on screens, {self.suspects} suspect, "
            f"{self.disagree} where versions disagree"
        )


@dataclass(frozen=True, slots=True)
class Serving:
    """What serves a base, and who decided so; without a decision the base serves.

    Attributes:
        version, previous: ``base`` for the base itself.
    """

    version: str
    previous: str
    since: str | None
    who: str | None
    reason: str | None


@dataclass(frozen=True, slots=True)
class Overview:
    """The state of the loop of one base at one moment.

    Attributes:
        sampling: reviews by how they were drawn, of all versions.
        calibration: number of the calibration of what serves, and its method; None without.
        queue: None without an evidence graph.
        last_run: row of ``nli_training_runs``; None when nothing was trained.
        missing: what the database lacks, one sentence each, with what to do.
        next: what to do next, most urgent first.
    """

    at: str
    database: str
    base_model: str
    serving: Serving
    standing: Standing
    reviews: ReviewCounts
    sampling: SamplingCounts
    agreement: Agreement | None
    calibration: tuple[int, str] | None
    alerts: list[Alert]
    due: Due
    queue: Queue | None
    last_run: dict[str, Any] | None
    missing: list[str]
    next: list[str]

    @property
    def change(self) -> Change | None:
        """The change to what serves now, with the correction rate before and after."""
        return self.standing.change

    @property
    def events(self) -> list[Event]:
        """The last decisions, oldest first."""
        return self.standing.events[-5:]


def overview(
    workspace: Workspace,
    base_model: str | None = None,
    today: date | None = None,
    reviews: list[RandomReview] | None = None,
) -> Overview:
    """Read everything in one consistent state; works on any database that can be read.

    Args:
        workspace: opened for reading.
        base_model: whose loop; None for the fast model.
        today: UTC.
        reviews: from `read_random_reviews`, if they were read already.
    """
    settings, generation = workspace.settings, workspace.generation
    base = base_model or settings.nli.fast_model
    with read(workspace.engine) as connection:
        standing = read_standing(connection, generation, base, settings.monitoring, today, reviews)
        calibrator = current_calibrator(connection, generation, base, standing.version)
        counts = count_reviews(connection, generation, base)
        alerts = open_alerts(connection, generation, base)
        due = check_due(connection, generation, settings.due, base, counts=counts)
        queue = count_queue(connection, generation)
        return Overview(
            at=now(),
            database=shown(settings.storage.database_path),
            base_model=base,
            serving=_serving(standing),
            standing=standing,
            reviews=counts,
            sampling=count_sampling(connection, generation),
            agreement=agreement(connection) if generation.has("nli_second_reviews") else None,
            calibration=(calibrator[0], calibrator[1].method) if calibrator else None,
            alerts=alerts,
            due=due,
            queue=queue,
            last_run=last_run(connection, generation, base),
            missing=_missing(generation, standing),
            next=_next(alerts, due, queue, standing),
        )


def count_queue(connection: Connection, generation: Generation) -> Queue | None:
    """Count what waits for people; None where there is no evidence graph to review."""
    if not generation.has("edges", "edge_human_corrected", "relation"):
        return None
    waiting = select(edges.c.id).where(text(UNREVIEWED)).limit(MANY).subquery()
    scores: dict[str, int] = {}
    if generation.has("nli_queue_scores"):
        kind = nli_queue_scores.c.kind
        rows = connection.execute(select(kind, func.count()).group_by(kind))
        scores = {name: int(n) for name, n in rows}
    on_screens = 0
    if generation.has("nli_leases"):
        held = select(func.count()).where(nli_leases.c.expires_at > now())
        on_screens = connection.scalar(held) or 0
    return Queue(
        waiting=connection.scalar(select(func.count()).select_from(waiting)) or 0,
        on_screens=on_screens,
        suspects=scores.get("suspect", 0),
        disagree=scores.get("disagree", 0),
    )


def last_run(
    connection: Connection, generation: Generation, base_model: str
) -> dict[str, Any] | None:
    """The newest training run of a base: when, how it ended, why it ran; without its recipe."""
    table = nli_training_runs
    if not generation.has(table.name):
        return None
    columns = [column for column in table.c if column.name != "recipe_json"]
    newest = select(*columns).where(table.c.base_model == base_model)
    row = connection.execute(newest.order_by(table.c.started_at.desc()).limit(1)).one_or_none()
    return dict(row._mapping) if row else None


def _serving(standing: Standing) -> Serving:
    if standing.change is None:
        return Serving(standing.version, standing.previous, None, None, None)
    event = standing.change.event
    return Serving(standing.version, standing.previous, event.at, event.who, event.reason)


def _missing(generation: Generation, standing: Standing) -> list[str]:
    if not generation.has("nli_reviews", "undone_at"):
        return [f"There are no tables for reviews and versions: {UPGRADE}."]
    missing = []
    if not generation.has("nli_predictions"):
        missing.append(f"Answers, alerts and comparisons are not kept: {UPGRADE}.")
    undated = sum(not review.day for review in standing.reviews)
    if undated:
        missing.append(
            f"{undated} random reviews have no readable time, or one that has not come yet: "
            "they count in no week."
        )
    return missing


def _next(alerts: list[Alert], due: Due, queue: Queue | None, standing: Standing) -> list[str]:
    steps = [f"Look at the alert `{alert.rule}` of {alert.version}." for alert in alerts]
    if due.due:
        steps.append("Training is due: `lyra-nli train`.")
    if queue and queue.suspects:
        steps.append(f"Look again at {queue.suspects} suspect labels: the review page, `suspect`.")
    if standing.rate.few:
        steps.append(
            f"Review what is drawn at random: {standing.version} has {standing.rate.n} such "
            "reviews, too few for its correction rate."
        )
    if not due.due:
        steps += [f"Not yet due: {c.text}." for c in due.conditions if not c.holds][:1]
    return steps[:5]
