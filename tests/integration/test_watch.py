"""The watch on a real registry: from the command line, in the server, and two at once."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner, Result
from lyra_databases import NEWER, OLDER, LyraDatabase, fetch, populate
from serving_world import World, live_server, make_world, wait_until
from sqlalchemy import insert, update

from lyra_nli.cli.main import cli
from lyra_nli.ml_server.watching import Watcher, watching
from lyra_nli.monitoring.watch import check
from lyra_nli.settings import Settings
from lyra_nli.storage import tables
from lyra_nli.storage.engine import open_database, write
from lyra_nli.workspace import Workspace

pytestmark = pytest.mark.integration

V1 = "lora-lyra-v1"


def days_ago(days: int) -> str:
    return (datetime.now(UTC) - timedelta(days=days)).isoformat()


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("models"))


@pytest.fixture
def world(models: World, tmp_path: Path) -> World:
    """The base erred in 5%; v1, which serves for ten days, errs in 25%."""
    world = make_world(tmp_path, like=models)
    world.publish()
    world.activate("v1")
    engine = open_database(world.database)
    with write(engine) as connection:
        connection.execute(update(tables.nli_version_events).values(at=days_ago(10)))
        rows = [review(n, "base", n < 10, 20) for n in range(200)]
        rows += [review(200 + n, V1, n < 25, 5) for n in range(100)]
        connection.execute(insert(tables.nli_reviews), rows)
    engine.dispose()
    return world


def review(number: int, version: str, corrected: bool, days: int) -> dict[str, Any]:
    return {
        "id": f"nlr_{number:04}", "edge_id": f"e{number}", "pair_key": f"p{number}",
        "premise": "a", "hypothesis": "b", "predicted_label": "supports",
        "correct_label": "refutes" if corrected else "supports", "predicted_by": version,
        "sampling": "random", "reviewed_at": days_ago(days),
    }  # fmt: skip


def with_monitoring(settings: Settings, **monitoring: Any) -> Settings:
    changed = settings.monitoring.model_copy(update=monitoring)
    return settings.model_copy(update={"monitoring": changed})


@pytest.fixture
def call(world: World, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run a command on the world's database."""
    monkeypatch.setenv("LYRA_NLI__FAST_MODEL", world.settings.nli.fast_model)
    monkeypatch.setenv("LYRA_NLI__ADAPTERS_DIR", world.settings.nli.adapters_dir)

    def run(words: str) -> Result:
        result = CliRunner().invoke(cli, [*words.split(), "--db", world.database])
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
        return result

    return run


def test_the_commands(world: World, call: Any) -> None:
    checked = call("monitor check")
    assert checked.exit_code == 9
    assert "ALERT  correction_rate" in checked.output
    assert "1 alert(s) open" in checked.output
    facts = json.loads(call("monitor check --json").stdout)
    assert (facts["raised"], len(facts["open"])) == ([], 1)
    assert [finding["exceeded"] for finding in facts["findings"]] == [True]

    status = call("status").output
    assert "ALERT       correction_rate" in status
    assert "active      lora-lyra-v1, since" in status
    assert "corrected   25.0% of 100 (95%: 17.5% to 34.3%)" in status
    assert "next        Look at the alert `correction_rate` of lora-lyra-v1." in status
    facts = json.loads(call("status --json").stdout)
    assert {
        "database", "base_model", "active", "previous", "reviewed", "corrected",
        "corrected_unused", "random", "agreement", "due", "conditions", "events",
    } <= facts.keys()  # fmt: skip
    assert facts["active"] == V1
    assert facts["correction_rate"]["k"] == 25
    assert facts["change"]["before"]["k"] == 10
    assert facts["alerts"][0]["rule"] == "correction_rate"

    report = call("monitor report").output
    assert "lora-lyra-v1     corrected 25.0% of 100" in report
    assert "base -> lora-lyra-v1: corrected 25.0% of 100, before 5.0% of 200" in report
    facts = json.loads(call("monitor report --json").stdout)
    assert facts["versions"]["base"]["k"] == 10
    assert [week["corrected"]["n"] for week in facts["weeks"]] == [200, 100]
    assert facts["changes"][0]["evidence"]["highest"] > 20


def test_an_automatic_rollback(world: World, call: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LYRA_MONITORING__AUTO_ROLLBACK", "true")
    checked = call("monitor check")
    assert checked.exit_code == 9
    assert "[rolled back to base]" in checked.output
    with world.registry() as registry:
        assert registry.active(world.fast.name) is None
        last = registry.events(world.fast.name)[-1]
    assert (last.who, last.action, last.from_version) == ("watch", "rollback", V1)
    assert "Evidence that it is worse" in last.reason
    assert call("monitor check").exit_code == 0
    assert fetch(Path(world.database), "SELECT action FROM nli_alerts") == [
        ("rolled back to base",)
    ]


def test_a_decision_of_a_person_stands(
    world: World, call: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LYRA_MONITORING__AUTO_ROLLBACK", "true")
    assert "[rolled back to base]" in call("monitor check").output
    with world.registry() as registry:
        registry.activate(V1, who="ada", reason="the reviewers were wrong")
    checked = call("monitor check")
    assert (checked.exit_code, "resolved correction_rate" in checked.output) == (0, True)
    with world.registry() as registry:
        assert registry.events(world.fast.name)[-1].who == "ada"


def test_two_watches_at_once_act_once(world: World) -> None:
    settings = with_monitoring(world.settings, auto_rollback=True)
    start = threading.Barrier(4)

    def look(_: int) -> int:
        workspace = Workspace.open(settings)
        try:
            start.wait()
            return len(check(workspace).raised)
        finally:
            workspace.engine.dispose()

    with ThreadPoolExecutor(4) as pool:
        raised = list(pool.map(look, range(4)))
    assert sum(raised) == 1
    with world.registry() as registry:
        events = [event.action for event in registry.events(world.fast.name)]
        assert registry.active(world.fast.name) is None
    assert events == ["activate", "rollback"]


def test_the_server_watches(world: World) -> None:
    settings = with_monitoring(world.settings, check_minutes=0.005, auto_rollback=True)
    with live_server(settings):
        database = Path(world.database)
        wait_until(lambda: bool(fetch(database, "SELECT 1 FROM nli_alerts WHERE action != ''")))
    with world.registry() as registry:
        assert registry.events(world.fast.name)[-1].who == "watch"


def test_a_watch_that_can_not_look_goes_on(
    world: World,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    storage = world.settings.storage.model_copy(update={"database_path": str(tmp_path / "no.db")})
    watcher = Watcher(world.settings.model_copy(update={"storage": storage}))
    assert watcher.look() is None
    assert watcher.look() is None
    assert "there is no database" in (watcher.error or "")
    assert len(caplog.records) == 1, "the same failure is logged once"
    watcher._settings = world.settings
    assert watcher.look() is not None
    assert watcher.error is None

    def bug(_: object) -> None:
        raise KeyError("x")

    with monkeypatch.context() as broken:
        broken.setattr("lyra_nli.ml_server.watching.check", bug)
        assert watcher.look() is None
    assert watcher.error == "KeyError('x')"
    assert caplog.records[-1].exc_info, "a bug of ours is to be found"

    damaged = (
        "INSERT INTO nli_comparisons VALUES ('x', 'now', 'shadow', ?, 'lora-lyra-v1', 'v2', "
        "'many', 'few', '')"
    )
    with closing(sqlite3.connect(world.database)) as connection, connection:
        connection.execute(damaged, [world.fast.name])
    checked = watcher.look()
    assert checked is not None, "one damaged row does not silence the watch"
    assert [finding.rule for finding in checked.findings] == ["correction_rate"]


def test_the_server_looks_before_it_sleeps(world: World) -> None:
    async def live() -> None:
        async with watching(Watcher(with_monitoring(world.settings, check_minutes=60.0))):
            for _ in range(100):
                if fetch(Path(world.database), "SELECT * FROM nli_alerts"):
                    return
                await asyncio.sleep(0.1)
        pytest.fail("nothing was looked at")

    asyncio.run(live())


def test_a_watch_that_a_bug_ended_says_so(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A canary that errs would go on for ever, and nobody would know."""

    def look(_: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(Watcher, "look", look)
    with live_server(with_monitoring(world.settings, check_minutes=60.0)) as url:
        wait_until(lambda: told(url)["watch_error"] is not None)
        assert "the watch ended, restart the server: ZeroDivisionError" in told(url)["watch_error"]
        metrics = httpx.get(f"{url}/metrics", trust_env=False).text
        assert "lyra_nli_watching 0.0" in metrics


def told(url: str) -> Any:
    return httpx.get(f"{url}/nli/adapter/status", trust_env=False).raise_for_status().json()


def test_no_watch_when_it_is_told_so(world: World) -> None:
    async def live() -> None:
        async with watching(Watcher(with_monitoring(world.settings, check_minutes=0.0))):
            await asyncio.sleep(0.2)

    asyncio.run(live())
    assert fetch(Path(world.database), "SELECT * FROM nli_alerts") == []


@pytest.mark.parametrize("shape", [OLDER, NEWER])
def test_a_lyra_database_as_it_is(shape: Any, tmp_path: Path) -> None:
    lyra = LyraDatabase(tmp_path / "lyra.db", shape)
    populate(lyra)
    before = lyra.path.read_bytes()
    runner = CliRunner()
    status = runner.invoke(cli, ["status", "--db", str(lyra.path)], catch_exceptions=False)
    assert "corrected   nothing counted yet" in status.output
    assert "queue       1 to review" in status.output
    assert "missing     There are no tables for reviews and versions" in status.output
    report = runner.invoke(cli, ["monitor", "report", "--db", str(lyra.path)])
    assert report.exit_code == 0
    assert lyra.path.read_bytes() == before
