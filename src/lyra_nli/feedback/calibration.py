"""Is the model's confidence to be believed? What the reviews say, kept in the database.

The model said "0.9", a human agreed or did not: that is one sample. `evaluate` measures the
samples, tries what could correct the probabilities (`lyra_nli.evaluation.choosing`), and keeps
what does best out of fold. Every adapter version, and every base, has calibrations of its own,
one of which is current.

A calibration is kept only if it was fitted on pairs that were drawn at random: on those that
people looked at because they seemed wrong, every model seems worse than it is. The functions with
an engine answer in plain JSON values, as the tools give them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, insert

from lyra_nli.errors import FeedbackError
from lyra_nli.feedback.calibration_answers import EVERY_MODEL, Model, find_model
from lyra_nli.feedback.calibration_changes import add_version, exclusive, roll_back, whose
from lyra_nli.feedback.calibration_evaluation import Evaluation
from lyra_nli.feedback.calibration_rows import current_calibrator, read_events, read_versions
from lyra_nli.feedback.calibration_samples import ENOUGH_RANDOM, read_samples
from lyra_nli.feedback.evaluations import evaluation_facts, read_evaluations
from lyra_nli.records import BASE
from lyra_nli.storage.engine import read
from lyra_nli.storage.generation import inspect_database
from lyra_nli.storage.tables import calibration_evaluations

__all__ = [
    "current_calibrator",
    "evaluate",
    "get_diagram_data",
    "get_evaluations",
    "get_history",
    "get_stats",
    "rollback",
]

Answer = dict[str, object]

MIN_SAMPLES = 50
"""With fewer, the accuracy's 95% interval is up to 0.27 wide and a fit follows the noise."""


def get_stats(engine: Engine) -> Answer:
    """Tell where calibration stands: samples, current calibrations, the newest evaluation.

    Any database can be asked, also a read-only one.
    """
    generation = inspect_database(engine)
    with read(engine) as connection:
        samples = read_samples(connection, generation, Model(EVERY_MODEL))
        versions = read_versions(connection, generation)
        evaluations = read_evaluations(connection, generation, limit=1)
    current = [facts for facts in versions if facts["is_current"]]
    return {
        "ok": True,
        "action": "get_stats",
        "samples": len(samples.cases),
        "samples_wanted": MIN_SAMPLES,
        "population": samples.population,
        "random_samples": samples.random,
        "random_samples_wanted": ENOUGH_RANDOM,
        "without_confidence": samples.without_confidence,
        "sources": samples.sources,
        "current": current[0] if current else None,
        "calibrations": current,
        "latest_evaluation": evaluation_facts(evaluations[0]._mapping) if evaluations else None,
        "message": samples.words,
    }


def evaluate(
    engine: Engine,
    *,
    source: str = EVERY_MODEL,
    base_model: str = "",
    directory: Path | None = None,
    min_samples: int = MIN_SAMPLES,
    who: str = "",
) -> Answer:
    """Measure a model's confidence against the reviews, and keep what corrects it.

    Args:
        engine: a database opened for writing.
        source: an adapter version, or ``base``; ``nli`` (all judgements) and ``unknown`` (those
            whose version nobody kept) are measured only.
        base_model: which base, where the source is ``base``.
        directory: of the adapter versions, for their out-of-fold answers.
        min_samples: refuse with fewer; at least 2.
        who: for the audit row.

    Raises:
        FeedbackError: `too_few_reviews`, saying how many there are and how many are wanted.
        AdapterInvalidError: when the version's out-of-fold answers can't be read.
        ModelError: scikit-learn is not installed.
        StorageError: when the database was not upgraded or can't be written.
    """
    generation = inspect_database(engine)
    generation.require_upgraded()
    with read(engine) as connection:
        model = find_model(connection, generation, source, base_model, directory)
        samples = read_samples(connection, generation, model)
    evaluation = Evaluation.of(samples, min_samples)
    version = None
    with exclusive(engine) as connection:
        if not evaluation.refusal:
            version = add_version(
                connection,
                evaluation.choice.trial.calibrator,
                (model.base_model, source),
                samples=len(samples.cases),
                metrics=evaluation.metrics,
                who=who,
            )
        row = evaluation.row(version)
        connection.execute(insert(calibration_evaluations).values(row))
    facts = {**evaluation_facts(row), **evaluation.facts(version)}
    return {"ok": True, "action": "evaluate", **facts}


def get_evaluations(engine: Engine, *, limit: int = 20, source: str | None = None) -> Answer:
    """List evaluations, newest first, without their bins; `source` picks those of one source."""
    generation = inspect_database(engine)
    with read(engine) as connection:
        rows = read_evaluations(connection, generation, limit=limit, source=source)
    facts = [evaluation_facts(row._mapping) for row in rows]
    return {"ok": True, "action": "get_evaluations", "evaluations": facts}


def get_diagram_data(
    engine: Engine, *, evaluation_id: str | None = None, source: str | None = None
) -> Answer:
    """The bars of a reliability diagram; without an id, of the newest evaluation.

    Each bar has, as ``calibrated``, the rows whose corrected confidence falls there.

    Raises:
        FeedbackError: `unknown_evaluation`.
    """
    generation = inspect_database(engine)
    with read(engine) as connection:
        rows = read_evaluations(connection, generation, limit=1, key=evaluation_id, source=source)
    if not rows:
        of = f" of {source}" if source else ""
        what = f"no evaluation {evaluation_id!r}{of}" if evaluation_id else f"no evaluation{of} yet"
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


def get_history(
    engine: Engine, *, source: str | None = None, base_model: str | None = None
) -> dict[str, Any]:
    """List calibrations and what changed, newest first, with the bars of the last evaluation.

    Args:
        engine: any database, also a read-only one.
        source: only of this version; None: of all, and without bars.
        base_model: only of this base. What the source ``base`` is the base of is known only of
            evaluations that made a calibration: only theirs are the bars then.
    """
    generation = inspect_database(engine)
    with read(engine) as connection:
        versions = read_versions(connection, generation, base_model=base_model, source=source)
        mixed = source == BASE and base_model is not None
        kept = [facts["version"] for facts in versions] if mixed else None
        rows = []
        if source:
            rows = read_evaluations(connection, generation, limit=1, source=source, kept_as=kept)
        return {
            "calibrations": versions,
            "events": read_events(connection, generation, source, base_model=base_model),
            "evaluation": evaluation_facts(rows[0]._mapping) if rows else None,
            "bins": json.loads(rows[0].bins_json) if rows else [],
        }


def rollback(
    engine: Engine,
    *,
    reason: str,
    version: int | None = None,
    source: str | None = None,
    base_model: str | None = None,
    who: str = "",
) -> Answer:
    """Make another calibration current, in one transaction with its audit row.

    Args:
        engine: a database opened for writing.
        reason: why, for the audit row.
        version: 0: none; None: what was current when the present version was fitted.
        source: whose calibration; None: the version's own, or else the one that changed last.
        base_model: only of this base; every base has a source ``base``.
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
        owner = whose(connection, version, source, base_model)
        before, to = roll_back(connection, owner, version, who=who, reason=reason)
    words = f"calibration {to}" if to else "the confidence as the model gives it"
    return {
        "ok": True,
        "action": "rollback",
        "base_model": owner[0],
        "source": owner[1],
        "from_version": before or None,
        "to_version": to or None,
        "message": f"Now current for {owner[1]}: {words}.",
    }
