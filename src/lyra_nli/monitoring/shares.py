"""Shares of a count with what is known of them: intervals, differences, a two-proportion test.

No scipy: what is served and printed every day should not wait for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, lgamma, sqrt
from typing import Final

from lyra_nli.evaluation.intervals import wilson

FEW: Final = 30
"""With fewer, the 95% interval of a share is up to 0.35 wide, and the text says so."""


@dataclass(frozen=True, slots=True)
class Share:
    """`k` of `n`, with the 95% Wilson interval; no figures where nothing was counted."""

    k: int
    n: int

    @property
    def value(self) -> float | None:
        """``k / n``."""
        return self.k / self.n if self.n else None

    @property
    def low(self) -> float | None:
        """The interval's lower end."""
        return wilson(self.k, self.n).low if self.n else None

    @property
    def high(self) -> float | None:
        """The interval's upper end."""
        return wilson(self.k, self.n).high if self.n else None

    @property
    def few(self) -> bool:
        """There are too few for the figure to say much."""
        return self.n < FEW

    @property
    def text(self) -> str:
        """One line for people: the interval always, a warning where it is wide."""
        if self.value is None or self.low is None or self.high is None:
            return "nothing counted yet"
        words = f"{self.value:.1%} of {self.n} (95%: {self.low:.1%} to {self.high:.1%})"
        return f"{words}, too few to say much" if self.few else words

    def to_dict(self) -> dict[str, float | int | bool | None]:
        """Plain values, ready for JSON."""
        return {
            "value": self.value,
            "low": self.low,
            "high": self.high,
            "n": self.n,
            "k": self.k,
            "few": self.few,
        }


@dataclass(frozen=True, slots=True)
class Difference:
    """How much higher the second of two independent shares is, with its 95% interval."""

    value: float
    low: float
    high: float

    @property
    def text(self) -> str:
        """One line for people, in percentage points."""
        value, low, high = (f"{100 * number:+.1f}" for number in (self.value, self.low, self.high))
        return f"{value} points (95%: {low} to {high})"


def difference(one: Share, other: Share) -> Difference | None:
    """Compare two shares: `other` minus `one`; None where one of them counts nothing.

    Newcombe (1998), Interval estimation for the difference between independent proportions,
    Statistics in Medicine 17, method 10: Wilson's intervals, combined.
    """
    if not (one.n and other.n):
        return None
    first, second = wilson(one.k, one.n), wilson(other.k, other.n)
    value = second.value - first.value
    return Difference(
        value,
        value - sqrt((second.value - second.low) ** 2 + (first.high - first.value) ** 2),
        value + sqrt((second.high - second.value) ** 2 + (first.value - first.low) ** 2),
    )


def fisher(one: Share, other: Share) -> float | None:
    """The one-sided p of Fisher's exact test that `other` is higher; None without counts.

    The chance of so many in `other` or more, if the two were equal and their sum is as it is.
    It may be looked at once: `lyra_nli.monitoring.sequential` is for looking every day.

    Fisher (1935), The logic of inductive inference.
    """
    if not (one.n and other.n):
        return None
    total, n = one.k + other.k, one.n + other.n
    every = _log_choose(n, total)
    tail = (
        exp(_log_choose(other.n, k) + _log_choose(one.n, total - k) - every)
        for k in range(other.k, min(total, other.n) + 1)
        if total - k <= one.n
    )
    return min(1.0, sum(tail))


def _log_choose(n: int, k: int) -> float:
    return lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1)
