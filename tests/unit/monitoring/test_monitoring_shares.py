from __future__ import annotations

import pytest
from scipy import stats

from lyra_nli.monitoring.shares import FEW, Share, difference, fisher


def test_a_share_has_its_wilson_interval() -> None:
    share = Share(3, 10)
    expected = stats.binomtest(3, 10).proportion_ci(method="wilson")
    assert (share.value, share.low, share.high) == pytest.approx((0.3, *expected))
    assert share.to_dict()["k"] == 3


def test_few_and_none_are_said() -> None:
    assert Share(2, FEW - 1).few
    assert "too few to say much" in Share(2, FEW - 1).text
    assert "too few" not in Share(2, FEW).text
    nothing = Share(0, 0)
    assert (nothing.value, nothing.low, nothing.high) == (None, None, None)
    assert nothing.text == "nothing counted yet"


@pytest.mark.parametrize(
    ("one", "other", "low", "high"),
    [
        # Newcombe (1998), table II, method 10: (a) 56/70 - 48/80, (f) 10/10 - 0/20.
        (Share(48, 80), Share(56, 70), 0.0524, 0.3339),
        (Share(0, 20), Share(10, 10), 0.6791, 1.0000),
        (Share(0, 10), Share(0, 10), -0.2775, 0.2775),
    ],
)
def test_the_difference_of_two_shares(one: Share, other: Share, low: float, high: float) -> None:
    found = difference(one, other)
    assert found is not None
    assert (found.low, found.high) == pytest.approx((low, high), abs=6e-5)
    assert found.value == pytest.approx((other.value or 0) - (one.value or 0))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (Share(3, 50), Share(9, 40)),
        (Share(0, 5), Share(5, 5)),
        (Share(9, 10), Share(1, 10)),
        (Share(300, 3000), Share(390, 3000)),
    ],
)
def test_fishers_exact_test(one: Share, other: Share) -> None:
    table = [[other.k, other.n - other.k], [one.k, one.n - one.k]]
    expected = stats.fisher_exact(table, alternative="greater").pvalue
    assert fisher(one, other) == pytest.approx(expected, rel=1e-6)


def test_nothing_is_compared_with_nothing() -> None:
    assert difference(Share(0, 0), Share(1, 2)) is None
    assert fisher(Share(1, 2), Share(0, 0)) is None
