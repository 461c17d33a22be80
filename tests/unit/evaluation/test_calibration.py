"""Calibration against textbook values, scipy, and data whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats
from scipy.special import expit, logit

from lyra_nli.evaluation.calibration import (
    Platt,
    brier,
    ece,
    fit_platt,
    out_of_fold,
    reliability,
    wilson,
)
from lyra_nli.evaluation.metrics import ece as ece_of_three


def overconfident(n: int = 4000, seed: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """A model whose logits are twice too large: the right curve has slope 0.5."""
    random = np.random.default_rng(seed)
    truth = random.uniform(0.35, 0.98, n)
    return expit(2 * logit(truth)), random.random(n) < truth


def test_brier_by_hand() -> None:
    assert brier(np.array([1.0, 0.5, 0.8]), np.array([True, False, False])) == pytest.approx(
        (0 + 0.25 + 0.64) / 3
    )


def test_bars_hold_every_row_once_with_their_means() -> None:
    confidence = np.array([0.0, 0.09, 0.1, 0.95, 1.0])
    bars = reliability(confidence, np.array([True, False, True, True, False]))
    assert [bar.n for bar in bars] == [2, 1, 0, 0, 0, 0, 0, 0, 0, 2]
    assert (bars[0].low, bars[0].high, bars[-1].high) == (0.0, 0.1, 1.0)
    assert bars[0].confidence == pytest.approx(0.045)
    assert bars[9].accuracy == 0.5
    assert (bars[4].confidence, bars[4].accuracy, bars[4].accuracy_low) == (None, None, None)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.floats(1 / 3, 1), st.booleans()), min_size=1, max_size=60))
def test_ece_is_that_of_the_metrics(rows: list[tuple[float, bool]]) -> None:
    confidence = np.array([row[0] for row in rows])
    hits = np.array([row[1] for row in rows])
    rest = (1 - confidence) / 2
    three = np.column_stack([confidence, rest, rest])
    labels = np.where(hits, 0, 1)
    bars = reliability(three.max(axis=1), three.argmax(axis=1) == labels, bins=15)
    assert ece(bars) == pytest.approx(ece_of_three(three, labels, bins=15))


def test_no_rows_have_no_error() -> None:
    assert ece(reliability(np.array([]), np.array([], dtype=bool))) == 0.0


@pytest.mark.parametrize(("hits", "n"), [(0, 1), (1, 1), (17, 20), (0, 500), (500, 500), (3, 7)])
def test_wilson_is_scipys(hits: int, n: int) -> None:
    theirs = stats.binomtest(hits, n).proportion_ci(method="wilson")
    assert wilson(hits, n) == pytest.approx((theirs.low, theirs.high), abs=1e-12)


def test_platt_finds_the_minimum_that_scipy_finds() -> None:
    confidence, hits = overconfident(300)
    right, wrong = hits.sum(), (~hits).sum()
    target = np.where(hits, (right + 1) / (right + 2), 1 / (wrong + 2))

    def loss(parameters: np.ndarray) -> float:
        z = parameters[0] * logit(confidence) + parameters[1]
        return float(np.sum(np.logaddexp(0, z) - target * z))

    theirs = optimize.minimize(loss, [0.0, 0.0], method="BFGS", options={"gtol": 1e-9}).x
    ours = fit_platt(confidence, hits)
    assert (ours.slope, ours.intercept) == pytest.approx(tuple(theirs), abs=1e-4)


def test_platt_undoes_what_was_done_to_the_logits() -> None:
    curve = fit_platt(*overconfident(40_000))
    assert curve.slope == pytest.approx(0.5, abs=0.03)
    assert curve.intercept == pytest.approx(0.0, abs=0.05)


def test_the_identity_curve_changes_nothing() -> None:
    confidence = np.array([0.0, 0.34, 0.9, 1.0])
    assert Platt(1.0, 0.0)(confidence) == pytest.approx(confidence, abs=1e-5)


@pytest.mark.parametrize("hits", [[True] * 6, [False] * 6, [True, False] * 3, [True]])
@pytest.mark.parametrize("spread", [0.0, 0.3])
def test_platt_stays_finite_and_near_the_share_of_hits(hits: list[bool], spread: float) -> None:
    confidence = np.linspace(0.6, 0.6 + spread, len(hits))
    calibrated = fit_platt(confidence, np.array(hits))(confidence)
    assert np.isfinite(calibrated).all()
    assert calibrated.mean() == pytest.approx(np.mean(hits), abs=1 / (len(hits) + 1))


def test_platt_separates_without_running_away() -> None:
    confidence = np.array([0.0, 0.4, 0.5, 0.9, 1.0, 1.0])
    curve = fit_platt(confidence, confidence > 0.45)
    assert 0 < curve.slope < 1000


def test_out_of_fold_values_do_not_see_their_own_row() -> None:
    confidence, hits = overconfident(60)
    groups = [f"g{n % 20:02}" for n in range(60)]
    before = out_of_fold(confidence, hits, groups)
    flipped = hits.copy()
    own = np.array([group == "g07" for group in groups])
    flipped[own] = ~flipped[own]
    after = out_of_fold(confidence, flipped, groups)
    assert after[own] == pytest.approx(before[own], abs=0)
    assert np.abs(after - before).max() > 1e-4  # the other folds did see it


def test_out_of_fold_helps_an_overconfident_model_and_not_an_honest_one() -> None:
    confidence, hits = overconfident()
    groups = [str(n) for n in range(len(hits))]
    calibrated = out_of_fold(confidence, hits, groups)
    assert brier(calibrated, hits) < brier(confidence, hits) - 0.005
    assert ece(reliability(calibrated, hits)) < ece(reliability(confidence, hits)) / 3
    honest = np.random.default_rng(1).uniform(0.35, 0.98, 4000)
    hits = np.random.default_rng(2).random(4000) < honest
    again = out_of_fold(honest, hits, groups)
    assert brier(again, hits) == pytest.approx(brier(honest, hits), abs=0.002)


def test_one_group_can_not_be_validated() -> None:
    with pytest.raises(ValueError, match="two groups"):
        out_of_fold(np.array([0.5, 0.6]), np.array([True, False]), ["a", "a"])
