"""Which calibrator wins, on data whose truth is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import expit, logit
from test_calibrators import overconfident

from lyra_nli.evaluation.choosing import attempt, choose
from lyra_nli.evaluation.judged import Judged, measures, shared


def by_confidence(confidence: np.ndarray, share: np.ndarray, seed: int = 1) -> Judged:
    """A model that always answers the first label, and is right in that share of the cases."""
    n = len(confidence)
    labels = np.where(np.random.default_rng(seed).random(n) < share, 0, 1)
    chosen = np.zeros(n, dtype=int)
    names = [f"g{i}" for i in range(n)]
    return Judged(shared(confidence, chosen), chosen, labels, names, whole=False)


def test_temperature_wins_where_the_logits_are_too_large() -> None:
    judged = overconfident(2000)
    choice = choose(judged)
    assert choice.method in ("temperature", "vector")
    before, after = measures(judged), measures(choice.trial.unseen)
    for name in ("nll", "brier", "confidence_brier", "ece", "ece_mass", "ece_debiased"):
        assert after[name].value < before[name].value, name
    assert after["ece"].value < before["ece"].value / 3
    assert after["accuracy"].value == before["accuracy"].value


def test_an_honest_model_is_hardly_changed() -> None:
    judged = overconfident(2000, factor=1.0)
    choice = choose(judged)
    calibrated = choice.trial.calibrator.confidence(judged.probabilities)
    assert np.abs(calibrated - judged.confidence).mean() < 0.03


def test_identity_wins_where_nothing_can_be_gained() -> None:
    confidence = np.full(400, 0.75)
    hits = np.arange(400) % 4 > 0  # exactly three of four, in every fold nearly so
    assert choose(by_confidence(confidence, hits)).method == "identity"


def test_platt_wins_where_only_the_confidence_is_off() -> None:
    confidence = np.random.default_rng(4).uniform(0.4, 0.99, 1500)
    choice = choose(by_confidence(confidence, expit(0.4 * logit(confidence) - 0.5)))
    assert set(choice.trials) == {"identity", "platt", "isotonic"}
    assert choice.method == "platt"


def test_isotonic_wins_where_the_truth_is_a_step() -> None:
    confidence = np.random.default_rng(5).uniform(0.4, 0.99, 1500)
    judged = by_confidence(confidence, np.where(confidence > 0.9, 0.97, 0.3))
    assert choose(judged).method == "isotonic"


def test_a_curve_that_turns_the_order_round_is_refused() -> None:
    confidence = np.random.default_rng(6).uniform(0.4, 0.99, 800)
    choice = choose(by_confidence(confidence, 1.2 - confidence))
    assert "higher confidence" in choice.refused["platt"]
    assert choice.method != "platt"


def test_a_method_that_makes_the_brier_score_worse_is_refused() -> None:
    """The groups' names put all hits into some folds, so that every fit is of another world."""
    confidence = np.repeat([0.62, 0.6], 50)
    names = [str(i % 5) for i in range(100)]
    hits = np.array([int(name) < 3 or i in (3, 8) for i, name in enumerate(names)])
    choice = choose(replace(by_confidence(confidence, hits), groups=names))
    assert "Brier score grows" in choice.refused["platt"]
    assert choice.method == "identity"
    assert choice.trials["identity"].brier_change == 0


def test_out_of_fold_values_do_not_see_their_own_group() -> None:
    judged = replace(overconfident(60), groups=[f"g{n % 20:02}" for n in range(60)])
    own = np.array([group == "g07" for group in judged.groups])
    flipped = replace(judged, labels=np.where(own, (judged.labels + 1) % 3, judged.labels))
    for method in ("temperature", "platt", "vector", "isotonic"):
        before = attempt(method, judged).unseen.probabilities
        after = attempt(method, flipped).unseen.probabilities
        assert after[own] == pytest.approx(before[own], abs=0)
        assert np.abs(after - before).max() > 1e-4  # the other folds did see it


def test_one_group_can_not_be_validated() -> None:
    with pytest.raises(ValueError, match="two groups"):
        choose(replace(overconfident(20), groups=["a"] * 20))
