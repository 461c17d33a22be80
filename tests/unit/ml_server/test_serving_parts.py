"""Who answers what at one moment is one value: nothing in it changes after it was read."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from lyra_nli.ml_server.on_trial import OnTrial
from lyra_nli.ml_server.served import Served
from lyra_nli.ml_server.serving import Serving

KEYS = ["taken", "left", "taken"]
SITES = ["https://www.trials.org/a", "", "https://elsewhere.net"]


def served(name: str) -> Served:
    version: Any = SimpleNamespace(name=name)
    return Served(None, version, name, "now", 0.0, 0)


def trial(number: str) -> Any:
    return SimpleNamespace(id=number, takes=lambda key: key == "taken")


@pytest.fixture
def serving() -> Serving:
    trials = {
        "canary": OnTrial(trial("1"), served("v3")),
        "shadow": OnTrial(trial("2"), served("v4")),
    }
    return Serving(served("v1"), "v2", {"trials.org": served("v5")}, trials)


def names(chosen: list[Served]) -> list[str]:
    return [each.name for each in chosen]


def test_a_route_stands_above_the_canary_and_that_above_the_current(serving: Serving) -> None:
    assert names(serving.choose(SITES, KEYS)) == ["v5", "v1", "v3"]
    assert names(serving.choose(SITES)) == ["v5", "v1", "v1"]
    assert names(serving.without("1").choose(SITES, KEYS)) == ["v5", "v1", "v1"]
    assert names(Serving(served("v1"), "base").choose(SITES, KEYS)) == ["v1"] * 3


def test_what_was_read_stays_while_others_exchange_it(serving: Serving) -> None:
    """A request finds the canary among what was chosen for it, whatever is calibrated meanwhile."""
    chosen = serving.choose(SITES, KEYS)
    later = serving
    for part in (serving.current, *serving.routes.values(), serving.trials["canary"].served):
        later = later.exchanged(part, served(f"{part.name}, calibrated"))
    assert names(later.choose(SITES, KEYS)) == [f"{n}, calibrated" for n in ("v5", "v1", "v3")]
    assert names(chosen) == names(serving.choose(SITES, KEYS)) == ["v5", "v1", "v3"]
    assert serving.canary is not None
    assert chosen[2] is serving.canary.served
    assert later.canary is not None
    assert later.canary.tally is serving.canary.tally, "the same trial goes on"


def test_a_flip_remembers_what_was_before(serving: Serving) -> None:
    flipped = serving.flipped(served("v9"))
    assert (flipped.current.name, flipped.previous) == ("v9", "v1")
    again = flipped.flipped(served("v9"))
    assert (again.current.name, again.previous) == ("v9", "v1")


def test_the_parts_of_a_version(serving: Serving) -> None:
    expected = {
        "v1": ["active"],
        "v2": ["previous"],
        "v3": ["canary"],
        "v4": ["shadow"],
        "v5": ["trials.org"],
        "v6": [],
    }
    assert {name: serving.parts(name) for name in expected} == expected
