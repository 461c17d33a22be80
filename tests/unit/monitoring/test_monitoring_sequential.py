from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from lyra_nli.monitoring.sequential import (
    PLAN_DAYS,
    Evidence,
    deal,
    log_evidence,
    weigh,
    weigh_together,
)


def one(*blocks: tuple[int, int, int, int], worse: tuple[float, ...] = (0.1,)) -> list[float]:
    """The evidence after each block of (old, corrected, new, corrected)."""
    old, old_k, new, new_k = (np.array([column]) for column in zip(*blocks, strict=True))
    path = np.exp(log_evidence(old, old_k, new, new_k, worse)[0])
    return [float(value) for value in path]


def test_one_block_by_hand() -> None:
    # m = 1/10, and a bet on 0.1 in a block of one and one: new 0.15, old 0.05.
    assert one((1, 0, 1, 1)) == pytest.approx([(0.95 / 0.9) * (0.15 / 0.1)])
    assert one((1, 1, 1, 0)) == pytest.approx([(0.05 / 0.1) * (0.85 / 0.9)])
    # Three old ones: new 0.1 + 0.1 * 3/4, old 0.1 - 0.1 * 1/4.
    assert one((3, 0, 1, 1)) == pytest.approx([(0.925 / 0.9) ** 3 * 1.75])


def test_the_second_block_knows_the_first() -> None:
    first, both = one((4, 1, 4, 2), (1, 0, 1, 1))
    m = (1 + 3) / (10 + 8)
    assert both / first == pytest.approx((1 - m + 0.05) / (1 - m) * (m + 0.05) / m)


def test_bets_are_averaged() -> None:
    small, large, mixed = (one((5, 0, 5, 2), worse=w) for w in ((0.03,), (0.1,), (0.03, 0.1)))
    assert mixed[0] == pytest.approx((small[0] + large[0]) / 2)


def test_a_side_without_reviews_says_nothing() -> None:
    assert one((0, 0, 9, 9), (9, 0, 0, 0), (1, 0, 1, 1))[:2] == [1.0, 1.0]


@pytest.mark.parametrize(("a", "b"), [(1, 1), (4, 2), (2, 5), (1, 9)])
@pytest.mark.parametrize("p", [0.01, 0.1, 0.3, 0.9])
def test_it_does_not_grow_when_the_new_version_is_no_worse(a: int, b: int, p: float) -> None:
    """The mean over all that can happen, computed, not drawn."""

    def mean(old: float, new: float) -> float:
        outcomes = [(i, j) for i in range(a + 1) for j in range(b + 1)]
        chance = [stats.binom.pmf(i, a, old) * stats.binom.pmf(j, b, new) for i, j in outcomes]
        factors = [one((a, i, b, j), worse=(0.03, 0.1))[0] for i, j in outcomes]
        return float(np.dot(chance, factors))

    assert mean(p, p) <= 1 + 1e-12
    assert mean(p, p / 2) <= mean(p, p)
    assert mean(p, min(1.0, p + 0.3)) > 1 or p > 0.5


def test_worse_is_found_and_equal_is_left_alone() -> None:
    rng = np.random.default_rng(5)
    runs, days, traffic = 400, PLAN_DAYS, 50
    raised = {}
    for worse in (0.0, 0.03):
        new = rng.poisson(traffic, (runs, days))
        dealt = deal(rng.poisson(traffic * days, runs), new)
        old_k, new_k = rng.binomial(dealt, 0.1), rng.binomial(new, 0.1 + worse)
        path = log_evidence(dealt, old_k, new, new_k)
        raised[worse] = (path >= math.log(20)).any(axis=1).mean()
    assert raised[0.0] <= 0.05
    assert raised[0.03] >= 0.9


def test_reviews_are_dealt_evenly_and_once() -> None:
    new = np.ones((1, PLAN_DAYS), dtype=int)
    assert deal(np.array([180]), new).tolist() == [[2] * PLAN_DAYS]
    assert deal(np.array([30]), new).sum() == 30
    new[0, :10] = 0  # on days without reviews none are dealt; what is left lasts to the end
    dealt = deal(np.array([160]), new)[0]
    assert dealt[:10].tolist() == [0] * 10
    assert dealt[10:].tolist() == [2] * 80


def test_a_burst_of_reviews_meets_as_many_old_ones() -> None:
    assert deal(np.array([100]), np.array([[60, 0, 60, 60]])).tolist() == [[60, 0, 40, 0]]


def test_weighing_real_lists() -> None:
    quiet = weigh([], [], [], 0.05)
    assert (quiet.value, quiet.highest, quiet.days, quiet.reached_on) == (1.0, 1.0, 0, None)
    old = [False] * 900
    found = weigh(old, [10, 10, 10], [4, 5, 6], 0.05)
    assert found.days == 3
    assert found.reached_on is not None
    assert found.value == found.highest >= 20
    assert weigh(old, [10] * 3, [0] * 3, 0.05).highest < 2
    better = weigh([True] * 900, [10] * 30, [0] * 30, 0.05)
    assert better.value < 1e-3
    assert better.highest == 1.0
    assert better.reached_on is None


def test_the_order_of_the_old_reviews_counts() -> None:
    late = weigh([False] * 800 + [True] * 100, [10] * 5, [1] * 5, 0.05)
    early = weigh([True] * 100 + [False] * 800, [10] * 5, [1] * 5, 0.05)
    assert late.value > early.value


def test_after_the_plan_nothing_is_compared() -> None:
    more = weigh([False] * 90, [1] * 200, [1] * 200, 0.05)
    assert more.days == PLAN_DAYS


def test_two_at_a_time_are_compared_day_by_day() -> None:
    old, new = [(5, 1), (0, 0), (8, 0)], [(2, 1), (3, 3), (4, 2)]
    found = weigh_together(old, new, 0.05)
    columns = ([5, 0, 8], [1, 0, 0], [2, 3, 4], [1, 3, 2])
    path = np.exp(log_evidence(*(np.array([column]) for column in columns)))
    assert found.value == pytest.approx(path[0, -1])
    assert (found.days, found.reached_on) == (3, None)
    assert weigh_together([], [], 0.05) == Evidence()
    worse = weigh_together([(40, 2)] * 9, [(20, 6)] * 9, 0.05)
    assert worse.reached_on is not None
    assert worse.highest >= 20
    assert weigh_together([(40, 4)] * 9, [(20, 2)] * 9, 0.05).highest < 20
