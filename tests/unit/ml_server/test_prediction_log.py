"""The log of predictions, behind a real server."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import Any

import httpx
import pytest
from serving_world import PAIRS, World, body, live_server, wait_until

from lyra_nli.monitoring import predictions


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predictions, "FLUSH_SECONDS", 0.05)
    monkeypatch.setattr(predictions, "BUSY_SECONDS", 0.05)


def logged(world: World) -> list[sqlite3.Row]:
    with closing(sqlite3.connect(world.database)) as connection:
        connection.row_factory = sqlite3.Row
        return connection.execute("SELECT * FROM nli_predictions ORDER BY id").fetchall()


def state(url: str) -> dict[str, Any]:
    status = httpx.get(f"{url}/nli/adapter/status", trust_env=False).json()
    found: dict[str, Any] = status["prediction_log"]
    return found


def ask(url: str, **more: Any) -> dict[str, Any]:
    response = httpx.post(f"{url}/nli", json=body(PAIRS, **more), trust_env=False)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def test_the_log_holds_what_was_answered(world: World) -> None:
    world.publish()
    request = body(PAIRS, adapter="v1")
    request["pairs"][1]["source_url"] = "https://www.example.org/study"
    with live_server(world.settings) as url:
        results = httpx.post(f"{url}/nli", json=request, trust_env=False).json()["results"]
        ask(url, use_slow=True)

    rows = logged(world)
    assert len(rows) == 6
    for row, result, pair in zip(rows, results, PAIRS, strict=False):
        assert row["pair_key"] == pair.key
        assert row["label"] == result["label"]
        assert row["version"] == "lora-lyra-v1"
        for label, probability in result["probabilities"].items():
            assert row[label] == probability
        assert row["milliseconds"] > 0
    assert [row["domain"] for row in rows[:3]] == [None, "example.org", None]
    assert {row["base_model"] for row in rows[:3]} == {world.settings.nli.fast_model}
    assert {row["base_model"] for row in rows[3:]} == {world.settings.nli.slow_model}


def test_a_source_that_is_no_address_is_no_reason_to_refuse(world: World) -> None:
    request = body(PAIRS[:1])
    request["pairs"][0]["source_url"] = "a book, page 7"
    with live_server(world.settings) as url:
        assert httpx.post(f"{url}/nli", json=request, trust_env=False).status_code == 200


def test_a_locked_database_holds_up_no_answer(world: World) -> None:
    with live_server(world.settings) as url:
        with closing(sqlite3.connect(world.database, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            ask(url)
            wait_until(lambda: state(url)["dropped"] == 3)
            assert state(url)["state"] == "failing"
            ask(url)
        wait_until(lambda: state(url)["dropped"] == 6 or state(url)["written"] == 3)
        ask(url)
        wait_until(lambda: state(url)["state"] == "on")


def test_without_a_database_it_waits_and_says_so(world: World) -> None:
    for file in world.folder.glob("lyra.db*"):
        file.unlink()
    with live_server(world.settings) as url:
        ask(url)
        wait_until(lambda: state(url)["state"] == "waiting")
        assert "lyra-nli db init" in state(url)["problem"]
        assert state(url)["dropped"] == 0


def test_it_can_be_switched_off(world: World) -> None:
    monitoring = world.settings.monitoring.model_copy(update={"log_share": 0.0})
    with live_server(world.settings.model_copy(update={"monitoring": monitoring})) as url:
        ask(url)
        assert state(url) == {"state": "off", "written": 0, "dropped": 0, "problem": ""}

    assert logged(world) == []
