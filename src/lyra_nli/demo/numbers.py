"""Figures that agree with each other: estimates, intervals, event rates and p values."""

from __future__ import annotations

import math
from dataclasses import dataclass
from random import Random

from lyra_nli.demo.facts import (
    EVERYONE,
    Estimate,
    Reading,
    Scope,
)

MEASURES = (("hazard ratio", "HR"), ("risk ratio", "RR"), ("odds ratio", "OR"))


@dataclass(frozen=True, slots=True)
class Result:
    """A ratio with everything a paper prints beside it.

    Attributes:
        treated, control: percent with the event in each arm.
        participants: both arms together, large enough for this interval.
        p_value: two-sided.
    """

    measure: tuple[str, str]
    value: float
    low: float
    high: float
    treated: float
    control: float
    participants: int
    p_value: float

    def estimate(
        self,
        subject: str,
        scope: Scope = EVERYONE,
        *,
        conclusive: bool = True,
        primary_of: str = "",
    ) -> Estimate:
        """The result as a fact about a subject."""
        return Estimate(
            subject, self.value, self.low, self.high, scope,
            conclusive=conclusive, primary_of=primary_of,
        )  # fmt: skip


def draw(
    rng: Random, reading: Reading, base_percent: float, measure: tuple[str, str] | None = None
) -> Result:
    """A result of the wanted reading whose figures agree after rounding.

    Args:
        rng: the source of every choice.
        reading: what the interval is to say.
        base_percent: percent of untreated people with the event.
        measure: one of `MEASURES`; None: any.
    """
    for _ in range(1000):
        value, error = _effect(rng, reading)
        result = _printed(rng, value, error, base_percent, measure or rng.choice(MEASURES))
        if result is not None and _fits(result, reading):
            return result
    raise AssertionError(f"no figures found for {reading} at {base_percent}%")


def _effect(rng: Random, reading: Reading) -> tuple[float, float]:
    """A ratio and the standard error of its logarithm."""
    if reading == "unclear":
        return rng.uniform(0.45, 2.0), rng.uniform(0.55, 0.9)
    if reading == "same":
        return math.exp(rng.uniform(-0.14, 0.14)), rng.uniform(0.06, 0.13)
    value = rng.uniform(0.55, 0.86) if reading == "lower" else rng.uniform(1.18, 1.85)
    return value, abs(math.log(value)) / rng.uniform(2.5, 4.6)


def _printed(
    rng: Random, value: float, error: float, base_percent: float, measure: tuple[str, str]
) -> Result | None:
    """Everything as it is printed; None when the event would be too common."""
    control = round(base_percent * rng.uniform(0.8, 1.25), 1)
    odds = measure[1] == "OR"
    treated = _from_odds(control, value) if odds else control * value
    if treated > 85:
        return None
    arm = _arm_size(treated / 100, control / 100, error, odds=odds)
    return Result(
        measure=measure,
        value=round(value, 2),
        low=round(math.exp(math.log(value) - 1.96 * error), 2),
        high=round(math.exp(math.log(value) + 1.96 * error), 2),
        treated=round(treated, 1),
        control=control,
        participants=2 * arm,
        p_value=math.erfc(abs(math.log(value)) / error / math.sqrt(2)),
    )


def _from_odds(control: float, ratio: float) -> float:
    odds = ratio * control / (100 - control)
    return 100 * odds / (1 + odds)


def _arm_size(treated: float, control: float, error: float, *, odds: bool) -> int:
    """People per arm that give this standard error (the usual large-sample formulas)."""
    if odds:
        spread = 1 / (treated * (1 - treated)) + 1 / (control * (1 - control))
    else:
        spread = (1 - treated) / treated + (1 - control) / control
    return max(12, math.ceil(spread / error**2))


def _fits(result: Result, reading: Reading) -> bool:
    """No figure may look as if it said something else after rounding."""
    if reading == "lower":
        ok = result.high <= 0.98
    elif reading == "higher":
        ok = result.low >= 1.02
    else:
        ok = result.low <= 0.97 and result.high >= 1.03
    if reading == "same":
        ok = ok and result.p_value > 0.09
    # "Fewer" and "more" must be true of the printed percentages.
    return ok and (result.treated < result.control) == (result.value < 1)


# Percentages before and after whose difference, ratio and number needed to treat are round.
CHANGES = (
    (4.0, 2.0), (8.0, 6.0), (10.0, 8.0), (5.0, 4.0), (20.0, 15.0), (16.0, 12.0), (2.0, 1.0),
    (12.5, 10.0), (25.0, 20.0), (40.0, 30.0), (10.0, 7.5), (50.0, 40.0), (5.0, 2.5),
    (18.0, 13.5), (30.0, 24.0), (15.0, 12.0), (24.0, 18.0), (36.0, 27.0), (10.0, 5.0),
    (20.0, 16.0), (12.0, 9.0), (9.0, 4.5), (28.0, 21.0), (32.0, 24.0), (14.0, 7.0), (22.5, 18.0),
)  # fmt: skip


def draw_change(rng: Random, base_percent: float) -> tuple[float, float]:
    """Percentages before and after a fall, at about the usual level of the outcome."""
    near = sorted(CHANGES, key=lambda pair: abs(math.log(pair[0] / base_percent)))
    return rng.choice(near[:5])


def plain(number: float) -> str:
    """A number without needless decimals: ``2.5``, ``40``."""
    return f"{number:g}"


def p_value_forms(p_value: float) -> tuple[list[str], str]:
    """A p value as printed in brackets (several ways), and as read in a sentence."""
    if p_value < 0.001:
        return ["P<0.001", "p < 0.001"], "a P value below 0.001"
    shown = f"{p_value:.3f}" if p_value < 0.01 else f"{min(p_value, 0.99):.2f}"
    return [f"P={shown}", f"p = {shown}"], f"a P value of {shown}"


def draw_points(
    rng: Random, reading: Reading, base_percent: float
) -> tuple[float, float, float, float]:
    """A difference in percentage points: estimate, interval (one decimal), p value."""
    unit = max(0.4, base_percent / 12)
    for _ in range(1000):
        if reading == "same":
            error = unit * rng.uniform(0.4, 0.9)
            value = error * rng.uniform(-1.5, 1.5)
        else:
            value = unit * rng.uniform(1.0, 2.4) * (-1 if reading == "lower" else 1)
            error = abs(value) / rng.uniform(2.6, 4.6)
        low, high = round(value - 1.96 * error, 1), round(value + 1.96 * error, 1)
        clear = {"same": low <= -0.2 and high >= 0.2, "lower": high <= -0.1}.get(
            reading, low >= 0.1
        )
        if clear:
            p_value = math.erfc(abs(value) / error / math.sqrt(2))
            return round(value, 1) + 0.0, low, high, p_value
    raise AssertionError(f"no figures found for {reading} at {base_percent}%")
