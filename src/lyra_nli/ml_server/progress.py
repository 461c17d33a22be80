"""How far the reviewing has come: what the review page shows below the pair."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

from sqlalchemy import Engine

from lyra_nli.evaluation.metrics import wilson
from lyra_nli.feedback.reviews import today
from lyra_nli.feedback.sampling import count_sampling
from lyra_nli.feedback.seconds import agreement
from lyra_nli.settings import Settings
from lyra_nli.storage.engine import now, read
from lyra_nli.storage.generation import inspect_database
from lyra_nli.training.due import Condition, check_due


def review_progress(
    engine: Engine, settings: Settings, reviewer: str, day_start: str
) -> dict[str, Any]:
    """Tell today's counts, what is left until training is due, and what the reviews show.

    Args:
        reviewer: whose counts of today; empty for everybody's.
        day_start: when the reviewer's day began, ISO-8601; empty: at midnight UTC.

    Raises:
        StorageError: when the database was not upgraded or can't be read.
    """
    generation = inspect_database(engine)
    generation.require_upgraded()
    with read(engine) as connection:
        due = check_due(connection, generation, settings.due, settings.nli.fast_model)
        counts = count_sampling(connection, generation)
        mine = today(connection, reviewer or None, day_start or now()[:10])
        agreed = agreement(connection)
    rate = wilson(counts.random_corrected, counts.random)
    return {
        "ok": True,
        "today": mine,
        "due": {"due": due.due, "conditions": [_condition(each) for each in due.conditions]},
        "sampling": {
            **asdict(counts),
            "correction_rate": counts.correction_rate,
            "low": rate.low,
            "high": rate.high,
        },
        "agreement": asdict(agreed),
        "random_share": settings.review.random_share,
        "second_share": settings.review.second_share,
    }


def _condition(condition: Condition) -> dict[str, Any]:
    value = condition.value if math.isfinite(condition.value) else None
    return {
        "name": condition.name,
        "value": value,
        "threshold": condition.threshold,
        "text": condition.text,
        "holds": condition.holds,
    }
