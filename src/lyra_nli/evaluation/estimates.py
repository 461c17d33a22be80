"""Figures with intervals, by a bootstrap over groups.

Every figure of this room is a function of sums over rows (a mean is ``sum / n``, a calibration
error a function of what the bins add up to). Drawing groups again with replacement only changes
how often each row counts, so a resample costs one row of a matrix product, whatever the figure.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Sums = NDArray[np.float64]
Figures = NDArray[np.float64]

RESAMPLES = 1000
ENOUGH_GROUPS = 30
"""With fewer, an interval from a bootstrap over groups is too narrow (Cameron, Gelbach & Miller
2008, Bootstrap-based improvements for inference with clustered errors)."""

_CELLS = 4_000_000
"""Weights held in memory at once."""


@dataclass(frozen=True)
class Metric:
    """A figure of n rows.

    Attributes:
        rows: what each row adds to the sums, float64 [n, f].
        of: the figures of many sums at once, [b, f] -> [b].
        bounds: between which the figure lies, whatever the rows.
        inflated: chance adds to the figure, as it does to a distance; see `estimate`.
    """

    rows: NDArray[np.float64]
    of: Callable[[Sums], Figures]
    bounds: tuple[float, float] = (0.0, math.inf)
    inflated: bool = False

    @property
    def value(self) -> float:
        """The figure of all rows, each counted once."""
        return float(self.of(self.rows.sum(axis=0, keepdims=True))[0])


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure and how sure it is.

    Attributes:
        low, high: its 95% interval; None where there are too few groups for one.
        n: rows.
        groups: how many of them are independent of each other.
    """

    value: float
    low: float | None
    high: float | None
    n: int
    groups: int

    def __str__(self) -> str:
        if self.low is None or self.high is None:
            return f"{self.value:.3f} (a hint: {self.n} rows in {self.groups} groups are few)"
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def mean(values: NDArray[np.float64], bounds: tuple[float, float] = (0.0, math.inf)) -> Metric:
    """The mean of [n] values."""
    rows = np.column_stack([values, np.ones(len(values))])
    return Metric(rows, lambda sums: sums[:, 0] / sums[:, 1], bounds)


def ratio(one: Metric, other: Metric) -> Metric:
    """One figure in units of another, on the same rows; infinite where the other is 0."""
    width = one.rows.shape[1]

    def of(sums: Sums) -> Figures:
        below = other.of(sums[:, width:])
        whole = np.full_like(below, np.inf)
        return np.divide(one.of(sums[:, :width]), below, out=whole, where=below != 0)

    return Metric(np.hstack([one.rows, other.rows]), of)


def estimate(
    metrics: Mapping[str, Metric], groups: Sequence[str], *, seed: int = 0
) -> dict[str, Estimate]:
    """Each figure with its interval; all are of the same rows (n > 0) and the same resamples.

    Basic bootstrap intervals over whole groups: Davison & Hinkley (1997), Bootstrap methods and
    their application, 2.2.1 and 3.8. What chance adds to an inflated figure it adds again in a
    resample: a calibration error is larger there than in its sample. A basic interval takes that
    off, and ends too low where the error is real; percentiles add it twice, and leave out an error
    of zero. The interval of an inflated figure is the two together. It is approximate: see "The
    figures" in docs/calibration.md for how often it holds the true error.

    Args:
        groups: [n]; rows of one group are no independent evidence.
    """
    names, group = np.unique(np.asarray(groups), return_inverse=True)
    values = {name: metric.value for name, metric in metrics.items()}
    shape = (len(group), len(names))
    if len(names) < ENOUGH_GROUPS:
        return {name: Estimate(value, None, None, *shape) for name, value in values.items()}
    sums = {name: sum_by_group(metric.rows, group, len(names)) for name, metric in metrics.items()}
    drawn: dict[str, list[Figures]] = {name: [] for name in metrics}
    for weights in _weights(len(names), seed):
        for name, metric in metrics.items():
            drawn[name].append(metric.of(weights @ sums[name]))
    intervals = {
        name: _interval(value, np.concatenate(drawn[name]), metrics[name])
        for name, value in values.items()
    }
    return {name: Estimate(value, *intervals[name], *shape) for name, value in values.items()}


def _weights(groups: int, seed: int) -> Iterator[NDArray[np.float64]]:
    """How often each resample draws each group, [some, groups] at a time."""
    random = np.random.default_rng(seed)
    even = np.full(groups, 1 / groups)
    step = max(1, _CELLS // groups)
    for start in range(0, RESAMPLES, step):
        count = min(step, RESAMPLES - start)
        yield random.multinomial(groups, even, size=count).astype(np.float64)


def sum_by_group(rows: NDArray[np.float64], group: NDArray[np.intp], count: int) -> Sums:
    """What the rows of each group add up to, [n, f] -> [count, f]."""
    sums = np.zeros((count, rows.shape[1]))
    np.add.at(sums, group, rows)
    return sums


def _interval(value: float, drawn: Figures, metric: Metric) -> tuple[float, float]:
    """Mirror the resamples' spread at the figure, and keep the figure inside."""
    below, above = (float(end) for end in np.quantile(drawn, [0.025, 0.975]))
    low, high = min(2 * value - above, value), max(2 * value - below, value)
    if metric.inflated:
        low, high = min(low, below), max(high, above)
    least, most = metric.bounds
    return max(low, least), min(high, most)
