"""A share with its interval."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt
from statistics import NormalDist


@dataclass(frozen=True)
class Interval:
    """A share, or another figure, with its 95% interval.

    Attributes:
        n: what it was counted on; 0 means that there is no figure, whatever `value` says.
    """

    value: float
    low: float
    high: float
    n: int


def wilson(hits: int, n: int, level: float = 0.95) -> Interval:
    """A share with its Wilson score interval.

    Wilson (1927), Probable inference, the law of succession, and statistical inference.
    """
    if n == 0:
        return Interval(0.0, 0.0, 1.0, 0)
    z = NormalDist().inv_cdf((1 + level) / 2)
    return Interval(hits / n, *score_bounds(hits / n, n, z), n)


def score_bounds(share: float, n: float, z: float) -> tuple[float, float]:
    """Where Wilson's score interval ends; `n` may be a fraction, `z` a quantile of any law."""
    scale = 1 + z**2 / n
    middle = (share + z**2 / (2 * n)) / scale
    half = z / scale * sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    low = 0.0 if share == 0 else middle - half  # exactly: rounding must not exclude the share
    high = 1.0 if share == 1 else middle + half
    return low, high
