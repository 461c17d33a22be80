"""Who judges a pair: whom it names, or what its site is routed to, or the active version."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
from serving_world import PAIRS, World, body, live_server, make_world

from lyra_nli.client import MLClient
from lyra_nli.ml_server.follow import Follower
from lyra_nli.ml_server.slot import Slot
from lyra_nli.ml_server.source import RegistrySource
from lyra_nli.models.adapter import merged_model, read_adapter
from lyra_nli.models.judge import Judge

SOURCES = [
    "https://www.trials.org/a",
    "https://news.example.co.uk/b",
    "https://elsewhere.net/c",
]
ROUTES = {"trials.org": "lora-lyra-v2", "example.co.uk": "v3"}


@pytest.fixture
def routed(tmp_path: Path, template: World) -> World:
    """v1 is active, two sites have versions of their own."""
    world = make_world(tmp_path, like=template, routes=ROUTES)
    for seed in (1, 2, 3):
        world.publish(seed=seed)
    world.activate("v1")
    return world


def post(url: str, request: dict[str, Any]) -> httpx.Response:
    return httpx.post(f"{url}/nli", json=request, trust_env=False)


def ask(url: str, each: list[dict[str, Any]], **more: Any) -> list[dict[str, Any]]:
    """Results for the pairs, to which `each` adds fields."""
    request = body(PAIRS, **more)
    for pair, fields in zip(request["pairs"], each, strict=True):
        pair |= fields
    response = post(url, request)
    assert response.status_code == 200, response.text
    results: list[dict[str, Any]] = response.json()["results"]
    assert [result["pair_id"] for result in results] == ["p0", "p1", "p2"]
    return results


def status(url: str) -> dict[str, Any]:
    found: dict[str, Any] = httpx.get(f"{url}/nli/adapter/status", trust_env=False).json()
    return found


def names(results: list[dict[str, Any]]) -> list[str]:
    return [result["adapter"].removeprefix("lora-lyra-") for result in results]


def test_two_sites_have_two_versions(routed: World) -> None:
    from_sources = [{"source_url": source} for source in SOURCES]
    with live_server(routed.settings) as url:
        told = status(url)
        results = ask(url, from_sources)
        assert names(results) == ["v2", "v3", "v1"]
        for pair, result in zip(PAIRS, results, strict=True):
            model = merged_model(
                routed.fast, read_adapter(routed.fast, routed.adapters / result["adapter"])
            )
            expected = Judge(routed.fast, model).judge([pair])[0].probabilities
            assert result["probabilities"] == pytest.approx(expected, abs=1e-5)
            assert f"+{result['adapter']}@" in result["model_version"]
        assert names(ask(url, [{}] * 3)) == ["v1"] * 3
        assert names(ask(url, from_sources, adapter="base")) == ["base"] * 3
        assert names(ask(url, from_sources, adapter="active")) == ["v1"] * 3
        # The other base has no versions of these sites: its own active one judges.
        assert names(ask(url, from_sources, use_slow=True)) == ["base"] * 3
        with MLClient(url) as client:
            answers = client.judge(PAIRS, sources=SOURCES)
            named = client.judge(PAIRS, adapter="v2", sources=SOURCES)
        assert [answer.adapter for answer in answers] == [r["adapter"] for r in results]
        assert {answer.adapter for answer in named} == {"lora-lyra-v2"}

    assert told["follow_error"] is None
    assert [route["site"] for route in told["routes"]] == [*ROUTES]
    assert ["+lora-lyra-v2@" in v for route in told["routes"] for v in route["model_versions"]] == [
        True,
        False,
    ]
    assert {r["version"]: r["pinned"] for r in told["resident"]} == {
        "lora-lyra-v1": ["active"],
        "lora-lyra-v2": ["trials.org"],
        "lora-lyra-v3": ["example.co.uk"],
    }
    with closing(sqlite3.connect(routed.database)) as connection:
        query = "SELECT version, domain FROM nli_predictions ORDER BY id LIMIT 3"
        assert connection.execute(query).fetchall() == [
            ("lora-lyra-v2", "trials.org"),
            ("lora-lyra-v3", "example.co.uk"),
            ("lora-lyra-v1", "elsewhere.net"),
        ]


def test_a_pairs_own_adapter_wins(routed: World) -> None:
    each = [
        {"adapter": "base", "source_url": SOURCES[0]},
        {"adapter": "v1", "source_url": SOURCES[1]},
        {"source_url": SOURCES[1]},
    ]
    with live_server(routed.settings) as url:
        assert names(ask(url, each)) == ["base", "v1", "v3"]
        assert names(ask(url, each, adapter="v2")) == ["base", "v1", "v2"]
        assert names(ask(url, [{"adapter": "active"}] * 3, adapter="v2")) == ["v1"] * 3


def test_all_unknown_adapters_are_named_with_what_exists(routed: World) -> None:
    request = body(PAIRS)
    request["pairs"][0]["adapter"] = "v8"
    request["pairs"][2]["adapter"] = "v9"
    with live_server(routed.settings) as url:
        response = post(url, request)
    assert response.status_code == 404
    said = response.json()
    assert sorted(said["problems"]) == [
        "there is no adapter version 'v8'",
        "there is no adapter version 'v9'",
    ]
    assert "lora-lyra-v1, lora-lyra-v2, lora-lyra-v3" in said["hint"]


def test_pairs_that_can_not_be_judged_are_named_across_versions(routed: World) -> None:
    request = body(PAIRS)
    for pair, source in zip(request["pairs"], SOURCES, strict=True):
        pair["source_url"] = source
    for i in (1, 2):
        request["pairs"][i]["premise"] = " "
    with live_server(routed.settings) as url:
        response = post(url, request)
    assert response.status_code == 422
    assert [p.partition(":")[0] for p in response.json()["problems"]] == ["pair 'p1'", "pair 'p2'"]


def test_more_versions_than_memory_holds_are_refused(tmp_path: Path, template: World) -> None:
    world = make_world(tmp_path, like=template, resident_versions=3)
    for seed in range(4):
        world.publish(seed=seed)
    request = body([*PAIRS, PAIRS[0]])
    for i, pair in enumerate(request["pairs"], start=1):
        pair["pair_id"], pair["adapter"] = str(i), f"v{i}"
    with live_server(world.settings) as url:
        response = post(url, request)
        assert response.status_code == 422
        assert "resident_versions" in response.json()["hint"]
        request["pairs"].pop()
        assert names(post(url, request).json()["results"]) == ["v1", "v2", "v3"]


def test_a_version_of_one_domain_is_not_loaded_for_all_without_a_reason(world: World) -> None:
    world.publish(metrics={"domain": "trials.org"})
    with live_server(world.settings) as url:

        def load(**request: str) -> httpx.Response:
            return httpx.post(f"{url}/nli/adapter/load", json=request, trust_env=False)

        refused = load(adapter_path="v1")
        assert refused.status_code == 409
        assert "trials.org only" in refused.json()["error"]
        assert status(url)["version"] is None
        assert load(adapter_path="v1", reason="a trial").status_code == 200
        assert status(url)["version"] == "lora-lyra-v1"


@pytest.fixture
def slot(routed: World) -> Slot:
    return Slot(routed.fast)


@pytest.fixture
def follower(routed: World) -> Follower:
    return Follower(RegistrySource(routed.settings), routed.settings.nli)


def chosen(slot: Slot) -> list[str]:
    return [served.name.removeprefix("lora-lyra-") for served in slot.choose(SOURCES)]


def test_a_route_that_leads_nowhere_is_told_and_the_active_version_judges(
    routed: World, slot: Slot, follower: Follower
) -> None:
    weights = routed.adapters / "lora-lyra-v3" / "adapter_model.safetensors"
    hidden = shutil.move(weights, routed.folder / "hidden")
    with routed.registry() as registry:
        registry.remove("v2", who="test")
    follower.look([slot])

    assert chosen(slot) == ["v1", "v1", "v1"]
    assert follower.error is not None
    assert "trials.org leads nowhere" in follower.error
    assert "there is no version 'lora-lyra-v2'" in follower.error
    assert "example.co.uk leads nowhere" in follower.error
    assert "adapter_model.safetensors: missing" in follower.error

    shutil.move(hidden, weights)
    follower.forget()
    follower.look([slot])
    assert chosen(slot) == ["v1", "v3", "v1"]


def test_a_resident_version_that_was_removed_judges_no_longer(
    routed: World, slot: Slot, follower: Follower
) -> None:
    follower.look([slot])
    assert chosen(slot) == ["v2", "v3", "v1"]
    with routed.registry() as registry:
        registry.remove("v2", who="test")
    follower.look([slot])
    assert chosen(slot) == ["v1", "v3", "v1"]


def test_routes_stay_when_the_active_version_changes(
    routed: World, slot: Slot, follower: Follower
) -> None:
    follower.look([slot])
    before = slot.choose(SOURCES)
    routed.activate("v3")
    follower.look([slot])
    assert chosen(slot) == ["v2", "v3", "v3"]
    assert slot.choose(SOURCES)[:2] == before[:2], "not loaded again"


def test_versions_of_the_other_base_are_its_own(tmp_path: Path, template: World) -> None:
    world = make_world(tmp_path, like=template, routes={"trials.org": "v1", "foreign.org": "v2"})
    world.publish(world.slow)
    world.publish(base_model="someone/else")
    fast, slow = Slot(world.fast), Slot(world.slow)
    follower = Follower(RegistrySource(world.settings), world.settings.nli)
    follower.look([fast, slow])
    assert (chosen(fast), chosen(slow)) == (["base"] * 3, ["v1", "base", "base"])
    assert follower.error is not None
    assert "foreign.org leads nowhere" in follower.error
    assert "trials.org" not in follower.error
