"""Canary on live traffic: who is answered by it, for how long, and what ends it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner, Result
from lyra_databases import fetch
from serving_world import PAIRS, World, body, live_server, make_world, wait_until
from sqlalchemy import insert, update

from lyra_nli.cli.main import cli
from lyra_nli.client import MLClient
from lyra_nli.errors import AdapterInvalidError, LyraNliError
from lyra_nli.ml_server import judging
from lyra_nli.records import Pair
from lyra_nli.registry.trials import Trial, Trials
from lyra_nli.storage import tables
from lyra_nli.storage.engine import open_database, write

pytestmark = pytest.mark.integration

V1, V2 = "lora-lyra-v1", "lora-lyra-v2"
MANY = [Pair(f"Study {n} found it.", f"Claim {n}.") for n in range(40)]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("models"))


@pytest.fixture
def world(models: World, tmp_path: Path) -> World:
    world = make_world(tmp_path, like=models)
    world.publish(seed=1), world.publish(seed=2)
    world.activate("v1")
    return world


@pytest.fixture
def url(world: World) -> Iterator[str]:
    with live_server(world.settings) as url:
        yield url


@pytest.fixture
def call(world: World, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Result]:
    """Run a command on the world's database."""
    monkeypatch.setenv("LYRA_NLI__FAST_MODEL", world.settings.nli.fast_model)
    monkeypatch.setenv("LYRA_NLI__ADAPTERS_DIR", world.settings.nli.adapters_dir)

    def run(words: str) -> Result:
        result = CliRunner().invoke(cli, [*words.split(), "--db", world.database])
        assert isinstance(result.exception, (SystemExit, LyraNliError, type(None))), result.exc_info
        return result

    return run


def start(world: World, url: str, share: float) -> Trial:
    with world.registry() as registry:
        trial = Trials(registry).start("canary", "v2", share=share, who="test")
    wait_until(lambda: running(url) == [("canary", V2)])
    return trial


def last(world: World) -> Trial:
    with world.registry() as registry:
        trial = Trials(registry).last("canary", world.fast.name)
    assert trial is not None
    return trial


def status(url: str) -> dict[str, Any]:
    answer: dict[str, Any] = httpx.get(f"{url}/nli/adapter/status", trust_env=False).json()
    return answer


def running(url: str) -> list[tuple[str, str]]:
    return [(trial["kind"], trial["version"]) for trial in status(url)["trials"]]


def ask(url: str, pairs: list[Pair], **more: Any) -> list[dict[str, Any]]:
    answer = httpx.post(f"{url}/nli", json=body(pairs, **more), trust_env=False).json()
    return list(answer["results"])


def test_a_share_is_answered_by_it_and_each_pair_always_by_the_same(world: World, url: str) -> None:
    trial = start(world, url, 0.4)
    results = ask(url, MANY)
    by = [result["adapter"] for result in results]
    assert by == [V2 if trial.takes(pair.key) else V1 for pair in MANY]
    assert 6 < by.count(V2) < 28
    assert all(result["adapter"] in result["model_version"] for result in results)
    with live_server(world.settings) as other:
        wait_until(lambda: running(other) == [("canary", V2)])
        assert [result["adapter"] for result in ask(other, MANY[::-1])] == by[::-1]
    wait_until(lambda: status(url)["prediction_log"]["written"] >= len(MANY))
    logged = dict(fetch(Path(world.database), "SELECT pair_key, version FROM nli_predictions"))
    assert logged == {pair.key: name for pair, name in zip(MANY, by, strict=True)}
    [tried] = status(url)["trials"]
    assert (tried["judged"], tried["failed"]) == (by.count(V2), 0)


def test_a_key_keeps_all_its_requests_together(world: World, url: str) -> None:
    trial = start(world, url, 0.5)
    keys = [f"task {n}" for n in range(20)]
    with MLClient(url) as client:
        found = {key: {a.adapter for a in client.judge(MANY[:5], key=key)} for key in keys}
    assert found == {key: {V2 if trial.takes(key) else V1} for key in keys}
    assert {V1, V2} == set.union(*found.values())


def test_who_names_a_version_or_has_a_route_is_not_tried_on(models: World, tmp_path: Path) -> None:
    world = make_world(tmp_path, like=models, routes={"a.org": V1})
    world.publish(seed=1), world.publish(seed=2)
    with live_server(world.settings) as url, MLClient(url) as client:
        start(world, url, 1.0)
        routed = client.judge(PAIRS, sources=["https://a.org/x"] * len(PAIRS))
        assert {answer.adapter for answer in routed} == {V1}
        for name, served in (("active", "base"), ("base", "base"), ("v1", V1)):
            assert {answer.adapter for answer in client.judge(PAIRS, adapter=name)} == {served}
        assert {answer.adapter for answer in client.judge(PAIRS, use_slow=True)} == {"base"}
        assert {answer.adapter for answer in client.judge(PAIRS)} == {V2}


@pytest.mark.parametrize("error", [AdapterInvalidError("NaN"), RuntimeError("no memory")])
def test_one_that_fails_is_over_at_once_and_nobody_notices(
    world: World, url: str, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = ask(url, PAIRS)
    start(world, url, 1.0)
    real = judging._judgements

    def judged(slot: Any, chosen: Any, *rest: Any) -> Any:
        if any(served.name == V2 for served in chosen):
            raise error
        return real(slot, chosen, *rest)

    monkeypatch.setattr(judging, "_judgements", judged)
    assert ask(url, PAIRS) == expected
    assert running(url) == [], "at once, not after the next look"
    wait_until(lambda: last(world).ended_at is not None)
    assert (last(world).ended_by, last(world).end_reason) == ("server", f"it can't judge: {error}")
    with world.registry() as registry:
        assert registry.events(world.fast.name)[-1].action == "canary_end"
    monkeypatch.undo()
    assert {result["adapter"] for result in ask(url, PAIRS)} == {V1}
    start(world, url, 1.0)
    assert {result["adapter"] for result in ask(url, PAIRS)} == {V2}, "another trial is another"


def test_memory_that_runs_out_for_a_moment_ends_no_trial(
    world: World, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    start(world, url, 1.0)
    real, failures = judging._judgements, [RuntimeError("no memory")]

    def judged(*arguments: Any) -> Any:
        if failures:
            raise failures.pop()
        return real(*arguments)

    monkeypatch.setattr(judging, "_judgements", judged)
    assert {result["adapter"] for result in ask(url, PAIRS)} == {V2}
    assert running(url) == [("canary", V2)]


def test_a_failure_of_everybody_is_not_the_canarys(
    world: World, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    start(world, url, 1.0)

    def judged(*_: Any) -> Any:
        raise AdapterInvalidError("NaN")

    monkeypatch.setattr(judging, "_judgements", judged)
    answer = httpx.post(f"{url}/nli", json=body(PAIRS), trust_env=False)
    assert answer.status_code == 422
    assert running(url) == [("canary", V2)]


def test_the_watch_ends_one_that_is_corrected_more_often(
    world: World, url: str, call: Callable[[str], Result]
) -> None:
    assert "no canary answers" in call("canary status").output
    call("canary start v2 --share 1 --reason try")
    wait_until(lambda: running(url) == [("canary", V2)])
    assert f"canary {V2}, 100% of the traffic" in call("canary status").output
    assert {result["adapter"] for result in ask(url, PAIRS)} == {V2}
    report = call("canary report").output
    assert f"{V1}     corrected nothing counted yet" in report

    engine = open_database(world.database)
    with write(engine) as connection:
        began = (datetime.now(UTC) - timedelta(days=6)).isoformat()
        connection.execute(update(tables.nli_trials).values(started_at=began))
        connection.execute(update(tables.nli_version_events).values(at=began))
        rows = [review(n, V1, n % 20 == 0, n % 5) for n in range(200)]
        rows += [review(200 + n, V2, n % 3 == 0, n % 5) for n in range(100)]
        connection.execute(insert(tables.nli_reviews), rows)
    engine.dispose()
    checked = call("monitor check")
    assert "ALERT  canary" in checked.output
    assert "[ended the canary]" in checked.output
    assert (last(world).ended_by, last(world).ended_at is not None) == ("watch", True)
    assert "corrected 34.0% of 100, the active version 5.0% of 200" in (
        last(world).end_reason or ""
    )
    wait_until(lambda: running(url) == [])
    assert {result["adapter"] for result in ask(url, PAIRS)} == {V1}
    assert call("monitor check").exit_code == 0
    report = call("canary report").output
    assert "looks worse" in report
    assert "by watch" in report
    facts = json.loads(call("canary report --json").stdout)
    assert facts["actives"] == [V1]
    assert (facts["canary"]["k"], facts["evidence"]["highest"] > 20) == (34, True)


def review(number: int, version: str, corrected: bool, days: int) -> dict[str, Any]:
    """Somebody's verdict on an answer, one to five days ago."""
    return {
        "id": f"nlr_{number:04}", "edge_id": f"e{number}", "pair_key": f"p{number}",
        "premise": "a", "hypothesis": "b", "predicted_label": "supports",
        "correct_label": "refutes" if corrected else "supports", "predicted_by": version,
        "sampling": "random",
        "reviewed_at": (datetime.now(UTC) - timedelta(days=1 + days)).isoformat(),
    }  # fmt: skip


def test_a_rejected_one_needs_a_reason(world: World, call: Callable[[str], Result]) -> None:
    world.publish(seed=3, status="rejected")
    refused = call("canary start v3").exception
    assert "the gate has not passed" in str(refused)
    assert call("canary start v3 --reason because").exception is None
    call("canary stop")
    assert last(world).ended_at is not None
