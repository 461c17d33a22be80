"""Reliability: whether what was said with 80% comes true in 80% of the cases.

Throughout: `said` is float64 [n], a probability; `true` is bool [n], whether it came true;
`place` is int [n], the bin of each row.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lyra_nli.evaluation.arrays import Confidence, Hits, Labels, Probabilities
from lyra_nli.evaluation.estimates import Figures, Metric, Sums
from lyra_nli.evaluation.intervals import wilson

BINS = 15
"""Guo et al. (2017) and most papers since."""

BARS = 10
"""Of a diagram for people."""

Places = NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Bin:
    """One bar of a reliability diagram: the rows with ``low <= confidence < high``.

    Attributes:
        confidence: their mean; None without rows, as are the others.
        accuracy: share of hits among them.
        accuracy_low, accuracy_high: its 95% Wilson interval.
    """

    low: float
    high: float
    n: int
    confidence: float | None = None
    accuracy: float | None = None
    accuracy_low: float | None = None
    accuracy_high: float | None = None


def by_width(said: Confidence, bins: int = BINS) -> Places:
    """Bins of equal width from 0 to 1; 1 itself belongs to the last."""
    return np.minimum((said * bins).astype(np.intp), bins - 1)


def by_mass(said: Confidence, bins: int = BINS) -> Places:
    """Bins of equally many rows; equal values stay together, so that some may be larger.

    Nguyen & O'Connor (2015), Posterior calibration and exploratory analysis for natural
    language processing models.
    """
    edges = np.quantile(said, np.linspace(0, 1, bins + 1)[1:-1])
    return np.searchsorted(edges, said)


def diagram(confidence: Confidence, hits: Hits, bins: int = BARS) -> tuple[Bin, ...]:
    """All bars of the reliability diagram, of equal width, from 0 to 1.

    DeGroot & Fienberg (1983), The comparison and evaluation of forecasters.
    """
    place = by_width(confidence, bins)
    return tuple(
        _bin(index / bins, (index + 1) / bins, confidence[place == index], hits[place == index])
        for index in range(bins)
    )


def calibration_error(said: Confidence, true: Hits, place: Places) -> Metric:
    """Expected calibration error: the bins' distances from the diagonal, weighted by rows.

    Guo et al. (2017), On calibration of modern neural networks, eq. 3 (arXiv:1706.04599); with
    bins of equal mass: Nixon et al. (2019), Measuring calibration in deep learning.
    """
    rows = np.column_stack([_spread(said - true, place), np.ones(len(said))])

    def of(sums: Sums) -> Figures:
        error: Figures = np.abs(sums[:, :-1]).sum(axis=1)
        return error / sums[:, -1]

    return Metric(rows, of, inflated=True)


def debiased_error(said: Confidence, true: Hits, place: Places) -> Metric:
    """Expected calibration error without most of what chance alone adds to it; at least 0.

    Even a perfect model has bins that are off by chance, the more the fewer rows there are.
    With normal noise of a bin's own size that adds ``E|d + noise| - |d|`` to its distance d,
    which is taken off: Kumar, Liang & Ma (2019), Verified uncertainty calibration
    (arXiv:1909.10155), in closed form (the mean of a folded normal distribution). It stays a
    little too high for a perfect model, whose distances are themselves noise.
    """
    ones = np.ones(len(said))
    rows = np.hstack([_spread(values, place) for values in (ones, said - true, true * ones)])

    def of(sums: Sums) -> Figures:
        count, gap, hits = np.split(sums, 3, axis=1)
        filled = np.maximum(count, 1)
        share, distance = hits / filled, np.abs(gap) / filled
        noise = np.sqrt(share * (1 - share) / filled)
        error: Figures = (count * (2 * distance - _folded_mean(distance, noise))).sum(axis=1)
        return np.asarray(np.maximum(error / count.sum(axis=1), 0.0))

    return Metric(rows, of, inflated=True)


def classwise_error(
    probabilities: Probabilities, labels: Labels, *, equal_mass: bool = False
) -> Metric:
    """Mean over the classes of the calibration error of each class's own probability.

    Kull et al. (2019), Beyond temperature scaling, eq. 3 (arXiv:1910.12656).
    """
    cut = by_mass if equal_mass else by_width
    errors = [
        calibration_error(said, labels == k, cut(said)) for k, said in enumerate(probabilities.T)
    ]
    widths = np.cumsum([error.rows.shape[1] for error in errors])[:-1]

    def of(sums: Sums) -> Figures:
        parts = np.split(sums, widths, axis=1)
        each = [error.of(part) for error, part in zip(errors, parts, strict=True)]
        return np.asarray(np.mean(each, axis=0))

    return Metric(np.hstack([error.rows for error in errors]), of, inflated=True)


def _bin(low: float, high: float, confidence: Confidence, hits: Hits) -> Bin:
    n = len(hits)
    if n == 0:
        return Bin(low, high, 0)
    share = wilson(int(hits.sum()), n)
    return Bin(low, high, n, float(confidence.mean()), share.value, share.low, share.high)


def _spread(values: NDArray[np.float64], place: Places) -> NDArray[np.float64]:
    """Put each value into the column of its bin, [n] -> [n, bins]."""
    columns = np.zeros((len(values), int(place.max(initial=0)) + 1))
    columns[np.arange(len(values)), place] = values
    return columns


def _folded_mean(distance: Figures, noise: Figures) -> Figures:
    """``E|distance + noise * N(0, 1)|``."""
    z = np.divide(distance, noise, out=np.full_like(distance, np.inf), where=noise > 0)
    inside: Figures = _erf(z / math.sqrt(2)) * distance
    return inside + noise * math.sqrt(2 / math.pi) * np.exp(-(z**2) / 2)


_erf = np.vectorize(math.erf, otypes=[np.float64])  # numpy has none, and scipy is not needed else
