"""Judgements of which the truth is known, and every figure that they give."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lyra_nli.evaluation.arrays import Confidence, Hits, Labels, Probabilities
from lyra_nli.evaluation.estimates import Metric, mean
from lyra_nli.evaluation.reliability import (
    by_mass,
    by_width,
    calibration_error,
    classwise_error,
    debiased_error,
)
from lyra_nli.evaluation.scoring import brier_losses, decomposition, nll_losses
from lyra_nli.labels import LABELS


@dataclass(frozen=True)
class Judged:
    """What a model said of n rows, and what people said.

    Attributes:
        probabilities: float64 [n, 3].
        chosen: what the model answered, int [n].
        labels: what people said, int [n].
        groups: [n]; rows of one group are no independent evidence.
        whole: the probabilities of all three labels are known. Otherwise some rows have only
            that of the chosen one, and the others share the rest evenly (see `shared`).
    """

    probabilities: Probabilities
    chosen: Labels
    labels: Labels
    groups: Sequence[str]
    whole: bool = True

    @property
    def confidence(self) -> Confidence:
        """The probability of the chosen label, [n]."""
        return np.asarray(self.probabilities[np.arange(len(self.chosen)), self.chosen])

    @property
    def hits(self) -> Hits:
        """Whether people left the chosen label as it was, [n]."""
        return np.asarray(self.chosen == self.labels)


def shared(confidence: Confidence, chosen: Labels) -> Probabilities:
    """Probabilities of which only the chosen label's is known: the others share the rest."""
    rest = (1 - confidence) / (len(LABELS) - 1)
    probabilities = np.repeat(rest[:, None], len(LABELS), axis=1)
    probabilities[np.arange(len(chosen)), chosen] = confidence
    return probabilities


def measures(judged: Judged) -> dict[str, Metric]:
    """All figures by name (n > 0); those that need all three probabilities only where known.

    - accuracy; confidence_brier: of the event "the chosen label is right", 0 to 1.
    - ece, ece_mass, ece_debiased: calibration error of the confidence, in bins of equal width, of
      equal mass, and of equal width without most of what chance adds.
    - nll (nats); brier (0 to 2); reliability, resolution, uncertainty, remainder: its parts.
    - classwise_ece, classwise_ece_mass: of every label's own probability.
    """
    confidence, hits = judged.confidence, judged.hits
    found = {
        "accuracy": mean(hits.astype(np.float64), bounds=(0.0, 1.0)),
        "confidence_brier": mean((confidence - hits) ** 2),
        "ece": calibration_error(confidence, hits, by_width(confidence)),
        "ece_mass": calibration_error(confidence, hits, by_mass(confidence)),
        "ece_debiased": debiased_error(confidence, hits, by_width(confidence)),
    }
    if not judged.whole:
        return found
    probabilities, labels = judged.probabilities, judged.labels
    return {
        **found,
        "brier": mean(brier_losses(probabilities, labels)),
        "nll": mean(nll_losses(probabilities, labels)),
        **decomposition(probabilities, labels),
        "classwise_ece": classwise_error(probabilities, labels),
        "classwise_ece_mass": classwise_error(probabilities, labels, equal_mass=True),
    }
