"""One evaluation: samples of a model, what was measured on them, and what could correct it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

import numpy as np

from lyra_nli.errors import FeedbackError
from lyra_nli.evaluation.choosing import Choice, choose
from lyra_nli.evaluation.estimates import ENOUGH_GROUPS, estimate
from lyra_nli.evaluation.judged import Judged, measures
from lyra_nli.evaluation.reliability import BARS, by_width, calibration_error, diagram
from lyra_nli.feedback.calibration_answers import EVERY_MODEL
from lyra_nli.feedback.calibration_samples import ENOUGH_RANDOM, Samples
from lyra_nli.storage.engine import new_id, now


@dataclass(frozen=True)
class Evaluation:
    """What the samples of one model say.

    Attributes:
        samples: at least two.
        judged: the same as arrays.
        choice: of what could correct the probabilities.
        metrics: figures with intervals ``before`` and ``after`` (out of fold), and of every method
            that was tried what it did.
    """

    samples: Samples
    judged: Judged
    choice: Choice
    metrics: dict[str, object]

    @classmethod
    def of(cls, samples: Samples, min_samples: int) -> Evaluation:
        """Measure, and try every method.

        Raises:
            FeedbackError: `too_few_reviews`.
            ModelError: scikit-learn is not installed.
        """
        _require(samples, max(min_samples, 2))
        judged = samples.judged
        choice = choose(judged)
        return cls(samples, judged, choice, _metrics(samples, judged, choice))

    @property
    def refusal(self) -> str:
        """Why no calibration may be fitted on these samples; empty when it may."""
        source = self.samples.model.source
        if not self.samples.model.base_model:
            return f"{source} is no version that is served: nothing could use a calibration of it"
        if self.samples.population != "random":
            missing = ENOUGH_RANDOM - self.samples.random
            return (
                f"a calibration takes {ENOUGH_RANDOM} pairs drawn at random and judged by "
                f"{source}, there are {self.samples.random}: {missing} more are wanted"
            )
        return ""

    def row(self, version: int | None) -> dict[str, object]:
        """The row of ``calibration_evaluations``; `version` is the calibration that was kept."""
        before, after = _brier(self.judged), _brier(self.choice.trial.unseen)
        return {
            "id": new_id("cev"),
            "source": self.samples.model.source,
            "brier_score": before,
            "brier_score_calibrated": after,
            "improvement_ratio": (before - after) / before if before else None,
            "expected_calibration_error": _ece(self.judged),
            "samples_evaluated": len(self.judged.labels),
            "bins_json": json.dumps(self._bars()),
            "calibration_version": None if version is None else str(version),
            "evaluated_at": now(),
        }

    def facts(self, version: int | None) -> dict[str, object]:
        """What an answer says beyond the row."""
        calibrator = self.choice.trial.calibrator
        return {
            "expected_calibration_error_calibrated": _ece(self.choice.trial.unseen),
            "method": calibrator.method,
            "slope": calibrator.params.get("slope"),
            "intercept": calibrator.params.get("intercept"),
            "refused": self.choice.refused,
            "metrics": self.metrics,
            "accepted": version is not None,
            "population": self.samples.population,
            "message": f"{self._verdict(version)} {self._caution()}{self.samples.words}",
        }

    def _bars(self) -> list[dict[str, object]]:
        """The bars, each with those of the corrected confidence between the same bounds."""
        after = self.choice.trial.unseen
        bars = diagram(self.judged.confidence, self.judged.hits)
        corrected = diagram(after.confidence, after.hits)
        return [
            {**asdict(bar), "calibrated": asdict(other)}
            for bar, other in zip(bars, corrected, strict=True)
        ]

    def _verdict(self, version: int | None) -> str:
        scores = (
            f"Brier score {_brier(self.judged):.4f}, calibrated "
            f"{_brier(self.choice.trial.unseen):.4f}"
        )
        method = self.choice.method
        words = "identity wins: the confidence is best as it is" if method == "identity" else method
        if version is None:
            return f"{scores} ({words}). No calibration was kept: {self.refusal}."
        return f"{scores}: calibration {version} ({words}) is current now."

    def _caution(self) -> str:
        n, groups = len(self.judged.labels), len(set(self.judged.groups))
        if tied := self.samples.tied:
            return (
                f"Shared pages and claims tie these {n} pairs into {tied} groups only, so every "
                "pair counts as independent: the intervals are too narrow, and the fit seems "
                "better than it is. "
            )
        if groups >= ENOUGH_GROUPS:
            return ""
        return f"These are {n} pairs in {groups} groups: the figures are no more than a hint. "


def _require(samples: Samples, wanted: int) -> None:
    found, source = len(samples.cases), samples.model.source
    if found >= wanted:
        return
    of = "" if source == EVERY_MODEL else f" of {source}"
    known = ", ".join(f"{name} ({count})" for name, count in samples.sources.items())
    raise FeedbackError(
        f"too few reviews{of} to evaluate: {found} with a known confidence so far, "
        f"{wanted} are wanted",
        code="too_few_reviews",
        parameter="min_samples",
        expected=f"{wanted} reviews with a known confidence",
        hint=f"Review {wanted - found} more edges. There are reviews of: {known or 'none'}.",
    )


def _metrics(samples: Samples, judged: Judged, choice: Choice) -> dict[str, object]:
    figures = {
        name: {key: asdict(each) for key, each in estimate(measures(one), one.groups).items()}
        for name, one in (("before", judged), ("after", choice.trial.unseen))
    }
    trials = {
        method: {"nll": trial.nll, "brier_change": trial.brier_change, "refusal": trial.refusal}
        for method, trial in choice.trials.items()
    }
    return {**figures, "population": samples.population, "trials": trials}


def _brier(judged: Judged) -> float:
    return float(np.mean((judged.confidence - judged.hits) ** 2))


def _ece(judged: Judged) -> float:
    """In the bars of the diagram, so that it can be checked against them by eye."""
    confidence = judged.confidence
    return calibration_error(confidence, judged.hits, by_width(confidence, BARS)).value
