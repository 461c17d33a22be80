"""The decomposition of the Brier score, by hand and by its identities."""

from __future__ import annotations

import numpy as np
import pytest

from lyra_nli.evaluation.judged import Judged, measures, shared
from lyra_nli.evaluation.scoring import brier, decomposition


def parts(probabilities: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    return {name: part.value for name, part in decomposition(probabilities, labels).items()}


def test_by_hand() -> None:
    # Two forecasts of two rows each. (0.8, 0.2, 0): came true 1 of 2; (0.2, 0.8, 0): 2 of 2.
    probabilities = np.array([[0.8, 0.2, 0.0]] * 2 + [[0.2, 0.8, 0.0]] * 2)
    labels = np.array([0, 1, 1, 1])
    found = parts(probabilities, labels)
    # class 0: 0.5*(0.8-0.5)² + 0.5*(0.2-0)² = 0.065, and the same for class 1
    assert found["reliability"] == pytest.approx(0.13)
    # class 0, base rate 1/4: 0.5*(0.5-0.25)² + 0.5*(0-0.25)² = 0.0625, class 1 likewise
    assert found["resolution"] == pytest.approx(0.125)
    assert found["uncertainty"] == pytest.approx(2 * 0.25 * 0.75)
    assert found["remainder"] == pytest.approx(0)
    assert brier(probabilities, labels) == pytest.approx(0.13 - 0.125 + 0.375)


@pytest.mark.parametrize("seed", range(4))
def test_the_parts_add_up_and_the_remainder_is_small(seed: int) -> None:
    random = np.random.default_rng(seed)
    probabilities, labels = random.dirichlet([1, 1, 1], 500), random.integers(0, 3, 500)
    found = parts(probabilities, labels)
    total = found["reliability"] - found["resolution"] + found["uncertainty"] + found["remainder"]
    assert total == pytest.approx(brier(probabilities, labels))
    assert abs(found["remainder"]) < 0.02
    rates = np.bincount(labels) / 500
    assert found["uncertainty"] == pytest.approx(1 - (rates**2).sum())


def test_the_base_rate_is_reliable_and_resolves_nothing() -> None:
    labels = np.repeat([0, 1, 2], [50, 30, 20])
    found = parts(np.tile([0.5, 0.3, 0.2], (100, 1)), labels)
    assert found == pytest.approx(
        {"reliability": 0, "resolution": 0, "uncertainty": 0.62, "remainder": 0}
    )


def judged(whole: bool = True) -> Judged:
    random = np.random.default_rng(3)
    probabilities = random.dirichlet([1, 1, 1], 200)
    chosen, labels = probabilities.argmax(axis=1), random.integers(0, 3, 200)
    return Judged(probabilities, chosen, labels, [str(i) for i in range(200)], whole)


def test_what_needs_all_three_is_not_made_up() -> None:
    every, some = measures(judged()), measures(judged(whole=False))
    assert set(every) - set(some) == {
        "brier",
        "nll",
        "reliability",
        "resolution",
        "uncertainty",
        "remainder",
        "classwise_ece",
        "classwise_ece_mass",
    }
    rows = judged()
    assert every["accuracy"].value == (rows.chosen == rows.labels).mean()
    assert every["brier"].value == pytest.approx(brier(rows.probabilities, rows.labels))


def test_the_others_share_what_the_chosen_one_leaves() -> None:
    assert shared(np.array([0.8, 0.2]), np.array([2, 0])) == pytest.approx(
        np.array([[0.1, 0.1, 0.8], [0.2, 0.4, 0.4]])
    )
