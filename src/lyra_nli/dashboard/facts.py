"""What other rooms found out, as the plain values that a page is made of."""

from __future__ import annotations

from dataclasses import asdict

from lyra_nli.dashboard.view import Fields
from lyra_nli.evaluation.estimates import Estimate
from lyra_nli.monitoring.changes import Change
from lyra_nli.monitoring.drift import Drift
from lyra_nli.monitoring.overview import MANY, Queue
from lyra_nli.monitoring.shares import Difference


def change_facts(change: Change) -> Fields:
    """A change as plain values."""
    event = change.event
    return {
        "at": event.at,
        "day": change.day,
        "action": event.action,
        "from_version": change.from_version,
        "to_version": change.to_version,
        "who": event.who,
        "reason": event.reason,
        "before": change.before.to_dict(),
        "after": change.after.to_dict(),
        "difference": difference_facts(change.difference),
        "p": change.p,
        "e_value": change.evidence.value if change.evidence.days else None,
        "reached_on": change.reached_on,
        "text": change.text,
    }


def difference_facts(difference: Difference | None) -> Fields | None:
    """A difference as plain values."""
    return {**asdict(difference), "text": difference.text} if difference else None


def drift_facts(drift: Drift) -> Fields:
    """A drift as plain values."""
    return {
        "name": drift.kind,
        "value": drift.psi,
        "bound": drift.bound,
        "level": drift.level,
        "text": drift.text,
        "js": drift.js,
        "noise": drift.noise,
        "n": drift.n,
        "reference_n": drift.reference_n,
    }


def figure(found: Estimate | None) -> Fields:
    """A figure with its interval, as plain values."""
    if found is None:
        return {"value": None, "low": None, "high": None, "n": 0}
    return {"value": found.value, "low": found.low, "high": found.high, "n": found.n}


def queue_facts(found: Queue) -> Fields:
    """The queue as plain values; `or_more`: nobody counted further than `waiting`."""
    return {**asdict(found), "or_more": found.waiting >= MANY}
