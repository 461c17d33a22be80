"""The page of quality: how often each version errs, on what, and whether that has changed."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Final

import numpy as np
from sqlalchemy import Connection

from lyra_nli.dashboard import stamps
from lyra_nli.dashboard.drawn import Drawn, Said, drawn_at_random
from lyra_nli.dashboard.facts import change_facts, drift_facts, figure
from lyra_nli.dashboard.sites import sites
from lyra_nli.dashboard.view import Fields, View
from lyra_nli.evaluation.estimates import Estimate, estimate, mean
from lyra_nli.labels import LABELS
from lyra_nli.monitoring.alerts import recent_alerts
from lyra_nli.monitoring.changes import Change, changes
from lyra_nli.monitoring.counts import count_table
from lyra_nli.monitoring.drift import Drift, drifts
from lyra_nli.monitoring.rates import RandomReview, Week, first_week
from lyra_nli.monitoring.report import label_weeks
from lyra_nli.monitoring.shares import Share
from lyra_nli.records import BASE
from lyra_nli.registry.rows import load_aliases, load_events
from lyra_nli.storage.generation import Generation

POPULATION: Final = "the first random verdict on each judgement"
ALL: Final = "all"
NEWEST: Final = 2000
"""Of each version, the Brier score is of so many judgements at most."""


def quality(view: View) -> Fields:
    """Correction rate, accuracy and Brier score by week and version; what every change did."""
    drawn = drawn_at_random(view)
    if not drawn.reviews:
        view.missing.append(
            "No review was drawn at random yet, and only those say how often the model errs: "
            "review a few dozen edges on the review page."
        )
    everything = sum(drawn.said.values(), Counter())
    return {
        "population": POPULATION,
        "weeks": [_week(week) for week in drawn.weeks if week.start >= _span()[0]],
        "versions": _versions(view, drawn),
        "activations": [change_facts(change) for change in changes_of(view, drawn)],
        "confusion": [_confusion(ALL, everything)]
        + [_confusion(version, said) for version, said in sorted(drawn.said.items())],
        "classes": [_class(label, everything) for label in LABELS],
        "domains": sites(view),
        "labels_by_week": _labels_by_week(view),
        "drift": [drift_facts(drift) for drift in drifts_of(view)],
        "alerts": alerts_of(view),
    }


def changes_of(view: View, drawn: Drawn) -> list[Change]:
    """Judge every change of what serves, oldest first; remembered for the day."""
    today = datetime.now(UTC).date()

    def judge(connection: Connection, _: Generation) -> list[Change]:
        events = load_events(connection, view.base_model, None)
        return changes(events, drawn.reviews, view.settings.monitoring.alert_alpha, today)

    return view.ask(
        "the changes of what serves",
        [],
        judge,
        needs={"nli_version_events": ("to_version",)},
        stamp=lambda connection, _: (drawn.stamp, stamps.of_events(connection), today),
    )


def drifts_of(view: View) -> list[Drift]:
    """Measure the drift of what the view's base is asked and answers."""

    def measure(connection: Connection, generation: Generation) -> list[Drift]:
        version = load_aliases(connection, view.base_model).get("active", BASE)
        bound = view.settings.monitoring.alert_drift
        return drifts(connection, generation, view.base_model, version, bound)

    return view.ask(
        "the drift", [], measure, needs={"nli_prediction_counts": (), "nli_aliases": ()}
    )


def alerts_of(view: View) -> list[Fields]:
    """The newest alerts, open and resolved, newest first."""
    return view.ask(
        "the alerts",
        [],
        lambda connection, generation: [
            asdict(alert) for alert in recent_alerts(connection, generation, view.base_model)
        ],
        needs={"nli_alerts": ("resolved_at",)},
    )


def _versions(view: View, drawn: Drawn) -> list[Fields]:
    briers: dict[str, Estimate] = view.ask(
        "the Brier scores",
        {},
        lambda *_: _briers(drawn.reviews),
        needs={"nli_reviews": ("undone_at",)},
        stamp=lambda *_: drawn.stamp,
    )
    return [
        {
            "version": version,
            "correction_rate": rate.to_dict(),
            "accuracy": Share(rate.n - rate.k, rate.n).to_dict(),
            "brier": figure(briers.get(version)),
        }
        for version, rate in drawn.by_version.items()
    ]


def _briers(reviews: list[RandomReview]) -> dict[str, Estimate]:
    scores: dict[str, list[float]] = {}
    for review in reviews:
        if review.brier is not None:
            scores.setdefault(review.version, []).append(review.brier)
    return {version: _mean(values[-NEWEST:]) for version, values in scores.items()}


def _mean(values: list[float]) -> Estimate:
    groups = [str(index) for index in range(len(values))]
    return estimate({"mean": mean(np.array(values, dtype=np.float64))}, groups)["mean"]


def _week(week: Week) -> Fields:
    return {
        "week": week.week,
        "start": week.start,
        "version": week.version,
        "correction_rate": week.corrected.to_dict(),
        "accuracy": week.accuracy.to_dict(),
        "brier": week.brier,
        "brier_n": week.brier_n,
    }


def _confusion(version: str, said: Said) -> Fields:
    return {
        "version": version,
        "labels": list(LABELS),
        "matrix": [[said[model, human] for human in LABELS] for model in LABELS],
        "n": said.total(),
    }


def _class(label: str, said: Said) -> Fields:
    right = said[label, label]
    judged = sum(said[label, human] for human in LABELS)
    meant = sum(said[model, label] for model in LABELS)
    return {
        "label": label,
        "judged": judged,
        "right": Share(right, judged).to_dict(),
        "meant": meant,
        "found": Share(right, meant).to_dict(),
    }


def _labels_by_week(view: View) -> list[Fields]:
    """How often each label was answered, by week and version; from the counts of the log."""
    return view.ask(
        "the answers by week",
        [],
        lambda connection, generation: [
            {"week": week.week, "start": week.start, "version": week.version, **week.labels}
            for week in label_weeks(
                count_table(connection, generation, *_span(), view.base_model, "label")
            )
        ],
        needs={"nli_prediction_counts": ("kind",)},
    )


def _span() -> tuple[str, str]:
    """The first and the last day that are shown; later days are those of a clock that was wrong."""
    today = datetime.now(UTC).date()
    return first_week(today), today.isoformat()
