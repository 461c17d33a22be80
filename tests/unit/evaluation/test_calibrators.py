"""Calibrators: fitted as scikit-learn and scipy fit them, applied as their formulas say."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from scipy import optimize
from scipy.special import expit, log_softmax, logit, softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator

from lyra_nli.evaluation.calibrators import IDENTITY, METHODS, Calibrator
from lyra_nli.evaluation.fitting import fit
from lyra_nli.evaluation.judged import Judged

ROWS = np.array([[0.6, 0.3, 0.1], [0.1, 0.1, 0.8], [0.0, 1.0, 0.0]])


def overconfident(n: int = 600, seed: int = 3, factor: float = 2.0) -> Judged:
    """A model whose logits are too large by a factor."""
    random = np.random.default_rng(seed)
    logits = random.normal(0, 1.5, (n, 3))
    truth = softmax(logits, axis=1)
    labels = np.array([random.choice(3, p=row) for row in truth])
    said = softmax(factor * logits, axis=1)
    return Judged(said, said.argmax(axis=1), labels, [f"g{i}" for i in range(n)])


class Scores(ClassifierMixin, BaseEstimator):
    """A fitted classifier whose scores are its input."""

    def __init__(self, classes=(0, 1, 2)):
        self.classes = classes

    def fit(self, x, y):
        return self

    def __sklearn_is_fitted__(self):
        return True

    @property
    def classes_(self):
        return np.array(self.classes)

    def predict(self, x):
        return self.classes_[x.argmax(axis=1)]

    def decision_function(self, x):
        return x if len(self.classes) > 2 else x[:, 0]


def scikit_learns(method: str, scores: np.ndarray, truth: np.ndarray) -> np.ndarray:
    frozen = FrozenEstimator(Scores(tuple(np.unique(truth))))
    model = CalibratedClassifierCV(frozen, method=method).fit(scores, truth)
    return model.predict_proba(scores)


# --- applying -----------------------------------------------------------------------------


def test_identity_changes_nothing() -> None:
    assert IDENTITY(ROWS) is ROWS
    assert IDENTITY.confidence(ROWS) == pytest.approx([0.6, 0.8, 1.0])


def test_temperature_by_hand() -> None:
    calibrated = Calibrator("temperature", {"temperature": 2.0})(ROWS)
    roots = np.sqrt(ROWS[:2])
    assert calibrated[:2] == pytest.approx(roots / roots.sum(axis=1, keepdims=True))
    assert calibrated[2] == pytest.approx([0, 1, 0], abs=1e-5)


def test_vector_by_hand() -> None:
    calibrator = Calibrator("vector", {"weights": [1.0, 1.0, 2.0], "biases": [0.0, np.log(2), 0.0]})
    odd = np.array([0.6, 2 * 0.3, 0.1**2])
    assert calibrator(ROWS)[0] == pytest.approx(odd / odd.sum())


def test_platt_lifts_the_chosen_label_and_the_others_keep_their_proportions() -> None:
    calibrator = Calibrator("platt", {"slope": 0.5, "intercept": 0.1})
    calibrated = calibrator(ROWS)
    top = expit(0.5 * logit(0.6) + 0.1)
    assert calibrated[0] == pytest.approx([top, (1 - top) * 3 / 4, (1 - top) / 4])
    assert calibrated[2, 0] == calibrated[2, 2] == pytest.approx((1 - calibrated[2, 1]) / 2)
    assert calibrator.confidence(ROWS) == pytest.approx(calibrator.curve(ROWS.max(axis=1)))


def test_isotonic_is_straight_between_its_knots() -> None:
    calibrator = Calibrator("isotonic", {"knots": [0.5, 0.7, 0.9], "values": [0.2, 0.4, 0.8]})
    given = np.array([0.1, 0.5, 0.6, 0.8, 1.0])
    assert calibrator.curve(given) == pytest.approx([0.2, 0.2, 0.3, 0.6, 0.8])


def test_another_label_than_the_most_probable_may_have_been_chosen() -> None:
    calibrator = Calibrator("platt", {"slope": 1.0, "intercept": 1.0})
    calibrated = calibrator(ROWS[:1], np.array([1]))
    assert calibrated[0, 1] == pytest.approx(expit(logit(0.3) + 1))
    assert calibrated[0, 0] / calibrated[0, 2] == pytest.approx(6)
    assert calibrator.confidence(ROWS[:1], np.array([1])) == pytest.approx(calibrated[0, 1])


@pytest.mark.parametrize("method", METHODS)
def test_every_answer_is_a_distribution_and_survives_json(method) -> None:
    calibrator = fit(method, overconfident(120))
    random = np.random.default_rng(0)
    rows = np.vstack([random.dirichlet([0.2] * 3, 500), np.eye(3), np.full((1, 3), 1 / 3)])
    calibrated = calibrator(rows)
    assert calibrated.shape == rows.shape
    assert calibrated.dtype == np.float64
    assert calibrated.sum(axis=1) == pytest.approx(np.ones(len(rows)))
    assert (calibrated >= 0).all()
    again = Calibrator.read(method, json.loads(json.dumps(calibrator.params)))
    assert (again(rows) == calibrated).all()
    assert calibrator(rows[:0]).shape == (0, 3)


@pytest.mark.parametrize(
    ("method", "params", "why"),
    [
        ("beta", {}, "unknown method"),
        ("temperature", {}, "can't be read"),
        ("temperature", {"temperature": "hot"}, "can't be read"),
        ("temperature", {"temperature": float("nan")}, "no probabilities"),
        ("platt", {"slope": 1.0}, "can't be read"),
        ("vector", {"weights": [1, 1], "biases": [0, 0, 0]}, "can't be read"),
        ("isotonic", {"knots": [0.5, 0.6], "values": [0.5]}, "can't be read"),
    ],
)
def test_what_is_no_calibrator_is_not_read(method, params, why) -> None:
    with pytest.raises(ValueError, match=why):
        Calibrator.read(method, params)


# --- fitting ------------------------------------------------------------------------------


def test_the_temperature_is_scikit_learns_and_the_true_one() -> None:
    judged = overconfident()
    theirs = scikit_learns("temperature", np.log(judged.probabilities), judged.labels)
    assert fit("temperature", judged)(judged.probabilities) == pytest.approx(theirs, abs=1e-4)
    large = fit("temperature", overconfident(20_000))
    assert large.params["temperature"] == pytest.approx(2.0, abs=0.06)


def test_a_temperature_needs_no_row_of_every_label() -> None:
    judged = overconfident()
    two = judged.labels < 2
    rows = Judged(
        judged.probabilities[two], judged.chosen[two], judged.labels[two], ["g"] * int(two.sum())
    )
    assert np.isfinite(fit("temperature", rows).params["temperature"])


def test_platt_is_scikit_learns_and_scipys() -> None:
    judged = overconfident(300)
    hits = judged.hits
    z = logit(judged.confidence)
    theirs = scikit_learns("sigmoid", z[:, None], hits.astype(int))[:, 1]
    ours = fit("platt", judged)
    assert ours.curve(judged.confidence) == pytest.approx(theirs, abs=1e-3)
    right, wrong = hits.sum(), (~hits).sum()
    target = np.where(hits, (right + 1) / (right + 2), 1 / (wrong + 2))

    def loss(parameters: np.ndarray) -> float:
        line = parameters[0] * z + parameters[1]
        return float(np.sum(np.logaddexp(0, line) - target * line))

    best = optimize.minimize(loss, [0.0, 0.0], method="BFGS", options={"gtol": 1e-9}).x
    assert (ours.params["slope"], ours.params["intercept"]) == pytest.approx(tuple(best), abs=1e-4)


@pytest.mark.parametrize("hits", [[True] * 6, [False] * 6, [True, False] * 3, [True]])
@pytest.mark.parametrize("spread", [0.0, 0.3])
@pytest.mark.parametrize("method", METHODS)
def test_a_fit_stays_finite_and_platt_near_the_share_of_hits(method, hits, spread) -> None:
    confidence = np.linspace(0.6, 0.6 + spread, len(hits))
    probabilities = np.column_stack([confidence, (1 - confidence) * 0.7, (1 - confidence) * 0.3])
    judged = Judged(
        probabilities,
        np.zeros(len(hits), dtype=int),
        np.where(hits, 0, 1),
        [str(i) for i in range(len(hits))],
    )
    calibrated = fit(method, judged).confidence(probabilities)
    assert np.isfinite(calibrated).all()
    if method == "platt":
        assert calibrated.mean() == pytest.approx(np.mean(hits), abs=1 / (len(hits) + 1))


def test_isotonic_is_scikit_learns_but_never_certain() -> None:
    judged = overconfident(300)
    theirs = scikit_learns("isotonic", judged.confidence[:, None], judged.hits.astype(int))[:, 1]
    least = 1 / 302
    ours = fit("isotonic", judged).curve(judged.confidence)
    assert ours == pytest.approx(np.clip(theirs, least, 1 - least), abs=1e-6)
    assert ours.min() > 0
    assert ours.max() < 1


def test_vector_finds_the_weights_and_biases_that_were_put_in() -> None:
    judged = overconfident(20_000, factor=1.0)
    weights, biases = np.array([2.0, 1.5, 1.0]), np.array([0.5, 0.0, -0.5])
    logits = (np.log(judged.probabilities) - biases) / weights
    skewed = log_softmax(logits, axis=1)
    found = fit("vector", replace(judged, probabilities=np.exp(skewed)))
    calibrated = found(np.exp(skewed))
    assert np.abs(calibrated - judged.probabilities).mean() < 0.03
    assert found.params["weights"][0] > found.params["weights"][2]


def test_vector_is_at_the_minimum() -> None:
    judged = overconfident(200)
    found = fit("vector", judged)
    point = np.array([*found.params["weights"], *found.params["biases"]])
    logs, rows = np.log(judged.probabilities), np.arange(200)

    def loss(at: np.ndarray) -> float:
        answer = log_softmax(logs * at[:3] + at[3:], axis=1)
        return (
            -answer[rows, judged.labels].sum() + ((at[:3] - 1) @ (at[:3] - 1) + at[3:] @ at[3:]) / 2
        )

    for step in np.vstack([np.eye(6), -np.eye(6)]) * 0.01:
        assert loss(point + step) > loss(point)
