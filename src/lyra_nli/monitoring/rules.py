"""The rules of the watch: each looks at one figure and says whether it is over its bound.

==================  ===========================================  =========================
rule                figure                                       bound in the settings
==================  ===========================================  =========================
correction_rate     evidence that what serves errs more often    1 / `alert_alpha`
                    than what served before
canary              evidence that the canary errs more often     1 / `alert_alpha`
                    than the active version meanwhile
calibration         calibration error of the served confidence,  `alert_calibration`
                    lower end of its 95% interval
disagreement        share of pairs of a week's live traffic on   `alert_disagreement`
                    which another version disagrees, lower end
                    of its 95% interval
drift_label,        population stability index of this week,     `alert_drift`
drift_confidence,   where it is more than chance
drift_length,
drift_domain
==================  ===========================================  =========================

A bound counts as passed only when chance would hardly pass it, so few reviews raise no alert.
Only the first two rules are made for looking every day. The intervals of the others are for one
look: looked at often, they pass a bound by chance more often than in one case of forty.
"""

from __future__ import annotations

from typing import Final

from lyra_nli.evaluation.estimates import Estimate
from lyra_nli.monitoring.alerts import Finding
from lyra_nli.monitoring.canary import CanaryStanding
from lyra_nli.monitoring.changes import Change
from lyra_nli.monitoring.drift import Drift
from lyra_nli.monitoring.standing import Compared, Standing
from lyra_nli.records import BASE
from lyra_nli.settings import MonitoringSettings

CORRECTION_RATE: Final = "correction_rate"

CANARY: Final = "canary"

OF_INPUT: Final = ("drift_domain", "drift_length")
"""Other pairs come in than before: then other errors may be theirs, not the version's."""

ENOUGH_REVIEWS: Final = 100
"""For the calibration rule, which looks often at an interval that is made for one look."""

SLOW: Final = "slow"
"""What a comparison calls the slow base model, which is no version of this one."""


def findings(standing: Standing, settings: MonitoringSettings) -> list[Finding]:
    """Apply all rules to one base."""
    found = [_drift(standing, drift) for drift in standing.drifts]
    found += [
        _disagreement(standing, compared, settings.alert_disagreement)
        for compared in standing.comparisons
        if not {compared.one, compared.other} & {BASE, SLOW}
    ]
    if standing.error is not None:
        found.append(_calibration(standing, standing.error, settings.alert_calibration))
    if standing.change is not None:
        found.append(_correction_rate(standing, standing.change, 1 / settings.alert_alpha))
    if standing.canary is not None:
        found.append(_canary(standing, standing.canary, 1 / settings.alert_alpha))
    found += [_failed(standing, rule, why) for rule, why in standing.failed.items()]
    return found[::-1]  # what matters most first


def _correction_rate(standing: Standing, change: Change, bound: float) -> Finding:
    highest = change.evidence.highest
    enough = change.before.n and change.evidence.days
    return Finding(
        rule=CORRECTION_RATE,
        base_model=standing.base_model,
        version=standing.version,
        exceeded=bool(highest >= bound) if enough else None,
        value=highest,
        threshold=bound,
        message=f"{change.to_version} since {change.day}, after {change.from_version}: "
        f"{change.text}. Evidence that it is worse: {highest:.3g} to 1 (bound {bound:.3g})",
        since=change.event.at if change.day else "",
    )


def _canary(standing: Standing, canary: CanaryStanding, bound: float) -> Finding:
    highest, enough = canary.evidence.highest, canary.difference and canary.evidence.days
    return Finding(
        rule=CANARY,
        base_model=standing.base_model,
        version=canary.trial.version,
        exceeded=bool(highest >= bound) if enough else None,
        value=highest,
        threshold=bound,
        message=f"canary {canary.trial.version} since {canary.trial.started_at[:10]}: "
        f"{canary.text}. Evidence that it is worse: {highest:.3g} to 1 (bound {bound:.3g})",
        since=canary.trial.started_at,
    )


def _calibration(standing: Standing, error: Estimate, bound: float) -> Finding:
    enough = error.low is not None and error.n >= ENOUGH_REVIEWS
    return Finding(
        rule="calibration",
        base_model=standing.base_model,
        version=standing.version,
        # bool: numpy's own False is not False
        exceeded=bool((error.low or 0.0) > bound) if enough else None,
        value=float(error.value),
        threshold=bound,
        message=f"the confidence of {standing.version} looks off by {error} on {error.n} reviewed "
        f"answers (bound {bound:g}): `lyra-nli calibrate` fits a correction",
    )


def _disagreement(standing: Standing, compared: Compared, bound: float) -> Finding:
    low = compared.disagreed.low
    other = compared.other if compared.one == standing.version else compared.one
    return Finding(
        rule="disagreement",
        base_model=standing.base_model,
        version=other,
        exceeded=None if low is None else bool(low > bound),
        value=compared.disagreed.value,
        threshold=bound,
        message=f"{other} and {standing.version} look to disagree about the same pairs: "
        f"{compared.disagreed.text}, bound {bound:.0%}. The queue's order `disagree` has them",
    )


def _drift(standing: Standing, drift: Drift) -> Finding:
    return Finding(
        rule=f"drift_{drift.kind}",
        base_model=standing.base_model,
        version=standing.version,
        exceeded=None if drift.level == "unknown" else drift.level == "large",
        value=drift.psi,
        threshold=drift.bound,
        message=drift.text,
    )


def _failed(standing: Standing, rule: str, why: str) -> Finding:
    """Nobody can tell: an open alert of that rule stays open."""
    return Finding(
        rule=rule,
        base_model=standing.base_model,
        version=standing.version,
        exceeded=None,
        value=None,
        threshold=0.0,
        message=f"can't be judged: {why}",
    )
