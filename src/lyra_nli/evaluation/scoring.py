"""Proper scores: what a model pays for the probability it gave to what came true."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from lyra_nli.evaluation.arrays import Labels, Probabilities
from lyra_nli.evaluation.estimates import Figures, Metric, Sums
from lyra_nli.evaluation.reliability import BINS, by_width

_LEAST = 1e-12


def brier(probabilities: Probabilities, labels: Labels) -> float:
    """Multi-class Brier score: mean over rows of the squared distance to the truth, in [0, 2].

    Brier (1950), Verification of forecasts expressed in terms of probability, eq. 2.
    """
    return float(brier_losses(probabilities, labels).mean())


def nll(probabilities: Probabilities, labels: Labels) -> float:
    """Mean negative log-likelihood in nats; probabilities are floored at 1e-12."""
    return float(nll_losses(probabilities, labels).mean())


def brier_losses(probabilities: Probabilities, labels: Labels) -> NDArray[np.float64]:
    """The squared distance of each row to the truth, [n]."""
    truth = np.eye(probabilities.shape[1])[labels]
    return np.asarray(((probabilities - truth) ** 2).sum(axis=1), dtype=np.float64)


def nll_losses(probabilities: Probabilities, labels: Labels) -> NDArray[np.float64]:
    """The negative log-likelihood of each row, nats, [n]."""
    chosen = probabilities[np.arange(len(labels)), labels]
    return np.asarray(-np.log(np.maximum(chosen, _LEAST)), dtype=np.float64)


def decomposition(
    probabilities: Probabilities, labels: Labels, bins: int = BINS
) -> dict[str, Metric]:
    """The parts of the Brier score: ``reliability - resolution + uncertainty + remainder``.

    Murphy (1973), A new vector partition of the probability score, for each class on its own
    and added up, in bins of equal width. Where probabilities within a bin differ the three parts
    miss the score by what they lose there (Stephenson, Coelho & Jolliffe 2008, Two extra
    components in the Brier score decomposition): that is the remainder.

    - reliability: how far the bins' mean probability is from what came true; 0 is best.
    - resolution: how far what came true in the bins is from the base rate; more is better.
    - uncertainty: of the labels alone, whatever the model.
    """
    n, classes = probabilities.shape
    truth = np.eye(classes)[labels]
    cells = np.zeros((n, classes, bins, 3))
    for k in range(classes):
        place = by_width(probabilities[:, k], bins)
        cells[np.arange(n), k, place] = np.column_stack(
            [np.ones(n), probabilities[:, k], truth[:, k]]
        )
    losses = brier_losses(probabilities, labels)
    rows = np.column_stack([cells.reshape(n, -1), losses])

    def parts(sums: Sums) -> dict[str, Figures]:
        count, said, true = np.moveaxis(sums[:, :-1].reshape(-1, classes, bins, 3), -1, 0)
        total = count[:, 0].sum(axis=-1)
        rate = true.sum(axis=-1) / total[:, None]
        filled = np.maximum(count, 1)  # an empty bin adds 0 / 1
        gap = (said - true) ** 2 / filled
        spread = (true - count * rate[:, :, None]) ** 2 / filled
        found = {
            "reliability": gap.sum(axis=(1, 2)) / total,
            "resolution": spread.sum(axis=(1, 2)) / total,
            "uncertainty": (rate * (1 - rate)).sum(axis=1),
        }
        explained = found["reliability"] - found["resolution"] + found["uncertainty"]
        return {**found, "remainder": sums[:, -1] / total - explained}

    def part(name: str) -> Metric:
        least = -math.inf if name == "remainder" else 0.0
        return Metric(rows, lambda sums: parts(sums)[name], (least, math.inf))

    return {name: part(name) for name in ("reliability", "resolution", "uncertainty", "remainder")}
