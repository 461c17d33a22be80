"""The first page: the loop as a picture with today's figures on it, and what to do next."""

from __future__ import annotations

import math
import re
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import Connection, func, select

from lyra_nli.dashboard import stamps
from lyra_nli.dashboard.facts import difference_facts, drift_facts, queue_facts
from lyra_nli.dashboard.stations import stations
from lyra_nli.dashboard.view import Fields, View
from lyra_nli.feedback.reviews import today as reviewed_since
from lyra_nli.monitoring.overview import Overview
from lyra_nli.monitoring.overview import overview as look_over
from lyra_nli.monitoring.shares import Share
from lyra_nli.storage.engine import now, shown
from lyra_nli.storage.generation import Generation
from lyra_nli.storage.tables import nli_calibrations, nli_prediction_counts
from lyra_nli.training.due import Condition

_NOBODY: Final = {"reviewed": 0, "corrected": 0, "agreed": 0, "undone": 0}
_PAGES: Final = {
    "alert": "quality",
    "not yet due": "data",
    "train": "versions",
    "label": "data",
    "review": "data",
}
"""By the first of these words in what is to be done: the page that shows more."""

_COMMAND: Final = re.compile("`(lyra-nli [^`]+)`")


def overview(view: View) -> Fields:
    """Everything a person needs to know today, as `lyra-nli status` has it."""
    found = _look(view)
    today = _today(view)
    fields: Fields = {
        "database": shown(view.settings.storage.database_path),
        "today": today,
        "loop": stations(view, found, today),
    }
    if found is None:
        return fields | _nothing()
    view.missing += found.missing
    return fields | {
        "database": found.database,
        "serving": {**asdict(found.serving), "problem": None},
        "reviews": {**asdict(found.reviews), "random": found.sampling.random},
        "correction_rate": _rates(found),
        "calibration": _calibration(view, found),
        "due": {"due": found.due.due, "conditions": list(map(_condition, found.due.conditions))},
        "alerts": [asdict(alert) for alert in found.alerts],
        "drift": [drift_facts(drift) for drift in found.standing.drifts],
        "queue": found.queue and queue_facts(found.queue),
        "last_run": found.last_run,
        "events": [asdict(event) for event in reversed(found.events)],
        "next": list(map(_step, found.next)),
    }


def _look(view: View) -> Overview | None:
    """Read it once a minute, and anew after every review and every change of what serves."""

    def stamp(connection: Connection, generation: Generation) -> Any:
        known = [stamps.of_verdicts(connection, generation), now()[:16]]
        if generation.has("nli_version_events"):
            known.append(stamps.of_events(connection))
        return tuple(known)

    def look(*_: object) -> Overview:
        assert view.workspace is not None  # otherwise nobody asks
        return look_over(view.workspace, view.base_model)

    return view.ask(
        "the overview",
        None,
        look,
        needs={},
        stamp=stamp,
    )


def _today(view: View) -> Fields:
    """What happened since midnight, UTC."""
    day = datetime.now(UTC).date().isoformat()
    table = nli_prediction_counts.c
    answered = select(func.sum(table.n)).where(
        table.day == day, table.kind == "label", table.base_model == view.base_model
    )
    return {
        "answers": view.ask(
            "today's answers",
            None,
            lambda connection, _: connection.scalar(answered) or 0,
            needs={"nli_prediction_counts": ("kind",)},
        ),
        **view.ask(
            "today's reviews",
            _NOBODY,
            lambda connection, _: reviewed_since(connection, None, day),
            needs={"nli_reviews": ("undone_at", "before_json")},
        ),
    }


def _rates(found: Overview) -> Fields:
    """The correction rate of what serves, beside that of what served before."""
    nothing = Share(0, 0).to_dict()
    change = found.change
    return {
        "version": found.serving.version,
        "now": found.standing.rate.to_dict(),
        "before_version": change.from_version if change else None,
        "before": change.before.to_dict() if change else nothing,
        "change": difference_facts(change.difference) if change else None,
        "text": change.text if change else found.standing.rate.text,
    }


def _calibration(view: View, found: Overview) -> Fields | None:
    if found.calibration is None:
        return None
    number, method = found.calibration
    table = nli_calibrations.c
    statement = select(table.created_at, table.samples).where(table.version == number)
    row = view.ask(
        "the calibration",
        None,
        lambda connection, _: connection.execute(statement).one_or_none(),
        needs={"nli_calibrations": ("samples",)},
    )
    return {
        "number": number,
        "method": method,
        "source": found.serving.version,
        "created_at": row and row.created_at,
        "samples": row and row.samples,
    }


def _condition(condition: Condition) -> Fields:
    return {
        "name": condition.name,
        "value": condition.value if math.isfinite(condition.value) else None,
        "threshold": condition.threshold,
        "text": condition.text,
        "holds": condition.holds,
    }


def _step(text: str) -> Fields:
    """A thing to do, with its command and the page that shows more."""
    command = _COMMAND.search(text)
    page = next((page for word, page in _PAGES.items() if word in text.lower()), None)
    return {"text": text, "command": command and command[1], "page": page}


def _nothing() -> Fields:
    nothing = Share(0, 0).to_dict()
    return {
        "serving": {
            **dict.fromkeys(("since", "who", "reason", "problem")),
            "version": "base",
            "previous": "base",
        },
        "reviews": dict.fromkeys(("reviewed", "corrected", "corrected_unused", "random"), 0),
        "correction_rate": {
            "version": "base",
            "now": nothing,
            "before_version": None,
            "before": nothing,
            "change": None,
            "text": "nothing counted yet",
        },
        "calibration": None,
        "due": None,
        "alerts": [],
        "drift": [],
        "queue": None,
        "last_run": None,
        "events": [],
        "next": [],
    }
