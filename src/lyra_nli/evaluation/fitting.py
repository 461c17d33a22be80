"""Finding a calibrator's parameters on rows whose truth is known.

scikit-learn and scipy are imported when something is fitted: reading and applying need neither.
"""

from __future__ import annotations

from typing import Any, cast

import numpy as np

from lyra_nli.errors import ModelError
from lyra_nli.evaluation.arrays import Probabilities
from lyra_nli.evaluation.calibrators import IDENTITY, Calibrator, Method, log_of, logit
from lyra_nli.evaluation.judged import Judged


def fit(method: Method, judged: Judged) -> Calibrator:
    """Fit one method; n > 0. Temperature and vector need rows that are `Judged.whole`.

    Raises:
        ModelError: scikit-learn is not installed.
    """
    try:
        match method:
            case "identity":
                return IDENTITY
            case "temperature":
                return _temperature(judged)
            case "platt":
                return _platt(judged)
            case "isotonic":
                return _isotonic(judged)
            case "vector":
                return _vector(judged)
    except ModuleNotFoundError as error:
        raise ModelError(
            "fitting a calibration needs scikit-learn",
            hint="Install it with `pip install 'lyra-nli[mcp]'` (or [ml]).",
        ) from error


def _temperature(judged: Judged) -> Calibrator:
    """The temperature of the highest likelihood; the loss has one minimum along its logarithm.

    scikit-learn's own (CalibratedClassifierCV) finds the same, but wants every label among the
    rows.
    """
    from scipy.optimize import minimize_scalar

    logits, rows = log_of(judged.probabilities), np.arange(len(judged.labels))

    def loss(logarithm: float) -> float:
        return -float(_log_softmax(logits / np.exp(logarithm))[rows, judged.labels].mean())

    found = minimize_scalar(loss, bounds=(-5, 5), method="bounded", options={"xatol": 1e-6})
    return Calibrator("temperature", {"temperature": float(np.exp(found.x))})


def _platt(judged: Judged) -> Calibrator:
    """Logistic regression of the hits on the confidence's logit.

    Platt's smoothed targets, ``(k+1)/(k+2)`` for hits and ``1/(n-k+2)`` for the others, keep it
    finite when all rows, or none, are hits; a target between 0 and 1 is a row of each kind.
    """
    from sklearn.linear_model import LogisticRegression

    hits = judged.hits
    right, wrong = int(hits.sum()), int((~hits).sum())
    target = np.where(hits, (right + 1) / (right + 2), 1 / (wrong + 2))
    x = logit(judged.confidence)[:, None]
    model = LogisticRegression(C=np.inf, tol=1e-8, max_iter=1000).fit(
        np.vstack([x, x]),
        np.repeat([1, 0], len(hits)),
        sample_weight=np.concatenate([target, 1 - target]),
    )
    params = {"slope": float(model.coef_[0, 0]), "intercept": float(model.intercept_[0])}
    return Calibrator("platt", params)


def _isotonic(judged: Judged) -> Calibrator:
    """The rising steps of least squares; never 0 or 1, which no number of rows can show.

    Laplace's rule of succession bounds them by ``1/(n+2)`` and ``(n+1)/(n+2)``.
    """
    from sklearn.isotonic import IsotonicRegression

    least = 1 / (len(judged.labels) + 2)
    model = IsotonicRegression(y_min=least, y_max=1 - least, out_of_bounds="clip")
    model.fit(judged.confidence, judged.hits)
    params = {"knots": model.X_thresholds_.tolist(), "values": model.y_thresholds_.tolist()}
    return Calibrator("isotonic", params)


def _vector(judged: Judged) -> Calibrator:
    """Maximum likelihood with a standard normal prior around "changes nothing".

    The prior weighs as much as one row; without it, labels that can be told apart without error
    have no finite optimum.
    """
    from scipy.optimize import minimize

    logits = log_of(judged.probabilities)
    n, classes = logits.shape
    truth = np.eye(classes)[judged.labels]
    still = np.concatenate([np.ones(classes), np.zeros(classes)])

    def loss(parameters: Any) -> tuple[float, Any]:
        weights, biases = np.split(parameters, 2)
        logs = _log_softmax(logits * weights + biases)
        off = np.exp(logs) - truth
        gradient = np.concatenate([(off * logits).sum(axis=0), off.sum(axis=0)])
        moved = parameters - still
        value = -(logs * truth).sum() + moved @ moved / 2
        return float(value / n), (gradient + moved) / n

    found = minimize(loss, still, jac=True, method="L-BFGS-B", options={"maxiter": 500})
    weights, biases = np.split(found.x, 2)
    return Calibrator("vector", {"weights": weights.tolist(), "biases": biases.tolist()})


def _log_softmax(logits: Probabilities) -> Probabilities:
    below = logits - logits.max(axis=1, keepdims=True)
    return cast("Probabilities", below - np.log(np.exp(below).sum(axis=1, keepdims=True)))
