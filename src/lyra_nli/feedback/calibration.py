"""Is the model's confidence to be believed? What the reviews say, kept in the database.

A verdict with the confidence of the judgement it was about is one sample: the model said
"0.9", and a human agreed or did not. `evaluate` measures the samples, fits a curve that
corrects the confidence (`lyra_nli.evaluation.calibration`), and keeps the curve as a version
when it does better on samples that it was not fitted on. One version at most is current.

The functions with an engine answer in plain JSON values, as the tools give them.
"""

from __future__ import annotations

import json
from dataclasses import asdict

from sqlalchemy import Connection, Engine, insert

from lyra_nli.errors import FeedbackError
from lyra_nli.evaluation.calibration import Measured, Platt, measure
from lyra_nli.feedback.calibration_rows import (
    add_version,
    current_version,
    evaluation_facts,
    exclusive,
    read_evaluations,
    roll_back,
    version_facts,
)
from lyra_nli.feedback.calibration_samples import EVERY_MODEL, Samples, read_samples
from lyra_nli.storage.engine import new_id, now, read
from lyra_nli.storage.generation import Generation, inspect_database
from lyra_nli.storage.tables import calibration_evaluations

Answer = dict[str, object]

MIN_SAMPLES = 50
"""With fewer, the accuracy's 95% interval is up to 0.27 wide and a curve follows the noise."""


def get_stats(engine: Engine) -> Answer:
    """Tell where calibration stands: the samples, the current curve, the newest evaluation.

    Works on a database that was never upgraded, and on a read-only one.
    """
    generation = inspect_database(engine)
    with read(engine) as connection:
        samples = read_samples(connection, generation, EVERY_MODEL)
        current = current_version(connection, generation)
        evaluations = read_evaluations(connection, generation, limit=1)
    return {
        "ok": True,
        "action": "get_stats",
        "samples": len(samples.reviews),
        "samples_wanted": MIN_SAMPLES,
        "population": samples.population,
        "random_samples": samples.random,
        "without_confidence": samples.without_confidence,
        "sources": samples.sources,
        "current": version_facts(current) if current else None,
        "latest_evaluation": evaluation_facts(evaluations[0]._mapping) if evaluations else None,
        "message": samples.words,
    }


def evaluate(
    engine: Engine, *, source: str = EVERY_MODEL, min_samples: int = MIN_SAMPLES, who: str = ""
) -> Answer:
    """Measure the confidence against the reviews; keep a curve that corrects it, if one does.

    Args:
        engine: a database opened for writing.
        source: ``nli`` for all judgements, or the model version that made them.
        min_samples: refuse with fewer; at least 2.
        who: for the audit row.

    Raises:
        FeedbackError: `too_few_reviews`, saying how many there are and how many are wanted.
        StorageError: when the database was not upgraded or can't be written.
    """
    generation = inspect_database(engine)
    generation.require_upgraded()
    with read(engine) as connection:
        samples = read_samples(connection, generation, source)
    _require(samples, source, min_samples)
    measured = measure(samples.confidence, samples.hits, samples.groups)
    with exclusive(engine) as connection:
        current = current_version(connection, generation)
        before = current.version if current else 0
        version = None
        if not measured.refusal:
            version = add_version(connection, measured, source=source, before=before, who=who)
        row = _row(measured, source, version)
        connection.execute(insert(calibration_evaluations).values(row))
    return {
        "ok": True,
        "action": "evaluate",
        **evaluation_facts(row),
        "expected_calibration_error_calibrated": measured.ece_calibrated,
        "slope": measured.curve.slope,
        "intercept": measured.curve.intercept,
        "accepted": not measured.refusal,
        "population": samples.population,
        "message": f"{_verdict(measured, before, version)} {samples.words}",
    }


def get_evaluations(engine: Engine, *, limit: int = 20, source: str | None = None) -> Answer:
    """List evaluations, newest first, without their bins; `source` picks those of one source."""
    generation = inspect_database(engine)
    with read(engine) as connection:
        rows = read_evaluations(connection, generation, limit=limit, source=source)
    facts = [evaluation_facts(row._mapping) for row in rows]
    return {"ok": True, "action": "get_evaluations", "evaluations": facts}


def get_diagram_data(engine: Engine, *, evaluation_id: str | None = None) -> Answer:
    """The bars of a reliability diagram; without an id, those of the newest evaluation.

    Raises:
        FeedbackError: `unknown_evaluation`.
    """
    generation = inspect_database(engine)
    with read(engine) as connection:
        rows = read_evaluations(connection, generation, limit=1, key=evaluation_id)
    if not rows:
        what = f"no evaluation {evaluation_id!r}" if evaluation_id else "no evaluation yet"
        raise FeedbackError(
            f"there is {what}",
            code="unknown_evaluation",
            parameter="evaluation_id",
            expected="an id that `get_evaluations` lists",
            hint="The action `evaluate` makes one.",
        )
    return {
        "ok": True,
        "action": "get_diagram_data",
        "evaluation": evaluation_facts(rows[0]._mapping),
        "bins": json.loads(rows[0].bins_json),
    }


def rollback(engine: Engine, *, reason: str, version: int | None = None, who: str = "") -> Answer:
    """Make another calibration current, in one transaction with its audit row.

    Args:
        engine: a database opened for writing.
        reason: why, for the audit row.
        version: 0 for the confidence as the model gives it; None for what was current when
            the present version was fitted.
        who: for the audit row.

    Raises:
        FeedbackError: `missing` reason, `unknown_version`, or `conflict` when that version is
            current already.
        StorageError: when the database was not upgraded or can't be written.
    """
    if not reason.strip():
        raise FeedbackError(
            "a rollback needs a reason", code="missing", parameter="reason", expected="a text"
        )
    generation = inspect_database(engine)
    generation.require_upgraded()
    with exclusive(engine) as connection:
        current = current_version(connection, generation)
        before = current.version if current else 0
        to = roll_back(connection, before, version, who=who, reason=reason)
    words = f"calibration {to}" if to else "the confidence as the model gives it"
    return {
        "ok": True,
        "action": "rollback",
        "from_version": before or None,
        "to_version": to or None,
        "message": f"Now current: {words}.",
    }


def current_curve(connection: Connection, generation: Generation) -> Platt | None:
    """The curve to correct confidences with; None when they stand as the model gives them."""
    row = current_version(connection, generation)
    if row is None:
        return None
    parameters = json.loads(row.params_json)
    return Platt(parameters["slope"], parameters["intercept"])


def _require(samples: Samples, source: str, min_samples: int) -> None:
    found, wanted = len(samples.reviews), max(min_samples, 2)
    if found >= wanted:
        return
    of = "" if source == EVERY_MODEL else f" of {source}"
    known = ", ".join(f"{name} ({count})" for name, count in samples.sources.items())
    raise FeedbackError(
        f"too few reviews{of} to evaluate: {found} with a known confidence so far, "
        f"{wanted} are wanted",
        code="too_few_reviews",
        parameter="min_samples",
        expected=f"{wanted} reviews with a known confidence",
        hint=f"Review {wanted - found} more edges. There are reviews of: {known or 'none'}.",
    )


def _row(measured: Measured, source: str, version: int | None) -> dict[str, object]:
    return {
        "id": new_id("cev"),
        "source": source,
        "brier_score": measured.brier,
        "brier_score_calibrated": measured.brier_calibrated,
        "improvement_ratio": measured.improvement,
        "expected_calibration_error": measured.ece,
        "samples_evaluated": measured.n,
        "bins_json": json.dumps([asdict(bar) for bar in measured.bars]),
        "calibration_version": None if version is None else str(version),
        "evaluated_at": now(),
    }


def _verdict(measured: Measured, before: int, version: int | None) -> str:
    scores = f"Brier score {measured.brier:.4f}, calibrated {measured.brier_calibrated:.4f}"
    if version is not None:
        return f"{scores}: calibration {version} is current now."
    kept = f"calibration {before} stays current" if before else "none is in use"
    return f"{scores}: the new curve is refused ({measured.refusal}); {kept}."
