"""When training is worth its time: the three conditions of the proposal's section 8.2."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import Connection

from lyra_nli.settings import DueSettings
from lyra_nli.storage.generation import Generation
from lyra_nli.storage.reviews import ReviewCounts, count_reviews
from lyra_nli.storage.runs import last_finished_training


@dataclass(frozen=True)
class Condition:
    """One condition: a figure that must reach its threshold."""

    name: str
    value: float
    threshold: float
    text: str

    @property
    def holds(self) -> bool:
        """The figure has reached the threshold."""
        return self.value >= self.threshold


@dataclass(frozen=True)
class Due:
    """All conditions; training is due when every one holds."""

    conditions: tuple[Condition, ...]

    @property
    def due(self) -> bool:
        """Whether training should run."""
        return all(condition.holds for condition in self.conditions)


def check_due(
    connection: Connection,
    generation: Generation,
    settings: DueSettings,
    base_model: str,
    moment: datetime | None = None,
    counts: ReviewCounts | None = None,
) -> Due:
    """Hold the database's figures against the thresholds.

    Args:
        moment: the present; a parameter so that a schedule can be tried out.
        counts: of the reviews, if they were counted already.
    """
    counts = counts or count_reviews(connection, generation, base_model)
    last = last_finished_training(connection, base_model)
    days = _days_since(last, moment or datetime.now(UTC))
    return Due(
        conditions=(
            Condition(
                "samples",
                counts.corrected_unused,
                settings.min_samples,
                f"{counts.corrected_unused} corrections not yet trained on",
            ),
            Condition(
                "correction rate",
                counts.correction_rate,
                settings.min_correction_rate,
                f"{counts.corrected} of {counts.reviewed} reviewed edges were corrected "
                f"({counts.correction_rate:.1%})",
            ),
            Condition(
                "days since training",
                days,
                settings.min_days,
                f"{days:.1f} days since the last training" if last else "never trained",
            ),
        )
    )


def _days_since(last: str | None, moment: datetime) -> float:
    if last is None:
        return math.inf
    finished = datetime.fromisoformat(last)
    if finished.tzinfo is None:
        finished = finished.replace(tzinfo=UTC)
    return (moment - finished).total_seconds() / 86400
