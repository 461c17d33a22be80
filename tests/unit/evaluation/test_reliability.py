"""Calibration errors against values worked out by hand, scikit-learn, and simulation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve

from lyra_nli.evaluation.intervals import wilson
from lyra_nli.evaluation.reliability import (
    by_mass,
    by_width,
    calibration_error,
    classwise_error,
    debiased_error,
    diagram,
)


def honest(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities that come true as often as they say."""
    random = np.random.default_rng(seed)
    said = random.uniform(0.35, 0.99, n)
    return said, random.random(n) < said


def overconfident(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    said, _ = honest(n, seed)
    return said, np.random.default_rng(seed + 1).random(n) < said**2


def test_bars_hold_every_row_once_with_their_means() -> None:
    confidence = np.array([0.0, 0.09, 0.1, 0.95, 1.0])
    bars = diagram(confidence, np.array([True, False, True, True, False]))
    assert [bar.n for bar in bars] == [2, 1, 0, 0, 0, 0, 0, 0, 0, 2]
    assert (bars[0].low, bars[0].high, bars[-1].high) == (0.0, 0.1, 1.0)
    assert bars[0].confidence == pytest.approx(0.045)
    assert bars[9].accuracy == 0.5
    share = wilson(1, 2)
    assert (bars[9].accuracy_low, bars[9].accuracy_high) == (share.low, share.high)
    assert (bars[4].confidence, bars[4].accuracy, bars[4].accuracy_low) == (None, None, None)


def test_the_error_by_hand() -> None:
    said = np.array([0.9, 0.92, 0.6, 0.62])
    true = np.array([True, False, True, True])
    # two bins of two rows: |0.91 - 0.5| and |0.61 - 1|, half of the rows each
    assert calibration_error(said, true, by_width(said, 10)).value == pytest.approx(0.4)


@pytest.mark.parametrize(("cut", "strategy"), [(by_width, "uniform"), (by_mass, "quantile")])
@pytest.mark.parametrize("seed", range(3))
def test_the_error_is_that_of_scikit_learns_curve(cut, strategy, seed) -> None:
    said, true = overconfident(402, seed)  # no row lies on the edge of a bin
    shares, means = calibration_curve(true, said, n_bins=12, strategy=strategy)
    place = cut(said, 12)
    weights = np.bincount(place)[np.unique(place)] / 402
    expected = float((weights * np.abs(shares - means)).sum())
    assert calibration_error(said, true, place).value == pytest.approx(expected)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=60))
def test_errors_are_shares_and_bins_of_equal_mass_keep_ties_together(rows) -> None:
    said = np.array([row[0] for row in rows])
    true = np.array([row[1] for row in rows])
    place = by_mass(said, 5)
    for value in np.unique(said):
        assert len(set(place[said == value])) == 1
    assert (np.diff(place[np.argsort(said, kind="stable")]) >= 0).all()
    for cut in (by_width(said), place):
        for error in (calibration_error, debiased_error):
            assert 0 <= error(said, true, cut).value <= 1


def test_bins_of_equal_mass_hold_equally_many_rows() -> None:
    said = np.random.default_rng(1).random(300) ** 4
    assert np.bincount(by_mass(said, 10)).tolist() == [30] * 10


def test_the_debiased_error_is_what_simulated_noise_leaves() -> None:
    said, true = overconfident(300, 3)
    place = by_width(said, 10)
    plain = calibration_error(said, true, place).value
    random, simulated = np.random.default_rng(0), np.zeros(20_000)
    for index in np.unique(place):
        inside = place == index
        n, share = inside.sum(), true[inside].mean()
        noisy = random.normal(share, np.sqrt(share * (1 - share) / n), 20_000)
        simulated += n / 300 * np.abs(noisy - said[inside].mean())
    expected = plain - (simulated.mean() - plain)
    assert debiased_error(said, true, place).value == pytest.approx(expected, abs=0.001)


def test_the_debiased_error_of_an_honest_model_is_nearer_to_zero() -> None:
    plain, debiased = [], []
    for seed in range(200):
        said, true = honest(200, seed)
        place = by_width(said)
        plain.append(calibration_error(said, true, place).value)
        debiased.append(debiased_error(said, true, place).value)
    assert np.mean(plain) > 0.07
    assert np.mean(debiased) < 0.65 * np.mean(plain)


def test_the_debiased_error_finds_what_is_there() -> None:
    found = []
    for seed in range(100):
        said, _ = honest(400, seed)
        true = np.random.default_rng(seed + 500).random(400) < said - 0.15
        found.append(debiased_error(said, true, by_width(said)).value)
    assert np.mean(found) == pytest.approx(0.15, abs=0.01)


def test_classwise_by_hand() -> None:
    probabilities = np.array([[0.7, 0.2, 0.1], [0.7, 0.2, 0.1]])
    # class 0: |0.7 - 0.5|; class 1: |0.2 - 0.5|; class 2: |0.1 - 0|
    expected = (0.2 + 0.3 + 0.1) / 3
    labels = np.array([0, 1])
    assert classwise_error(probabilities, labels).value == pytest.approx(expected)
    assert classwise_error(probabilities, labels, equal_mass=True).value == pytest.approx(expected)


def test_classwise_is_the_mean_of_the_classes() -> None:
    random = np.random.default_rng(2)
    probabilities, labels = random.dirichlet([1, 1, 1], 300), random.integers(0, 3, 300)
    each = [
        calibration_error(said, labels == k, by_width(said)).value
        for k, said in enumerate(probabilities.T)
    ]
    assert classwise_error(probabilities, labels).value == pytest.approx(np.mean(each))
