"""The gate: whether the candidate beats what serves now, on rows it never saw.

Three verdicts. ``fail``: a check that is enforced does not hold. ``insufficient``: all hold,
but the gain could be chance (one-sided exact McNemar against the base). ``pass``: all hold
and the gain is shown.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from lyra_nli.evaluation.metrics import (
    Interval,
    Labels,
    Probabilities,
    Scores,
    mcnemar,
    rows_needed,
    score,
    wilson,
)
from lyra_nli.labels import INDEX, LABELS
from lyra_nli.records import Example
from lyra_nli.settings import GateSettings

Outcome = Literal["pass", "fail", "insufficient"]


@dataclass(frozen=True)
class Answers:
    """What one model said about the hold-out and about general NLI: probabilities [n, 3]."""

    holdout: Probabilities
    general: Probabilities


@dataclass(frozen=True)
class Check:
    """One line of the verdict: a figure against its threshold."""

    name: str
    value: float
    threshold: float
    holds: bool
    enforced: bool


@dataclass(frozen=True)
class Change:
    """Candidate against another model, on the same rows.

    Attributes:
        fixed: rows that the other got wrong and the candidate right; `broken` the reverse.
        efr: share of the other's errors that are fixed.
        nfr: share of the other's right answers that are broken.
        p: one-sided exact McNemar.
    """

    fixed: int
    broken: int
    efr: Interval
    nfr: Interval
    p: float


@dataclass(frozen=True)
class Population:
    """One named set of rows: scores by model (``base``, ``active``, ``candidate``)."""

    name: str
    scores: dict[str, Scores]


@dataclass(frozen=True)
class Verdict:
    """The gate's answer, with every figure it rests on."""

    outcome: Outcome
    sentence: str
    checks: tuple[Check, ...]
    populations: tuple[Population, ...]
    against_base: Change
    against_active: Change | None
    active: str | None

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return asdict(self)


def judge_candidate(
    holdout: Sequence[Example],
    general: Sequence[Example],
    answers: dict[str, Answers],
    settings: GateSettings,
    active: str | None = None,
) -> Verdict:
    """Compare the candidate with the base, and with the active version if there is one.

    Args:
        holdout: reviewed rows that no model in `answers` learned from.
        general: general NLI rows, likewise.
        answers: ``base``, ``candidate`` and, with `active`, ``active``.
        active: name of the active version.
    """
    labels = _labels(holdout)
    populations = _populations(holdout, general, answers)
    against_base = _change(answers["base"].holdout, answers["candidate"].holdout, labels)
    against_active = (
        _change(answers["active"].holdout, answers["candidate"].holdout, labels) if active else None
    )
    checks = _checks(populations, settings)
    outcome, sentence = _decide(checks, against_base, len(holdout), settings)
    return Verdict(
        outcome=outcome,
        sentence=sentence,
        checks=checks,
        populations=populations,
        against_base=against_base,
        against_active=against_active,
        active=active,
    )


def _labels(examples: Sequence[Example]) -> Labels:
    return np.array([INDEX[example.label] for example in examples], dtype=np.int64)


def _populations(
    holdout: Sequence[Example], general: Sequence[Example], answers: dict[str, Answers]
) -> tuple[Population, ...]:
    """Hold-out whole, by source and by label; general NLI; empty ones are left out."""
    labels = _labels(holdout)
    sources = np.array([example.source for example in holdout])
    masks: dict[str, NDArray[np.bool_]] = {
        "hold-out": np.ones(len(holdout), dtype=bool),
        "corrections": sources == "correction",
        "agreed": sources == "agreed",
    }
    for index, label in enumerate(LABELS):
        masks[f"label {label}"] = labels == index
    result = [
        Population(
            name,
            {model: score(said.holdout[mask], labels[mask]) for model, said in answers.items()},
        )
        for name, mask in masks.items()
        if mask.any()
    ]
    if general:
        truth = _labels(general)
        scores = {model: score(said.general, truth) for model, said in answers.items()}
        result.append(Population("general NLI", scores))
    return tuple(result)


def _change(before: Probabilities, after: Probabilities, labels: Labels) -> Change:
    was, now = before.argmax(axis=1) == labels, after.argmax(axis=1) == labels
    fixed, broken = int((~was & now).sum()), int((was & ~now).sum())
    return Change(
        fixed=fixed,
        broken=broken,
        efr=wilson(fixed, int((~was).sum())),
        nfr=wilson(broken, int(was.sum())),
        p=mcnemar(fixed, broken),
    )


def _checks(populations: Sequence[Population], settings: GateSettings) -> tuple[Check, ...]:
    by_name = {population.name: population.scores for population in populations}
    whole = by_name["hold-out"]
    candidate, base = whole["candidate"], whole["base"]
    accuracy = candidate.accuracy.value
    checks = [
        _at_least("accuracy not below the base", accuracy, base.accuracy.value),
        _at_most(
            "Brier score not above the base",
            candidate.brier,
            base.brier + settings.max_brier_increase,
        ),
    ]
    if "active" in whole:
        active = whole["active"]
        checks += [
            _at_least("accuracy not below the active version", accuracy, active.accuracy.value),
        ]
    if "general NLI" in by_name:
        general = by_name["general NLI"]
        floor = general["base"].accuracy.value - settings.max_general_drop
        checks.append(
            _at_least("general NLI accuracy kept", general["candidate"].accuracy.value, floor)
        )
    checks.append(
        _at_least(
            "accuracy of the proposal",
            accuracy,
            settings.min_accuracy,
            enforced=settings.enforce_min_accuracy,
        )
    )
    return tuple(checks)


def _decide(
    checks: Sequence[Check], change: Change, n: int, settings: GateSettings
) -> tuple[Outcome, str]:
    broken = [check.name for check in checks if check.enforced and not check.holds]
    if broken:
        return "fail", f"Not good enough on {n} hold-out rows: does not hold: {'; '.join(broken)}."
    tally = f"{change.fixed} errors fixed, {change.broken} right answers broken, p = {change.p:.2g}"
    if change.p < settings.significance:
        return "pass", f"Better than the base on {n} hold-out rows it never saw: {tally}."
    needed = rows_needed(change.fixed, change.broken, n, settings.significance)
    more = f"about {needed - n} more hold-out rows" if needed and needed > n else "more reviews"
    return (
        "insufficient",
        f"Not worse, but {n} hold-out rows can't show that it is better: {tally}. "
        f"It would take {more}.",
    )


def _at_least(name: str, value: float, threshold: float, *, enforced: bool = True) -> Check:
    holds = value >= threshold or _same(value, threshold)
    return Check(name, value, threshold, holds, enforced)


def _at_most(name: str, value: float, threshold: float) -> Check:
    return Check(name, value, threshold, value <= threshold or _same(value, threshold), True)


def _same(value: float, threshold: float) -> bool:
    """Equal but for rounding: 0.24 is not below 0.27 - 0.03, which is 0.24000000000000002."""
    return math.isclose(value, threshold, rel_tol=0, abs_tol=1e-9)
