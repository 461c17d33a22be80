"""What shadows say, on its way into the database."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from lyra_databases import NEWER, OLDER, LyraDatabase, fetch
from sqlalchemy import text
from watched_world import BASE, WatchedWorld

from lyra_nli.labels import LABELS
from lyra_nli.monitoring import shadow_log
from lyra_nli.monitoring.shadow_edges import _by_texts, edges_named, edges_of
from lyra_nli.monitoring.shadow_log import ShadowLog
from lyra_nli.monitoring.shadow_report import agreement, disagreements
from lyra_nli.monitoring.shadow_rows import MAX_CHARS, JudgedTwice
from lyra_nli.records import Judgement, Pair
from lyra_nli.registry.trials import Trial
from lyra_nli.settings import MonitoringSettings, StorageSettings
from lyra_nli.storage.engine import read
from lyra_nli.storage.upgrade import upgrade

TRIAL = Trial("nlt_1", BASE, "shadow", "v2", 1.0, "2026-03-01", "ada", "")


def said(adapter: str, label: str, confidence: float = 0.8) -> Judgement:
    rest = (1 - confidence) / 2
    chances: Any = {each: confidence if each == label else rest for each in LABELS}
    return Judgement(label, confidence, chances, label, False, adapter)  # type: ignore[arg-type]


def twice(
    premise: str, one: str, other: str, confidence: float = 0.8, trial: Trial = TRIAL
) -> JudgedTwice:
    return JudgedTwice(
        "2026-03-01T10:00:00+00:00", trial, Pair(premise, "Claim."), said("v1", one),
        said("v2", other, confidence), "", "",
    )  # fmt: skip


@pytest.fixture
def world(tmp_path: Path) -> WatchedWorld:
    world = WatchedWorld(tmp_path)
    version = {
        "name": "v2", "base_model": BASE, "base_fingerprint": "", "path": "", "digest": "",
        "status": "passed", "samples_used": 1, "created_at": "2026",
    }  # fmt: skip
    world.add("nli_versions", version)
    add_trial(world, TRIAL)
    return world


def add_trial(world: WatchedWorld, trial: Trial) -> None:
    row = {
        "id": trial.id, "base_model": BASE, "kind": "shadow", "version": "v2", "share": 1.0,
        "started_at": trial.started_at, "started_by": "ada", "ended_at": trial.ended_at,
    }  # fmt: skip
    world.add("nli_trials", row)


def a_log(world: WatchedWorld, **monitoring: Any) -> ShadowLog:
    return ShadowLog(world.settings.storage, MonitoringSettings(**monitoring))


def test_what_was_counted_is_summed_up_by_trial_over_servers_and_periods(
    world: WatchedWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Trial("nlt_0", BASE, "shadow", "v2", 1.0, "2026-02-01", "ada", "", "2026-02-02")
    add_trial(world, other)
    one, two = a_log(world), a_log(world)
    one.put(twice("a", "supports", "refutes", 0.9))
    one.put(twice("b", "supports", "supports", 0.6))
    monkeypatch.setattr(shadow_log, "PERIOD_SECONDS", 0.0)
    one.put(twice("c", "neutral", "neutral"))
    two.put(twice("d", "refutes", "supports", 0.4))
    two.put(twice("e", "refutes", "supports", trial=other))
    two.skip(TRIAL, "v1")
    one.close(), two.close()
    found = world.ask(agreement, TRIAL)
    assert (found.disagreed.k, found.disagreed.n, found.skipped, found.ones) == (2, 4, 1, ["v1"])
    assert found.labels == [[1, 1, 0], [1, 0, 0], [0, 0, 1]]
    assert found.confidence_shift == pytest.approx((0.1 - 0.2 + 0.0 - 0.4) / 4)
    assert world.ask(agreement, other).disagreed.n == 1
    shown = world.ask(lambda *where: list(disagreements(*where, TRIAL)))
    assert [(each.premise, each.one, each.predicted) for each in shown] == [
        ("a", "v1", "supports"),
        ("d", "v1", "refutes"),
    ]


def test_disagreements_are_kept_once_and_only_so_many(world: WatchedWorld) -> None:
    log = a_log(world, keep_disagreements=3)
    for premise in ("a", "a", "b", "c", "d", "x" * MAX_CHARS, "half \ud800", "nul \0"):
        log.put(twice(premise, "supports", "refutes"))
    log.close()
    database = Path(world.settings.storage.database_path)
    kept = fetch(database, "SELECT premise FROM nli_disagreements ORDER BY id")
    assert kept == [("b",), ("c",), ("d",)]
    assert world.ask(agreement, TRIAL).disagreed.n == 8, "the others count too"
    assert log.problem == ""


def test_what_can_not_be_written_waits(
    world: WatchedWorld, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    log = a_log(world)
    database = Path(world.settings.storage.database_path)
    hidden = database.rename(database.with_name("hidden.db"))
    monkeypatch.setattr(shadow_log, "FLUSH_SECONDS", 0.01)
    log.put(twice("a", "supports", "refutes"))
    while not log.problem:
        pass
    log.put(twice("b", "supports", "supports"))
    hidden.rename(database)
    log.close()
    assert world.ask(agreement, TRIAL).disagreed.n == 2
    assert fetch(database, "SELECT premise FROM nli_disagreements") == [("a",)]
    assert len(caplog.records) == 1, "said once"


def test_no_database_at_all(tmp_path: Path) -> None:
    log = ShadowLog(StorageSettings(database_path=str(tmp_path / "no.db")), MonitoringSettings())
    log.put(twice("a", "supports", "refutes"))
    log.close()
    assert "there is no database" in log.problem


@pytest.mark.parametrize("shape", [OLDER, NEWER])
def test_edges_of_a_lyra_database(shape: Any, tmp_path: Path) -> None:
    lyra = LyraDatabase(tmp_path / "lyra.db", shape)
    lyra.add_edge("x")
    lyra.add_edge("y", reviewed_at="2026-01-01")
    engine = lyra.open()
    upgrade(engine, backup=False)
    known, reviewed = (Pair(f"Premise of {name}.", f"Claim c-{name}.") for name in "xy")
    strange = Pair("Premise of y.", "Claim c-x.")
    with read(engine) as connection:
        assert edges_of(connection, [known, reviewed, strange]) == {known: "x"}
        assert edges_named(connection, {"x": known, "y": reviewed}) == {"x"}
        assert edges_named(connection, {"x": strange, "z": known}) == set()
        plan = connection.execute(
            text(
                "EXPLAIN QUERY PLAN "
                + _by_texts(connection).replace(":claims", "('c')").replace(":premises", "('p')")
            )
        ).all()
    assert any("ix_nli_edges_target" in row[-1] for row in plan)
    assert not any("SCAN" in row[-1] for row in plan)
    engine.dispose()


def test_details_that_no_one_wrote_are_passed_over(world: WatchedWorld) -> None:
    log = a_log(world)
    log.put(twice("a", "supports", "refutes"))
    log.close()
    for n, details in enumerate(("{", "[]", '{"trial": "nlt_1"}', json.dumps({"labels": [[1]]}))):
        world.add(
            "nli_comparisons",
            {"id": f"x{n}", "at": "2026", "kind": "shadow", "base_model": BASE, "one": "v1",
             "other": "v2", "compared": 9, "disagreed": 9, "details_json": details},
        )  # fmt: skip
    assert world.ask(agreement, TRIAL).disagreed.n == 1
