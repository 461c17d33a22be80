"""Whether a model is as often right as it says, and a curve that makes it so.

Throughout: `confidence` is float [n], the probability of the label the model chose;
`hits` is bool [n], whether a human left that label as it was. No scipy: the server of the
feedback tools runs without the libraries of training.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

Confidence = NDArray[np.float64]
Hits = NDArray[np.bool_]

BINS = 10
FOLDS = 5

_EDGE = 1e-6
"""Confidences are kept this far from 0 and 1, where a logit has no end."""


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


@dataclass(frozen=True, slots=True)
class Platt:
    """The curve ``sigmoid(slope * logit(confidence) + intercept)``; (1, 0) changes nothing.

    Platt (1999), Probabilistic outputs for support vector machines; on the logit of the
    confidence, so that a model that is calibrated already needs no change.
    """

    slope: float
    intercept: float

    def __call__(self, confidence: Confidence) -> Confidence:
        """Calibrated probabilities that the label is right, [n]."""
        return _sigmoid(self.slope * _logit(confidence) + self.intercept)


@dataclass(frozen=True, slots=True)
class Measured:
    """What reviews say about a model's confidence, and about a curve that corrects it.

    Attributes:
        brier, brier_calibrated: of the confidence as it is, and corrected out of fold.
        ece, ece_calibrated: expected calibration error, likewise.
        bars: of the confidence as it is.
        curve: fitted on all rows.
    """

    n: int
    brier: float
    brier_calibrated: float
    ece: float
    ece_calibrated: float
    bars: tuple[Bin, ...]
    curve: Platt

    @property
    def improvement(self) -> float | None:
        """The share of the Brier score that goes away; None when there was nothing to gain."""
        return (self.brier - self.brier_calibrated) / self.brier if self.brier else None

    @property
    def refusal(self) -> str:
        """Why the curve should not be used; empty when it may be."""
        if self.curve.slope <= 0:
            return "a higher confidence did not mean a label that is more often right"
        if self.brier_calibrated >= self.brier:
            return "on rows it was not fitted on, it does no better than the model itself"
        return ""


def measure(confidence: Confidence, hits: Hits, groups: Sequence[str]) -> Measured:
    """Measure all of it; the arguments are those of `out_of_fold`."""
    calibrated = out_of_fold(confidence, hits, groups)
    bars = reliability(confidence, hits)
    return Measured(
        n=len(hits),
        brier=brier(confidence, hits),
        brier_calibrated=brier(calibrated, hits),
        ece=ece(bars),
        ece_calibrated=ece(reliability(calibrated, hits)),
        bars=bars,
        curve=fit_platt(confidence, hits),
    )


def brier(confidence: Confidence, hits: Hits) -> float:
    """Mean squared distance of the confidence from what came true, 0 (perfect) to 1; n > 0.

    Brier (1950), Verification of forecasts expressed in terms of probability; in the form
    for one event, "the label is right", which is half of the form for two classes.
    """
    return float(np.mean((confidence - hits) ** 2))


def reliability(confidence: Confidence, hits: Hits, bins: int = BINS) -> tuple[Bin, ...]:
    """All bars of the reliability diagram, of equal width, from 0 to 1.

    DeGroot & Fienberg (1983); a confidence of exactly 1 belongs to the last bar.
    """
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    return tuple(
        _bin(index / bins, (index + 1) / bins, confidence[place == index], hits[place == index])
        for index in range(bins)
    )


def ece(bars: Sequence[Bin]) -> float:
    """Expected calibration error: the bars' distances from the diagonal, weighted by rows.

    Guo et al. (2017), eq. 3 (arXiv:1706.04599).
    """
    total = sum(bar.n for bar in bars)
    gaps = (
        bar.n * abs(bar.accuracy - bar.confidence)
        for bar in bars
        if bar.accuracy is not None and bar.confidence is not None
    )
    return sum(gaps) / total if total else 0.0


def fit_platt(confidence: Confidence, hits: Hits, steps: int = 100) -> Platt:
    """Fit the curve by maximum likelihood on Platt's smoothed targets; n > 0.

    Newton's method with backtracking: Lin, Lin & Weng (2007), A note on Platt's probabilistic
    outputs for support vector machines. The targets ``(k+1)/(k+2)`` and ``1/(n-k+2)`` keep
    the fit finite when all rows, or none, are hits.
    """
    right = int(hits.sum())
    wrong = len(hits) - right
    target = np.where(hits, (right + 1) / (right + 2), 1 / (wrong + 2))
    design = np.column_stack([_logit(confidence), np.ones(len(hits))])
    parameters = np.zeros(2)
    loss = _cross_entropy(design @ parameters, target)
    for _ in range(steps):
        probability = _sigmoid(design @ parameters)
        gradient = design.T @ (probability - target)
        if np.abs(gradient).max() < 1e-8 * len(hits):
            break
        hessian = design.T @ (design * (probability * (1 - probability))[:, None])
        # Least squares: where all confidences are the same, the hessian has no inverse.
        step = np.linalg.lstsq(hessian, gradient, rcond=None)[0]
        for shrink in 0.5 ** np.arange(30):
            shorter = parameters - shrink * step
            better = _cross_entropy(design @ shorter, target)
            if better <= loss - 1e-4 * shrink * float(gradient @ step):
                break
        else:
            break
        parameters, loss = shorter, better
    return Platt(float(parameters[0]), float(parameters[1]))


def out_of_fold(
    confidence: Confidence, hits: Hits, groups: Sequence[str], folds: int = FOLDS
) -> Confidence:
    """Calibrate every row by a curve that was fitted without it, [n].

    Stone (1974), Cross-validatory choice and assessment of statistical predictions.

    Args:
        confidence: [n].
        hits: [n].
        groups: [n], at least two different ones; rows of one group stand in one fold.
            Groups are dealt out in their order, so hashes make random folds that stay.
        folds: fewer when there are fewer groups.
    """
    names, group = np.unique(np.asarray(groups), return_inverse=True)
    if len(names) < 2:
        raise ValueError("a cross-validation needs two groups")
    fold = group % min(folds, len(names))
    calibrated = np.empty_like(confidence)
    for index in np.unique(fold):
        held = fold == index
        calibrated[held] = fit_platt(confidence[~held], hits[~held])(confidence[held])
    return calibrated


def wilson(hits: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """The Wilson score interval of a share; n > 0.

    Wilson (1927), Probable inference, the law of succession, and statistical inference.
    """
    z = NormalDist().inv_cdf((1 + level) / 2)
    share, scale = hits / n, 1 + z**2 / n
    middle = (share + z**2 / (2 * n)) / scale
    half = z / scale * sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return max(0.0, middle - half), min(1.0, middle + half)


def _bin(low: float, high: float, confidence: Confidence, hits: Hits) -> Bin:
    n = len(hits)
    if n == 0:
        return Bin(low, high, 0)
    right = int(hits.sum())
    return Bin(low, high, n, float(confidence.mean()), right / n, *wilson(right, n))


def _logit(confidence: Confidence) -> Confidence:
    inside = np.clip(confidence, _EDGE, 1 - _EDGE)
    return np.asarray(np.log(inside / (1 - inside)), dtype=np.float64)


def _sigmoid(logit: Confidence) -> Confidence:
    return np.asarray(0.5 * (1 + np.tanh(0.5 * logit)), dtype=np.float64)  # never overflows


def _cross_entropy(logit: Confidence, target: Confidence) -> float:
    return float(np.sum(np.logaddexp(0.0, logit) - target * logit))
