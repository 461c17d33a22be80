"""Clusters: figures and tests that count groups of rows, not rows, as independent evidence.

Rows of one page or claim err together. The jackknife leaves out one group at a time and so sees
how far groups differ; the sign-flip test lets chance swap base and candidate in whole groups.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from lyra_nli.evaluation.estimates import Metric, Sums, sum_by_group
from lyra_nli.evaluation.intervals import Interval, score_bounds

FLIPS, MOST_FLIPS = 9_999, 2_000_000
"""Random flips: p-values are multiples of 1 / 10,000, or finer where a level asks for it."""

_SURE = 50
"""Flips as extreme as what was found, after which p is known well enough; and how many a p that is
just at the level has."""

_TIE = 1e-5
"""Totals, in standard errors, that are the same but for rounding: flips run in float32."""

_CELLS = 4_000_000
"""Signs held in memory at once."""


@dataclass(frozen=True)
class Clusters:
    """Which of n rows belong together.

    Attributes:
        group: the number of each row's group, int [n].
        count: how many groups.
    """

    group: NDArray[np.intp]
    count: int

    @classmethod
    def of(cls, names: Sequence[str] | NDArray[Any]) -> Clusters:
        """Number the groups."""
        found, group = np.unique(np.asarray(names), return_inverse=True)
        return cls(group, len(found))

    def sums(self, rows: NDArray[np.float64]) -> Sums:
        """What the rows of each group add up to, [n, f] -> [groups, f]."""
        return sum_by_group(rows, self.group, self.count)

    @property
    def freedom(self) -> float:
        """Degrees of freedom: groups less one, fewer where a few groups hold most of the rows.

        Kish (1965), Survey Sampling, 8.2: ``sum(n)^2 / sum(n^2)`` groups of equal size tell as
        much as these.
        """
        sizes = np.bincount(self.group)
        return float(sizes.sum() ** 2 / (sizes**2).sum()) - 1

    def figure(
        self, metric: Metric, *, pseudo: Sequence[Sequence[float]] = (), level: float = 0.95
    ) -> Interval:
        """A figure with the t interval of the jackknife over groups.

        Tukey (1958), Bias and confidence in not-quite large samples; over clusters it is CR3 of
        Bell & McCaffrey (2002), Bias reduction in standard errors for linear regression with
        multi-stage samples, which errs to the wide side.

        Args:
            pseudo: rows that are added for the interval, each a group of its own, so that few
                events, or none, do not look like certainty.
        """
        value = metric.value
        if self.freedom <= 0:
            return Interval(value, *metric.bounds, len(self.group))
        sums = np.vstack([self.sums(metric.rows), *(np.atleast_2d(row) for row in pseudo)])
        middle, error = _jackknife(metric, sums)
        reach = float(stats.t.ppf((1 + level) / 2, self.freedom)) * error
        least, most = metric.bounds
        low, high = min(middle - reach, value), max(middle + reach, value)
        return Interval(value, max(low, least), min(high, most), len(self.group))

    def share(self, hits: NDArray[np.bool_]) -> Interval:
        """The share of rows that hit, with its 95% interval.

        Wilson's score interval with as many rows as would be worth these if they were independent,
        and Student's quantile: Korn & Graubard (1998), Confidence intervals for proportions with
        small expected number of positive counts estimated from survey data.
        """
        n = len(hits)
        if n == 0:
            return Interval(0.0, 0.0, 1.0, 0)
        value = float(hits.mean())
        if self.freedom <= 0:
            return Interval(value, 0.0, 1.0, n)
        rows = np.column_stack([hits, np.ones(n)])
        _, error = _jackknife(Metric(rows, _mean), self.sums(rows))
        worth = value * (1 - value) / error**2 if error else self.freedom + 1
        quantile = float(stats.t.ppf(0.975, self.freedom))
        return Interval(value, *score_bounds(value, min(worth, n), quantile), n)


def flip_test(sums: Sums, *, level: float = 0.05, seed: int = 0) -> float:
    """One-sided p that none of k totals over groups is above zero, from [groups, k] sums.

    If the candidate is no better, swapping it with the base in any group is as likely: each flip
    changes the sign of whole groups. Totals are taken in units of their own spread, and the largest
    counts, so that looking at several is paid for: Westfall & Young (1993), Resampling-based
    multiple testing. Its one statistic, in groups of one row that only tells fixed from broken, is
    the exact McNemar test; in units of its spread it also holds, with many groups, where groups are
    not symmetric (Canay, Romano & Shaikh 2017, Randomization tests under an approximate symmetry
    assumption). Flips go on until p is known at the level: Besag & Clifford (1991), Sequential
    Monte Carlo p-values.

    Args:
        level: that p is held against.
    """
    units = standard(sums)
    if not units.any():
        return 1.0
    units = units[units.any(axis=1)]
    bound = units.sum(axis=0).max() - _TIE
    random = np.random.default_rng(seed)
    step, as_extreme, done = max(1, _CELLS // len(units)), 0, 0
    enough = min(MOST_FLIPS, max(FLIPS, ceil(_SURE / level) - 1))
    while done < FLIPS or (done < enough and as_extreme < _SURE):
        shape = (min(step, (FLIPS if done < FLIPS else enough) - done), len(units))
        signs = random.integers(0, 2, shape, dtype=np.int8).astype(np.float32) * 2 - 1
        as_extreme += int(((signs @ units.astype(np.float32)).max(axis=1) >= bound).sum())
        done += shape[0]
    return (1 + as_extreme) / (1 + done)


def standard(sums: Sums) -> Sums:
    """Sums of groups in units of their total's standard error, were the mean zero; 0 stays 0."""
    spread = np.sqrt((sums**2).sum(axis=0))
    return np.asarray(np.divide(sums, spread, out=np.zeros_like(sums), where=spread > 0))


def _jackknife(metric: Metric, sums: Sums) -> tuple[float, float]:
    """The figure of all groups, and its standard error."""
    whole = sums.sum(axis=0, keepdims=True)
    left = metric.of(whole - sums)
    middle = float(metric.of(whole)[0])
    return middle, sqrt((len(sums) - 1) / len(sums) * float(((left - middle) ** 2).sum()))


def _mean(sums: Sums) -> NDArray[np.float64]:
    return np.divide(sums[:, 0], sums[:, 1], out=np.zeros(len(sums)), where=sums[:, 1] > 0)
