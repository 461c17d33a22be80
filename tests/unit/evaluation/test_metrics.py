"""Metrics against values worked out by hand, printed in papers, or given by scikit-learn."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import brier_score_loss, log_loss, precision_recall_fscore_support

from lyra_nli.evaluation.metrics import (
    Interval,
    brier,
    ece,
    mcnemar,
    nll,
    score,
    wilson,
)
from lyra_nli.labels import LABELS

TWO = np.array([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6]])


def random_case(seed: int, n: int = 200) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.dirichlet([0.7, 0.7, 0.7], size=n), rng.integers(0, 3, size=n)


class TestBrier:
    def test_by_hand(self):
        # .3² + .2² + .1² = .14 and .1² + .7² + .6² = .86
        assert brier(TWO, np.array([0, 1])) == pytest.approx(0.5)

    def test_runs_from_zero_to_two(self):
        certain = np.eye(3)
        assert brier(certain, np.array([0, 1, 2])) == 0
        assert brier(certain, np.array([1, 2, 0])) == 2
        assert brier(np.full((1, 3), 1 / 3), np.array([2])) == pytest.approx(2 / 3)

    @pytest.mark.parametrize("seed", range(3))
    def test_as_scikit_learn(self, seed):
        probabilities, labels = random_case(seed)
        expected = brier_score_loss(labels, probabilities, labels=[0, 1, 2], scale_by_half=False)
        assert brier(probabilities, labels) == pytest.approx(expected)


class TestNll:
    def test_by_hand(self):
        expected = -(math.log(0.7) + math.log(0.3)) / 2
        assert nll(TWO, np.array([0, 1])) == pytest.approx(expected)

    @pytest.mark.parametrize("seed", range(3))
    def test_as_scikit_learn(self, seed):
        probabilities, labels = random_case(seed)
        expected = log_loss(labels, probabilities, labels=[0, 1, 2])
        assert nll(probabilities, labels) == pytest.approx(expected)

    def test_certain_and_wrong_is_finite(self):
        assert nll(np.eye(3)[:1], np.array([1])) == pytest.approx(-math.log(1e-12))


class TestEce:
    def test_by_hand(self):
        # Four answers at .9 of which three are right, two at .6 of which one is.
        probabilities = np.array([[0.9, 0.05, 0.05]] * 4 + [[0.6, 0.3, 0.1]] * 2)
        labels = np.array([0, 0, 0, 1, 0, 1])
        assert ece(probabilities, labels) == pytest.approx(4 / 6 * 0.15 + 2 / 6 * 0.1)

    def test_over_and_under_confidence_of_one_bin_cancel(self):
        probabilities = np.array([[0.80, 0.1, 0.1], [0.82, 0.1, 0.08]])
        labels = np.array([0, 1])
        assert ece(probabilities, labels, bins=5) == pytest.approx(0.81 - 0.5)
        assert ece(probabilities, labels, bins=100) == pytest.approx((0.2 + 0.82) / 2)

    def test_a_bin_reaches_from_its_own_edge_to_the_next(self):
        # Of two bins, .6 and .9 are both in the upper one, and certainty is too.
        probabilities = np.array([[0.6, 0.3, 0.1], [0.9, 0.1, 0.0], [1.0, 0.0, 0.0]])
        expected = abs(2 / 3 - (0.6 + 0.9 + 1.0) / 3)
        assert ece(probabilities, np.array([0, 1, 0]), bins=2) == pytest.approx(expected)

    def test_certainty_belongs_to_the_last_bin(self):
        assert ece(np.eye(3), np.array([0, 1, 2])) == 0
        assert ece(np.eye(3), np.array([1, 2, 0])) == 1

    def test_a_calibrated_model_has_almost_none(self):
        rng = np.random.default_rng(0)
        probabilities = rng.dirichlet([1, 1, 1], size=40_000)
        labels = (rng.random((40_000, 1)) > probabilities.cumsum(axis=1)[:, :2]).sum(axis=1)
        assert ece(probabilities, labels) < 0.02
        sharpened = probabilities**3 / (probabilities**3).sum(axis=1, keepdims=True)
        assert ece(sharpened, labels) > 0.1


class TestWilson:
    @pytest.mark.parametrize(
        ("hits", "n", "low", "high"),
        [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611),
         (1, 29, 0.0061, 0.1718)],
    )  # fmt: skip
    def test_newcombes_examples(self, hits, n, low, high):
        """Newcombe (1998), Two-sided confidence intervals for the single proportion, table I."""
        interval = wilson(hits, n)
        assert interval.value == pytest.approx(hits / n)
        assert (interval.low, interval.high) == (
            pytest.approx(low, abs=5e-5),
            pytest.approx(high, abs=5e-5),
        )
        assert interval.n == n

    def test_seventeen_of_twenty_do_not_show_085(self):
        interval = wilson(17, 20)
        assert (round(interval.low, 2), round(interval.high, 2)) == (0.64, 0.95)

    def test_nothing_counted_says_nothing(self):
        interval = wilson(0, 0)
        assert interval == Interval(0.0, 0.0, 1.0, n=0)  # valid JSON, unlike a NaN

    @given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
    def test_the_share_lies_within(self, counted):
        interval = wilson(*counted)
        assert 0 <= interval.low <= interval.value + 1e-12
        assert interval.value - 1e-12 <= interval.high <= 1
        assert interval.low < interval.high


class TestMcNemar:
    def test_by_hand(self):
        # 10, 11 or 12 heads of 12: (66 + 12 + 1) / 2^12
        assert mcnemar(10, 2) == pytest.approx(79 / 4096)
        assert mcnemar(5, 0) == pytest.approx(1 / 32)
        assert mcnemar(0, 5) == pytest.approx(1)
        assert mcnemar(0, 0) == 1

    @given(st.integers(0, 60), st.integers(0, 60))
    def test_both_directions_and_the_tie_make_one(self, fixed, broken):
        total = fixed + broken
        tie = math.comb(total, fixed) / 2**total
        assert mcnemar(fixed, broken) + mcnemar(broken, fixed) == pytest.approx(1 + tie)


class TestScore:
    @pytest.mark.parametrize("seed", range(3))
    def test_recall_and_precision_as_scikit_learn(self, seed):
        probabilities, labels = random_case(seed)
        scores = score(probabilities, labels)
        precision, recall, _, _ = precision_recall_fscore_support(
            labels, probabilities.argmax(axis=1), labels=[0, 1, 2]
        )
        assert [scores.precision[label] for label in LABELS] == pytest.approx(list(precision))
        assert [scores.recall[label] for label in LABELS] == pytest.approx(list(recall))

    def test_holds_all_metrics_of_the_same_rows(self):
        probabilities, labels = random_case(7)
        scores = score(probabilities, labels)
        assert scores.n == scores.accuracy.n == 200
        assert scores.accuracy.value == np.mean(probabilities.argmax(axis=1) == labels)
        assert scores.brier == brier(probabilities, labels)
        assert scores.nll == nll(probabilities, labels)
        assert scores.ece == ece(probabilities, labels)

    def test_a_label_that_never_occurs_has_no_figure(self):
        scores = score(np.eye(3)[[0, 0, 1]], np.array([0, 1, 1]))
        assert scores.recall == {"supports": 1.0, "refutes": 0.5, "neutral": None}
        assert scores.precision == {"supports": 0.5, "refutes": 1.0, "neutral": None}
        assert scores.to_dict()["accuracy"]["n"] == 3
