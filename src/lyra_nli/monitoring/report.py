"""How the versions of one base have done over time: `lyra-nli monitor report`."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime

from lyra_nli.labels import LABELS
from lyra_nli.monitoring.changes import Change, changes
from lyra_nli.monitoring.counts import Count, count_table
from lyra_nli.monitoring.drift import Drift
from lyra_nli.monitoring.rates import Week, by_version, by_week, first_week, monday_of, week_of
from lyra_nli.monitoring.shares import Share
from lyra_nli.monitoring.standing import read_standing
from lyra_nli.storage.engine import read
from lyra_nli.workspace import Workspace


@dataclass(frozen=True, slots=True)
class LabelWeek:
    """What one version answered in one week, counted in the log of predictions.

    Attributes:
        start: the week's Monday.
        labels: how many answers gave each label.
    """

    week: str
    start: str
    version: str
    labels: dict[str, int]

    @property
    def text(self) -> str:
        """One line for people."""
        n = sum(self.labels.values())
        shares = ", ".join(f"{label} {count / n:.1%}" for label, count in self.labels.items())
        return f"{shares} of {n}"


@dataclass(frozen=True, slots=True)
class Report:
    """Everything by version and week.

    Attributes:
        versions: correction rate of each version over all time.
        weeks, changes, labels: oldest first; the last `rates.WEEKS` weeks.
    """

    base_model: str
    versions: dict[str, Share]
    weeks: list[Week]
    changes: list[Change]
    labels: list[LabelWeek]
    drifts: list[Drift]


def read_report(
    workspace: Workspace, base_model: str | None = None, today: date | None = None
) -> Report:
    """Read it in one consistent state; works on any database that can be read.

    Args:
        workspace: opened for reading.
        base_model: whose versions; None for the fast model.
        today: UTC.
    """
    settings, generation = workspace.settings, workspace.generation
    base = base_model or settings.nli.fast_model
    end = today or datetime.now(UTC).date()
    first = first_week(end)
    with read(workspace.engine) as connection:
        standing = read_standing(connection, generation, base, settings.monitoring, today)
        counts = count_table(connection, generation, first, end.isoformat(), base, "label")
    reviews = standing.reviews
    return Report(
        base_model=base,
        versions=by_version(reviews),
        weeks=by_week(review for review in reviews if review.day >= first),
        changes=changes(standing.events, reviews, settings.monitoring.alert_alpha, today),
        labels=label_weeks(counts),
        drifts=standing.drifts,
    )


def label_weeks(counts: Iterable[Count]) -> list[LabelWeek]:
    """Add up label counts by week and version, oldest first; what is no label is passed over."""
    weeks: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for count in counts:
        if count.bucket in LABELS and count.n:  # a week without an answer has no shares
            weeks[monday_of(count.day), count.version][count.bucket] += count.n
    return [
        LabelWeek(week_of(start), start, version, {label: found[label] for label in LABELS})
        for (start, version), found in sorted(weeks.items())
    ]
