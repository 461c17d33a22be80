"""The page of calibration: whether the confidence of a version is to be believed.

``before`` and ``after`` are of the newest evaluation, out of fold: the rows that a calibration is
judged by are not those that it was fitted on. ``served`` is what the server answered since, held
against the reviews that were drawn at random.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Final

import numpy as np
from sqlalchemy import Connection, Row

from lyra_nli.dashboard.drawn import drawn_at_random
from lyra_nli.dashboard.facts import figure
from lyra_nli.dashboard.versions import find
from lyra_nli.dashboard.view import Fields, View
from lyra_nli.evaluation.estimates import estimate
from lyra_nli.evaluation.reliability import by_mass, debiased_error, diagram
from lyra_nli.feedback.calibration_rows import read_events, read_versions
from lyra_nli.feedback.calibration_samples import ENOUGH_RANDOM
from lyra_nli.feedback.evaluations import evaluation_facts, read_evaluations
from lyra_nli.monitoring.rates import RandomReview
from lyra_nli.monitoring.shares import Share
from lyra_nli.records import BASE
from lyra_nli.storage.generation import Generation

EVALUATIONS: Final = 20
EVENTS: Final = 100
Diagrams = tuple[Fields | None, Fields | None]

NEWEST: Final = 2000
"""Reviews that say how well the server's answers are calibrated: the newest count."""


def calibration(view: View, version: str) -> Fields:
    """Reliability before and after the calibration in use, its history, and evaluations.

    Args:
        version: ``base``, or what `find` knows; ``active`` is the base where none is.

    Raises:
        AdapterNotFoundError: there is no such version.
    """
    source = _source(view, version)
    known = _calibrations(view)
    history = [each for each in known if each["source"] == source]
    evaluations = view.ask(
        "the evaluations",
        list[Fields](),
        lambda connection, generation: [
            _evaluation(row)
            for row in read_evaluations(connection, generation, limit=EVALUATIONS, source=source)
        ],
        needs={"calibration_evaluations": ("calibration_version", "bins_json")},
    )
    before, after = _diagrams(view, evaluations, known)
    served = _served(view, source)
    return {
        "source": source,
        "sources": _sources(view, source, known),
        "current": next((each for each in history if each["current"]), None),
        "population": "random",
        "samples": served["n"] if served else 0,
        "wanted": ENOUGH_RANDOM,
        "before": before,
        "after": after,
        "served": served,
        "history": history,
        "events": _events(view, source),
        "evaluations": [
            {key: value for key, value in each.items() if key != "bins"} for each in evaluations
        ],
    }


def _source(view: View, version: str) -> str:
    if version == BASE:
        return BASE
    if version == "active":
        active = view.attempt(
            "what serves", None, lambda workspace: workspace.registry.active(view.base_model)
        )
        return active.name if active else BASE
    return find(view, version).name


def _calibrations(view: View) -> list[Fields]:
    """All calibrations of the view's base, newest first."""

    def read_rows(connection: Connection, generation: Generation) -> list[Fields]:
        return [
            {
                "number": facts["version"],
                "source": facts["source"],
                "method": facts["method"],
                "samples": facts["samples"],
                "created_at": facts["created_at"],
                "current": facts["is_current"],
                "metrics": facts["metrics"],
            }
            for facts in read_versions(connection, generation, base_model=view.base_model)
        ]

    needs = {"nli_calibrations": ("base_model", "source", "metrics_json")}
    return view.ask("the calibrations", [], read_rows, needs=needs)


def _sources(view: View, source: str, known: list[Fields]) -> list[Fields]:
    """Whose calibration can be looked at, with the number of reviews drawn at random."""
    rates = drawn_at_random(view).by_version
    current = {each["source"]: each["number"] for each in known if each["current"]}
    versions: list[str] = view.attempt(
        "the list of versions",
        [],
        lambda workspace: [each.name for each in workspace.registry.list(view.base_model)],
    )
    return [
        {
            "source": name,
            "samples": rates.get(name, Share(0, 0)).n,
            "current": current.get(name),
        }
        for name in dict.fromkeys([BASE, *versions, source, *current])
    ]


def _evaluation(row: Row[Any]) -> Fields:
    return {**evaluation_facts(row._mapping), "bins": json.loads(row.bins_json)}


def _diagrams(view: View, evaluations: list[Fields], known: list[Fields]) -> Diagrams:
    """The bars of the newest evaluation, raw and corrected, with the figures that were kept."""
    if not evaluations:
        view.missing.append(
            "This was never evaluated: `lyra-nli calibrate` measures the confidence, and fits "
            f"what corrects it when {ENOUGH_RANDOM} reviews were drawn at random."
        )
        return None, None
    newest = evaluations[0]
    number = newest["calibration_version"]
    kept = (each["metrics"] for each in known if each["number"] == number)
    metrics: Fields = next(kept, {})

    def arrange(_: object) -> Diagrams:
        corrected = [bar.get("calibrated") for bar in newest["bins"]]
        raw = [{key: bar[key] for key in bar if key != "calibrated"} for bar in newest["bins"]]
        after = _diagram(corrected, metrics.get("after", {})) if all(corrected) else None
        return _diagram(raw, metrics.get("before", {})), after

    nothing: Diagrams = (None, None)
    return view.attempt("the newest evaluation", nothing, arrange)


def _diagram(bins: list[Any], metrics: Mapping[str, Any]) -> Fields:
    names = ("value", "low", "high", "n")
    figures = {name: {key: found.get(key) for key in names} for name, found in metrics.items()}
    return {
        "bins": bins,
        "n": sum(bar["n"] for bar in bins),
        **{name: figures.get(name, figure(None)) for name in ("brier", "nll", "ece")},
        "figures": figures,
    }


def _served(view: View, source: str) -> Fields | None:
    """What the server answered, calibrated where it was, held against the newest reviews."""
    drawn = drawn_at_random(view)
    found: dict[str, Fields] = view.ask(
        "what was served",
        {},
        lambda *_: _by_source(drawn.reviews),
        needs={"nli_predictions": ("calibrated",)},
        stamp=lambda *_: drawn.stamp,
    )
    return found.get(source)


def _by_source(reviews: list[RandomReview]) -> dict[str, Fields]:
    known: dict[str, list[tuple[float, bool]]] = {}
    for review in reviews:
        if review.confidence is not None:
            known.setdefault(review.version, []).append((review.confidence, not review.corrected))
    return {source: _measured(pairs[-NEWEST:]) for source, pairs in known.items()}


def _measured(pairs: list[tuple[float, bool]]) -> Fields:
    confidence = np.array([said for said, _ in pairs], dtype=np.float64)
    hits = np.array([hit for _, hit in pairs], dtype=np.bool_)
    error = debiased_error(confidence, hits, by_mass(confidence))
    groups = [str(index) for index in range(len(pairs))]
    return {
        "bins": [asdict(bar) for bar in diagram(confidence, hits)],
        "n": len(pairs),
        "ece": figure(estimate({"ece": error}, groups)["ece"]),
    }


def _events(view: View, source: str) -> list[Fields]:
    """The last changes of which calibration is in use, newest first."""

    def read_rows(connection: Connection, generation: Generation) -> list[Fields]:
        return [
            {
                **{key: event[key] for key in ("at", "who", "action", "reason")},
                "from": event["from_version"],
                "to": event["to_version"],
            }
            for event in read_events(connection, generation, source, limit=EVENTS)
            if event["base_model"] == view.base_model
        ]

    needs = {"nli_calibration_events": ("base_model", "source")}
    return view.ask("the history of calibrations", [], read_rows, needs=needs)
