"""Calibrators: what turns a model's probabilities into ones that mean what they say.

Throughout: `probabilities` is float64 [n, 3], rows sum to 1, columns in the order of ``LABELS``;
`chosen` is int [n], the label that the model answered with. Only numpy: the server applies one to
every answer. `lyra_nli.evaluation.fitting` finds their parameters.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

import numpy as np

from lyra_nli.evaluation.arrays import Confidence, Labels, Probabilities

Method = Literal["identity", "temperature", "platt", "isotonic", "vector"]
METHODS: Final[tuple[Method, ...]] = get_args(Method)
"""The simplest first: it wins where two do equally well."""

_EDGE = 1e-6
"""Confidences are kept this far from 0 and 1, where a logit has no end."""

_LEAST = 1e-12
"""What a probability of 0 counts as, where its logarithm is taken."""


@dataclass(frozen=True, slots=True)
class Calibrator:
    """A method with its parameters; calling it calibrates.

    =============  ===================  ====================================================
    method         params               what it does
    =============  ===================  ====================================================
    identity                            nothing
    temperature    temperature          ``softmax(log p / temperature)``
    vector         weights, biases      ``softmax(weights * log p + biases)``, three of each
    platt          slope, intercept     ``sigmoid(slope * logit p + intercept)``
    isotonic       knots, values        rises from knot to knot, straight in between
    =============  ===================  ====================================================

    Temperature and vector: Guo et al. (2017), On calibration of modern neural networks
    (arXiv:1706.04599), on log-probabilities, which are logits up to a constant of the row.
    Platt (1999), Probabilistic outputs for support vector machines, and isotonic (Zadrozny &
    Elkan, 2002) say how likely the chosen label is to be right; the two others keep their
    proportions.

    The chosen label stays the model's: calibration says how far to believe it.
    """

    method: Method
    params: Mapping[str, Any]

    @classmethod
    def read(cls, method: str, params: Mapping[str, Any]) -> Calibrator:
        """Make one from what was kept as JSON.

        Raises:
            ValueError: it is none that gives probabilities.
        """
        if method not in METHODS:
            raise ValueError(f"unknown method {method!r}: expected one of {', '.join(METHODS)}")
        calibrator = cls(method, params)
        try:
            answer = calibrator(np.array([[0.5, 0.3, 0.2]]))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"the parameters of {method} can't be read: {error!r}") from error
        if not np.allclose(answer.sum(axis=1), 1.0):  # also where they are no numbers
            raise ValueError(f"the parameters of {method} give no probabilities")
        return calibrator

    def __call__(self, probabilities: Probabilities, chosen: Labels | None = None) -> Probabilities:
        """Calibrated probabilities, [n, 3].

        Args:
            chosen: the most probable label where it is None.
        """
        match self.method:
            case "identity":
                return probabilities
            case "temperature":
                return _softmax(log_of(probabilities) / self.params["temperature"])
            case "vector":
                weights, biases = (np.asarray(self.params[key]) for key in ("weights", "biases"))
                return _softmax(log_of(probabilities) * weights + biases)
            case "platt" | "isotonic":
                chosen = probabilities.argmax(axis=1) if chosen is None else chosen
                return _lift(probabilities, chosen, self.curve(_of(probabilities, chosen)))

    def confidence(self, probabilities: Probabilities, chosen: Labels | None = None) -> Confidence:
        """How likely the chosen label is to be right, [n]; arguments as in a call."""
        chosen = probabilities.argmax(axis=1) if chosen is None else chosen
        return _of(self(probabilities, chosen), chosen)

    def curve(self, confidence: Confidence) -> Confidence:
        """Calibrate the confidence alone, [n] -> [n]: platt and isotonic need no more."""
        if self.method == "platt":
            z = self.params["slope"] * logit(confidence) + self.params["intercept"]
            return np.asarray(0.5 * (1 + np.tanh(0.5 * z)), dtype=np.float64)  # never overflows
        values = np.interp(confidence, self.params["knots"], self.params["values"])
        return np.asarray(values, dtype=np.float64)


IDENTITY: Final = Calibrator("identity", {})


def logit(confidence: Confidence) -> Confidence:
    """``log(p / (1 - p))``, finite also for 0 and 1."""
    inside = np.clip(confidence, _EDGE, 1 - _EDGE)
    return np.asarray(np.log(inside / (1 - inside)), dtype=np.float64)


def log_of(probabilities: Probabilities) -> Probabilities:
    """Log-probabilities, finite also for 0."""
    return np.asarray(np.log(np.maximum(probabilities, _LEAST)), dtype=np.float64)


def _of(probabilities: Probabilities, chosen: Labels) -> Confidence:
    return np.asarray(probabilities[np.arange(len(chosen)), chosen], dtype=np.float64)


def _lift(probabilities: Probabilities, chosen: Labels, confidence: Confidence) -> Probabilities:
    """Give the chosen label that confidence, and the others the rest as they shared it before."""
    others = probabilities.copy()
    others[np.arange(len(chosen)), chosen] = 0.0
    rest = others.sum(axis=1, keepdims=True)
    none_left = np.full_like(others, 0.5)  # the model was certain: there are no proportions
    shares = np.where(rest > 0, others / np.where(rest > 0, rest, 1.0), none_left)
    lifted = shares * (1 - confidence)[:, None]
    lifted[np.arange(len(chosen)), chosen] = confidence
    return np.asarray(lifted, dtype=np.float64)


def _softmax(logits: Probabilities) -> Probabilities:
    raised = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=1, keepdims=True), dtype=np.float64)
