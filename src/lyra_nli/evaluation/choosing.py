"""Which calibrator to use: the one with the best likelihood on rows that it was not fitted on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from lyra_nli.evaluation.arrays import Hits, Probabilities
from lyra_nli.evaluation.calibrators import METHODS, Calibrator, Method
from lyra_nli.evaluation.fitting import fit
from lyra_nli.evaluation.judged import Judged
from lyra_nli.evaluation.scoring import brier, nll

FOLDS = 5
MAX_BRIER_INCREASE = 0.05
"""A method whose Brier score out of fold is this much worse than without it is refused."""


@dataclass(frozen=True)
class Trial:
    """One method on rows that it was not fitted on.

    Attributes:
        calibrator: fitted on all rows.
        unseen: the same rows with their probabilities calibrated out of fold.
        nll: of those; nats.
        brier_change: of the two Brier scores (of all three labels, and of the confidence) the one
            that grew more, in shares of what it was.
    """

    calibrator: Calibrator
    unseen: Judged
    nll: float
    brier_change: float

    @property
    def refusal(self) -> str:
        """Why the method must not be used; empty when it may be."""
        params = self.calibrator.params
        if min(params.get("slope", 1.0), *params.get("weights", (1.0,))) <= 0:
            return "a higher confidence did not mean a label that is more often right"
        if self.brier_change > MAX_BRIER_INCREASE:
            return f"on rows it was not fitted on, the Brier score grows by {self.brier_change:.0%}"
        return ""


@dataclass(frozen=True)
class Choice:
    """What was tried, the simplest first, and what won."""

    trials: dict[Method, Trial]
    method: Method

    @property
    def trial(self) -> Trial:
        """Of the method that won."""
        return self.trials[self.method]

    @property
    def refused(self) -> dict[Method, str]:
        """Why each of the others was not in the running."""
        return {name: trial.refusal for name, trial in self.trials.items() if trial.refusal}


def choose(judged: Judged) -> Choice:
    """Try every method that the rows allow, and take the one with the lowest NLL out of fold.

    ``identity`` is always among them. Where only the chosen label's probability is known, only
    methods that need no more are.

    Stone (1974), Cross-validatory choice and assessment of statistical predictions.

    Raises:
        ValueError: with rows of one group only, which can't be cross-validated.
    """
    able = METHODS if judged.whole else ("identity", "platt", "isotonic")
    trials = {method: attempt(method, judged) for method in able}
    allowed = [method for method, trial in trials.items() if not trial.refusal]
    return Choice(trials, min(allowed, key=lambda method: trials[method].nll))


def attempt(method: Method, judged: Judged) -> Trial:
    """Fit one method on all rows, and judge it out of fold.

    Raises:
        ValueError: as `choose`.
    """
    unseen = replace(judged, probabilities=_out_of_fold(method, judged))
    briers = zip(_briers(judged), _briers(unseen), strict=True)
    return Trial(
        calibrator=fit(method, judged),
        unseen=unseen,
        nll=nll(unseen.probabilities, unseen.labels),
        brier_change=max((after - before) / (before or 1.0) for before, after in briers),
    )


def _out_of_fold(method: Method, judged: Judged) -> Probabilities:
    """Calibrate every row by a calibrator that was fitted without it, [n, 3]."""
    calibrated = np.empty_like(judged.probabilities)
    for held in _folds(judged.groups):
        one = _rows(judged, held)
        calibrator = fit(method, _rows(judged, ~held))
        calibrated[held] = calibrator(one.probabilities, one.chosen)
    return calibrated


def _folds(groups: Sequence[str]) -> Iterator[Hits]:
    """The rows of each fold; groups are dealt out in the order of their names."""
    names, group = np.unique(np.asarray(groups), return_inverse=True)
    if len(names) < 2:
        raise ValueError("a cross-validation needs two groups")
    fold = group % min(FOLDS, len(names))
    for index in np.unique(fold):
        yield np.asarray(fold == index)


def _rows(judged: Judged, mask: Hits) -> Judged:
    return replace(
        judged,
        probabilities=judged.probabilities[mask],
        chosen=judged.chosen[mask],
        labels=judged.labels[mask],
        groups=[name for name, inside in zip(judged.groups, mask, strict=True) if inside],
    )


def _briers(judged: Judged) -> tuple[float, float]:
    of_confidence = float(np.mean((judged.confidence - judged.hits) ** 2))
    return brier(judged.probabilities, judged.labels), of_confidence
