"""The loop as a picture: seven stations, each with one figure, a few words and a colour."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final, Literal

from lyra_nli.dashboard.view import Fields, View
from lyra_nli.monitoring.overview import Overview
from lyra_nli.registry.versions import Version
from lyra_nli.storage.engine import utc

State = Literal["ok", "wait", "due", "warn", "missing"]

UNKNOWN: Final = "–"  # noqa: RUF001 - a dash, where a figure would stand

_TITLES: Final = {
    "answers": ("Answers", "quality"),
    "reviews": ("Reviews", "data"),
    "due": ("Due", "overview"),
    "training": ("Training", "versions"),
    "gate": ("Gate", "versions"),
    "serving": ("Serving", "versions"),
    "watch": ("Watch", "quality"),
}
_OUTCOMES: Final[Mapping[str, State]] = {"passed": "ok", "unproven": "wait", "rejected": "warn"}


def stations(view: View, found: Overview | None, today: Mapping[str, Any]) -> list[Fields]:
    """The seven stations, in the order of the loop; the last leads back to the first.

    Args:
        found: None when nothing could be read.
        today: what happened since midnight.
    """
    if found is None:
        known = dict.fromkeys(_TITLES, (UNKNOWN, "can't be read", "missing"))
    else:
        known = {
            "answers": _answers(today),
            "reviews": _reviews(found, today),
            "due": _due(found),
            "training": _training(found),
            "gate": _gate(view),
            "serving": _serving(found),
            "watch": _watch(found),
        }
    return [
        {"id": key, "title": title, "figure": figure, "text": words, "state": state, "page": page}
        for key, (title, page) in _TITLES.items()
        for figure, words, state in (known[key],)
    ]


def _answers(today: Mapping[str, Any]) -> tuple[str, str, State]:
    if today["answers"] is None:
        return UNKNOWN, "no log of answers", "missing"
    return f"{today['answers']:,}", "logged today", "ok" if today["answers"] else "wait"


def _reviews(found: Overview, today: Mapping[str, Any]) -> tuple[str, str, State]:
    words = f"today; {found.reviews.reviewed:,} in all"
    return f"{today['reviewed']:,}", words, "ok" if found.reviews.reviewed else "wait"


def _due(found: Overview) -> tuple[str, str, State]:
    conditions = found.due.conditions
    held = sum(condition.holds for condition in conditions)
    words = "conditions hold: train" if found.due.due else "conditions hold"
    return f"{held} of {len(conditions)}", words, "due" if found.due.due else "wait"


def _training(found: Overview) -> tuple[str, str, State]:
    run = found.last_run
    if run is None:
        return UNKNOWN, "never trained", "wait"
    if run["status"] == "running":
        return "now", f"running since {str(run['started_at'])[:16].replace('T', ' ')}", "wait"
    state: State = "warn" if run["status"] == "failed" else "ok"
    return _ago(run["finished_at"]), f"the last run {run['status']}", state


def _gate(view: View) -> tuple[str, str, State]:
    """What the gate said of the newest version."""
    listed: list[Version] = view.attempt(
        "the newest version",
        [],
        lambda workspace: workspace.registry.list(view.base_model),
    )
    if not listed:
        return UNKNOWN, "no version yet", "wait"
    return listed[-1].status, listed[-1].name, _OUTCOMES.get(listed[-1].status, "wait")


def _serving(found: Overview) -> tuple[str, str, State]:
    serving = found.serving
    since = f"since {serving.since[:10]}" if serving.since else "nothing else was activated"
    return serving.version.removeprefix("lora-lyra-"), since, "ok"


def _watch(found: Overview) -> tuple[str, str, State]:
    count = len(found.alerts)
    return str(count), "open alert" if count == 1 else "open alerts", "warn" if count else "ok"


def _ago(at: object) -> str:
    """How long ago something was; a dash for what is no time or has not come yet."""
    moment = utc(at)
    days = (datetime.now(UTC) - datetime.fromisoformat(moment)).days if moment else -1
    if days < 0:
        return UNKNOWN
    return f"{days} days ago" if days > 1 else ("today", "yesterday")[days]
