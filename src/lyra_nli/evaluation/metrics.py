"""Metrics of probabilities against labels, each with its source.

Throughout: `probabilities` is [n, 3], rows sum to 1, columns in the order of ``LABELS``;
`labels` is int [n], indices into ``LABELS``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace

from scipy import stats

from lyra_nli.evaluation.arrays import Hits, Labels, Probabilities
from lyra_nli.evaluation.clusters import Clusters
from lyra_nli.evaluation.estimates import estimate, mean
from lyra_nli.evaluation.intervals import Interval, wilson
from lyra_nli.evaluation.reliability import BINS, by_width, calibration_error
from lyra_nli.evaluation.scoring import brier, brier_losses, nll, nll_losses
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
    "score",
    "score_groups",
    "wilson",
]


@dataclass(frozen=True)
class Scores:
    """How good one model's probabilities are on one population.

    Attributes:
        accuracy: share of rows whose most probable label is right, Wilson interval; over groups
            where they are known.
        brier: multi-class Brier score, 0 (perfect) to 2.
        nll: mean negative log-likelihood, nats.
        ece: expected calibration error of the top label, 0 to 1.
        groups: how many groups of rows are independent; None where each row is taken for one.
        intervals: of ``brier``, ``nll`` and ``ece``, 95%, over groups; without groups none, and
            none of ``ece`` with fewer groups than a bootstrap needs.
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
    groups: int | None = None
    intervals: dict[str, Interval] = field(default_factory=dict)

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


def score_groups(probabilities: Probabilities, labels: Labels, groups: Sequence[str]) -> Scores:
    """`score`, with intervals that count groups of rows, not rows, as independent (n > 0)."""
    clusters, hits = Clusters.of(groups), probabilities.argmax(axis=1) == labels
    intervals = {
        "brier": clusters.figure(mean(brier_losses(probabilities, labels), bounds=(0.0, 2.0))),
        "nll": clusters.figure(mean(nll_losses(probabilities, labels), bounds=(0.0, 30.0))),
    }
    confidence = probabilities.max(axis=1)
    error = calibration_error(confidence, hits, by_width(confidence))
    found = estimate({"ece": error}, groups)["ece"]
    if found.low is not None and found.high is not None:
        intervals["ece"] = Interval(found.value, found.low, found.high, found.n)
    return replace(
        score(probabilities, labels),
        accuracy=clusters.share(hits),
        groups=clusters.count,
        intervals=intervals,
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
    return float(stats.binom.sf(fixed - 1, fixed + broken, 0.5))


def _share(hits: Hits) -> float | None:
    return float(hits.mean()) if len(hits) else None
