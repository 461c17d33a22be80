"""Metrics of probabilities against labels, each with its source.

Throughout: `probabilities` is [n, 3], rows sum to 1, columns in the order of ``LABELS``;
`labels` is int [n], indices into ``LABELS``.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

from scipy import stats

from lyra_nli.evaluation.arrays import Hits, Labels, Probabilities
from lyra_nli.evaluation.intervals import Interval, wilson
from lyra_nli.evaluation.reliability import BINS, by_width, calibration_error
from lyra_nli.evaluation.scoring import brier, nll
from lyra_nli.labels import LABELS

__all__ = [
    "Interval",
    "Labels",
    "Probabilities",
    "Scores",
    "brier",
    "ece",
    "mcnemar",
    "nll",
    "rows_needed",
    "score",
    "wilson",
]


@dataclass(frozen=True)
class Scores:
    """How good one model's probabilities are on one population.

    Attributes:
        accuracy: share of rows whose most probable label is right, Wilson interval.
        brier: multi-class Brier score, 0 (perfect) to 2.
        nll: mean negative log-likelihood, nats.
        ece: expected calibration error of the top label, 0 to 1.
        recall: by label, share of that label's rows that were found; None without rows.
        precision: by label; None when the model never says it.
    """

    n: int
    accuracy: Interval
    brier: float
    nll: float
    ece: float
    recall: dict[str, float | None]
    precision: dict[str, float | None]

    def to_dict(self) -> dict[str, object]:
        """Plain values, ready for JSON."""
        return asdict(self)


def score(probabilities: Probabilities, labels: Labels) -> Scores:
    """All metrics of one model on one population (n > 0)."""
    predicted = probabilities.argmax(axis=1)
    hits = predicted == labels
    recall: dict[str, float | None] = {}
    precision: dict[str, float | None] = {}
    for index, label in enumerate(LABELS):
        recall[label] = _share(hits[labels == index])
        precision[label] = _share(hits[predicted == index])
    return Scores(
        n=len(labels),
        accuracy=wilson(int(hits.sum()), len(labels)),
        brier=brier(probabilities, labels),
        nll=nll(probabilities, labels),
        ece=ece(probabilities, labels),
        recall=recall,
        precision=precision,
    )


def ece(probabilities: Probabilities, labels: Labels, bins: int = BINS) -> float:
    """Expected calibration error of the top label, equal-width bins: `calibration_error`."""
    confidence = probabilities.max(axis=1)
    hits = probabilities.argmax(axis=1) == labels
    return calibration_error(confidence, hits, by_width(confidence, bins)).value


def mcnemar(fixed: int, broken: int) -> float:
    """One-sided exact McNemar p: the chance of so many fixed rows if breaking were as likely.

    McNemar (1947); the exact binomial form in Dietterich (1998), Approximate statistical
    tests for comparing supervised classification learning algorithms.
    """
    if fixed + broken == 0:
        return 1.0
    return float(stats.binomtest(fixed, fixed + broken, 0.5, alternative="greater").pvalue)


def rows_needed(fixed: int, broken: int, n: int, alpha: float, power: float = 0.8) -> int | None:
    """Rows at which a gain of the observed size would be shown; None without a gain.

    Connor (1987), Sample size for testing differences in proportions for the paired-sample
    design, Biometrics 43: one-sided McNemar, z form.
    """
    discordant, gain = (fixed + broken) / n, (fixed - broken) / n
    if gain <= 0:
        return None
    z_alpha, z_power = stats.norm.ppf(1 - alpha), stats.norm.ppf(power)
    spread = math.sqrt(max(discordant - gain**2, 0.0))
    root = (z_alpha * math.sqrt(discordant) + z_power * spread) / gain
    return math.ceil(float(root) ** 2)


def _share(hits: Hits) -> float | None:
    return float(hits.mean()) if len(hits) else None
