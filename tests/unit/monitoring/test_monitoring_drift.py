from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from scipy.spatial.distance import jensenshannon
from watched_world import BASE, WatchedWorld, day

from lyra_nli.monitoring.drift import ENOUGH, Drift, drifts, measure


@pytest.fixture
def world(tmp_path: Path) -> Iterator[WatchedWorld]:
    world = WatchedWorld(tmp_path)
    yield world
    world.workspace.engine.dispose()


def test_by_hand() -> None:
    found = measure("label", {"a": 300, "b": 100}, {"a": 200, "b": 200}, 0.25)
    p, q = 300.5 / 401, 0.5
    psi = (p - q) * np.log(p / q) + (q - p) * np.log((1 - p) / (1 - q))
    assert found.psi == pytest.approx(psi)
    assert found.js == pytest.approx(jensenshannon([p, 1 - p], [q, 1 - q], base=2) ** 2)
    assert found.noise == pytest.approx((1 / 400 + 1 / 400) * stats.chi2.ppf(0.95, 1), rel=0.03)
    assert (found.n, found.reference_n, found.level) == (400, 400, "large")


@pytest.mark.parametrize("buckets", [3, 8, 20, 60])
def test_chance_alone_is_no_shift(buckets: int) -> None:
    rng = np.random.default_rng(buckets)
    chances = rng.dirichlet(np.full(buckets, 3.0))
    levels: Counter[object] = Counter()
    for _ in range(300):
        week, before = rng.multinomial(400, chances), rng.multinomial(1600, chances)
        one, other = (
            {str(bucket): int(n) for bucket, n in enumerate(drawn)} for drawn in (week, before)
        )
        found = measure("confidence", one, other, 0.25)
        assert found.psi is not None
        assert found.noise is not None
        levels[found.psi > found.noise] += 1
        levels[found.level] += 1
    assert levels[True] <= 300 * 0.1
    assert levels["large"] <= 300 * 0.05


def test_few_answers_say_so() -> None:
    found = measure("label", {"a": ENOUGH - 1}, {"b": 9999}, 0.25)
    assert (found.psi, found.level) == (None, "unknown")
    assert "too few to say" in found.text
    with_noise = measure(
        "domain", {str(n): 5 for n in range(20)}, {str(n): 5 for n in range(20, 40)}, 9
    )
    assert with_noise.level == "small", "every bucket moved, and still under the bound"
    assert "a small shift (PSI" in with_noise.text


def test_rare_buckets_count_together() -> None:
    week = {"big": 200} | {f"r{n}": 1 for n in range(50)}
    before = {"big": 800} | {f"s{n}": 1 for n in range(200)}
    found = measure("domain", week, before, 0.25)
    assert found.psi == pytest.approx(0.0, abs=1e-3)
    assert found.level == "none"
    assert measure("domain", {"one": 100}, {"one": 100}, 0.25).level == "none"


def test_this_week_and_the_four_before(world: WatchedWorld) -> None:
    today = 40
    for offset, version, label in (
        (today, "v2", "supports"), (today - 6, "v2", "refutes"),
        (today - 7, "v2", "supports"), (today - 34, "v2", "supports"),
        (today - 35, "v2", "neutral"), (today + 1, "v2", "neutral"), (today, "v1", "neutral"),
    ):  # fmt: skip
        world.count(offset, version, "label", **{label: 100})
        world.count(offset, version, "length", **{"128": 100})
    found: list[Drift] = world.ask(drifts, BASE, "v2", 0.25, date.fromisoformat(day(today)))
    labels, lengths = found
    facts = [(drift.kind, drift.n, drift.reference_n, drift.level) for drift in found]
    assert facts == [("label", 200, 200, "large"), ("length", 300, 200, "none")]
    assert world.ask(drifts, "another", "v2", 0.25, date.fromisoformat(day(today))) == []
    assert labels.to_dict()["level"] == "large"
    assert lengths.text.startswith("length: no shift to speak of (PSI 0.000, ")
