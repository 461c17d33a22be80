"""The rules, the alerts and the watch on a real database."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lyra_databases import NEWER, LyraDatabase
from sqlalchemy import insert, text
from watched_world import BASE, WatchedWorld, day

from lyra_nli.errors import StorageError
from lyra_nli.monitoring import standing, webhook
from lyra_nli.monitoring.alerts import recent_alerts
from lyra_nli.monitoring.overview import overview
from lyra_nli.monitoring.rates import RandomReview, read_random_reviews
from lyra_nli.monitoring.report import read_report
from lyra_nli.monitoring.rules import findings
from lyra_nli.monitoring.standing import calibration_error, read_standing
from lyra_nli.monitoring.watch import Checked, check
from lyra_nli.settings import load_settings
from lyra_nli.storage import tables
from lyra_nli.storage.engine import write
from lyra_nli.workspace import Workspace

TODAY = date.fromisoformat(day(40))
V1, V2 = "lora-lyra-v1", "lora-lyra-v2"


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., WatchedWorld]]:
    made: list[WatchedWorld] = []

    def world(**monitoring: Any) -> WatchedWorld:
        made.append(WatchedWorld(tmp_path, **monitoring))
        return made[-1]

    yield world
    for each in made:
        each.workspace.engine.dispose()


def serve(world: WatchedWorld, version: str | None, before: str | None, offset: int) -> None:
    """A version serves since a day; the rows that the registry would write."""
    world.event(offset, before, version)
    with write(world.workspace.engine) as connection:
        connection.execute(tables.nli_aliases.delete())
        for alias, name in (("active", version), ("previous", before)):
            if name:
                _register(connection, name)
                row = {"base_model": BASE, "alias": alias, "version": name}
                connection.execute(insert(tables.nli_aliases).values(row))


def _register(connection: Any, name: str) -> None:
    row = {
        "name": name, "base_model": BASE, "base_fingerprint": "ab", "path": name,
        "digest": "cd", "status": "passed", "samples_used": 1, "created_at": day(0),
    }  # fmt: skip
    known = connection.execute(tables.nli_versions.select()).all()
    if name not in {version.name for version in known}:
        connection.execute(insert(tables.nli_versions).values(row))


def worse_version(world: WatchedWorld) -> None:
    """The base erred in 5%, the version that serves since day 20 errs in 25%."""
    world.reviews(10, "base", 200, 10)
    serve(world, V1, None, 20)
    world.reviews(25, V1, 100, 25)


def found(checked: Checked) -> dict[str, bool | None]:
    return {finding.rule: finding.exceeded for finding in checked.findings}


def test_a_worse_version_is_found_once(
    make: Callable[..., WatchedWorld], caplog: pytest.LogCaptureFixture
) -> None:
    world = make()
    worse_version(world)
    with caplog.at_level(logging.INFO, "lyra_nli"):
        checked = check(world.workspace, TODAY)
    assert found(checked) == {"correction_rate": True}
    [alert] = checked.raised
    assert checked.open == [alert]
    assert (alert.rule, alert.version, alert.threshold) == ("correction_rate", V1, 20.0)
    assert (alert.value or 0) > 20
    assert f"{V1} since {day(20)}, after base: corrected 25.0% of 100, before 5.0%" in alert.message
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    again = check(world.workspace, TODAY)
    assert (again.raised, again.resolved, again.open) == ([], [], [alert])
    assert world.workspace.registry.active(BASE) is not None, "nothing was rolled back"


def test_an_alert_ends_when_the_version_does(make: Callable[..., WatchedWorld]) -> None:
    world = make()
    worse_version(world)
    check(world.workspace, TODAY)
    serve(world, None, V1, 39)
    checked = check(world.workspace, TODAY)
    assert [alert.version for alert in checked.resolved] == [V1]
    assert checked.open == []


def test_a_quiet_project_has_nothing(make: Callable[..., WatchedWorld]) -> None:
    world = make()
    assert check(world.workspace, TODAY).findings == []
    world.reviews(10, "base", 200, 10)
    serve(world, V1, None, 20)
    assert found(check(world.workspace, TODAY)) == {"correction_rate": False}
    world.reviews(30, V1, 200, 11)
    checked = check(world.workspace, TODAY)
    assert (found(checked), checked.open) == ({"correction_rate": False}, [])


def test_few_reviews_decide_nothing(make: Callable[..., WatchedWorld]) -> None:
    world = make()
    serve(world, V1, None, 20)
    world.reviews(25, V1, 3, 3)
    assert found(check(world.workspace, TODAY)) == {"correction_rate": None}


def test_calibration_of_what_is_answered(make: Callable[..., WatchedWorld]) -> None:
    world = make()
    for number in range(120):
        world.answer(1, "base", 0.97, 0.02, 0.01, pair=f"p{number}")
        correct = "refutes" if number < 48 else "supports"
        world.review(2, "base", pair_key=f"p{number}", correct=correct)
    checked = check(world.workspace, TODAY)
    [finding] = checked.findings
    assert (finding.rule, finding.exceeded) == ("calibration", True)
    assert finding.value == pytest.approx(0.97 - 0.6, abs=0.02)
    [alert] = checked.raised
    assert "`lyra-nli calibrate`" in alert.message
    assert json.loads(json.dumps(asdict(finding)))["exceeded"] is True


def test_a_calibrated_confidence_is_what_counts(make: Callable[..., WatchedWorld]) -> None:
    world = make()
    for number in range(120):
        world.answer(1, "base", 0.97, 0.02, 0.01, pair=f"p{number}", calibrated=0.6)
        correct = "refutes" if number < 48 else "supports"
        world.review(2, "base", pair_key=f"p{number}", correct=correct)
    checked = check(world.workspace, TODAY)
    assert found(checked)["calibration"] is False, "and no numpy.False_, which is another object"


def answers_under(world: WatchedWorld, calibration: int | None, said: float, n: int) -> None:
    """A fifth is corrected."""
    for number in range(n):
        pair = f"p{calibration}_{number}"
        world.answer(
            1, "base", 0.97, 0.02, 0.01, pair=pair, calibrated=said, calibration=calibration
        )
        correct = "refutes" if number % 5 == 0 else "supports"
        world.review(2, "base", pair_key=pair, correct=correct)


def test_a_calibration_alert_ends_with_a_new_calibration(make: Callable[..., WatchedWorld]) -> None:
    world = make()
    row = {
        "method": "temperature", "params_json": "{}", "samples": 100, "created_at": day(1),
        "base_model": BASE, "source": "base",
    }  # fmt: skip
    world.add("nli_calibrations", {"id": "a", "version": 1, "is_current": 1, **row})
    answers_under(world, 1, 0.99, 150)
    assert found(check(world.workspace, TODAY)) == {"calibration": True}
    with write(world.workspace.engine) as connection:
        connection.execute(tables.nli_calibrations.update().values(is_current=0))
    world.add("nli_calibrations", {"id": "b", "version": 2, "is_current": 1, **row})
    answers_under(world, 2, 0.8, 150)
    checked = check(world.workspace, TODAY)
    [finding] = checked.findings
    assert (finding.exceeded, [alert.rule for alert in checked.resolved]) == (
        False,
        ["calibration"],
    )
    assert " 150 reviewed answers" in finding.message, "not those of the calibration before"


def test_too_few_for_a_calibration(make: Callable[..., WatchedWorld]) -> None:
    world = make()
    assert calibration_error([]) is None
    for number in range(99):
        world.answer(1, "base", 0.97, 0.02, 0.01, pair=f"p{number}")
        world.review(2, "base", pair_key=f"p{number}", correct="refutes")
    assert found(check(world.workspace, TODAY)) == {"calibration": None}


def compared(
    world: WatchedWorld, offset: int, one: str, other: str, n: Any, parted: Any, **more: Any
) -> None:
    row = {
        "id": f"ncmp_{offset}{one}{other}{n}", "at": f"{day(offset)}T08:00:00+00:00",
        "kind": "shadow", "base_model": BASE, "one": one, "other": other,
        "compared": n, "disagreed": parted, **more,
    }  # fmt: skip
    world.add("nli_comparisons", row)


def test_versions_that_disagree(make: Callable[..., WatchedWorld]) -> None:
    world = make()
    serve(world, V1, None, 20)
    compared(world, 35, V1, V2, 100, 5)
    compared(world, 36, V2, V1, 400, 120)
    compared(world, 37, V1, "base", 400, 400)
    compared(world, 38, "lora-lyra-v3", V1, 10, 3)
    compared(world, 39, V2, "lora-lyra-v3", 400, 400)
    checked = check(world.workspace, TODAY)
    disagreement = {f.version: f.exceeded for f in checked.findings if f.rule == "disagreement"}
    assert disagreement == {V2: True, "lora-lyra-v3": False}
    assert "disagree about the same pairs: 25.0% of 500" in checked.open[0].message


def test_only_live_traffic_of_this_week_tells_of_disagreement(
    make: Callable[..., WatchedWorld],
) -> None:
    world = make()
    serve(world, V1, None, 20)
    compared(world, 39, V1, V2, 400, 400, kind="compare")
    compared(world, 33, V1, "lora-lyra-v3", 400, 400)
    compared(world, 34, V1, "lora-lyra-v4", 400, 400)
    checked = check(world.workspace, TODAY)
    assert [f.version for f in checked.findings if f.rule == "disagreement"] == ["lora-lyra-v4"]


def test_drift(make: Callable[..., WatchedWorld]) -> None:
    world = make()
    world.count(38, "base", "length", **{"64": 900, "1024": 100})
    world.count(20, "base", "length", **{"64": 500, "1024": 500})
    world.count(38, "base", "label", supports=50)
    world.count(38, "base", "calibrated", **{"0.50": 500})
    world.count(20, "base", "calibrated", **{"0.95": 500})
    assert found(check(world.workspace, TODAY)) == {"drift_length": True, "drift_label": None}


def test_nothing_of_it_fails_on_strange_rows(make: Callable[..., WatchedWorld]) -> None:
    world = make()
    serve(world, V1, "lora-lyra-v9", 20)
    world.add(
        "nli_version_events",
        {
            "at": "last week", "who": "", "action": "activate", "base_model": BASE,
            "from_version": "gone", "to_version": V1, "reason": "",
        },
    )  # fmt: skip
    world.review(25, V1, reviewed_at="2999-01-01")
    compared(world, 39, V1, V2, 0, 0)
    with write(world.workspace.engine) as connection:
        connection.execute(tables.nli_comparisons.update().values(details_json="{"))
    checked = check(world.workspace, TODAY)
    assert set(found(checked).values()) == {None}


def test_damaged_rows_are_passed_over(make: Callable[..., WatchedWorld]) -> None:
    world = make()
    worse_version(world)
    for n, chances in enumerate([(0.9, 0.1, 0.0, "text"), ("text", 0.1, 0.0, None)]):
        damaged = dict(zip(("supports", "refutes", "neutral", "calibrated"), chances, strict=True))
        world.answer(24, V1, 0.9, 0.1, 0.0, pair=f"p{n}")
        raw(world, "UPDATE nli_predictions SET {} WHERE pair_key = :pair", pair=f"p{n}", **damaged)
        world.review(25, V1, pair_key=f"p{n}")
    compared(world, 39, V1, V2, 10, 400)
    compared(world, 39, V1, V2, 40, 1)
    raw(world, "UPDATE nli_comparisons SET {} WHERE compared = 40", compared="x")
    for offset, label in ((38, "supports"), (37, "neutral"), (36, "maybe")):
        world.count(offset, V1, "label", **{label: 200})
    raw(world, "UPDATE nli_prediction_counts SET {} WHERE bucket = 'supports'", day="2026-03-45")
    raw(world, "UPDATE nli_prediction_counts SET {} WHERE bucket = 'neutral'", n="many")

    assert found(check(world.workspace, TODAY)) == {"correction_rate": True, "drift_label": None}
    assert overview(world.workspace, today=TODAY).standing.failed == {}
    assert read_report(world.workspace, today=TODAY).labels == []
    said = [r for r in world.ask(read_random_reviews, TODAY) if r.brier is not None]
    assert [(r.brier, r.confidence) for r in said] == [(pytest.approx(0.02), None)]


def raw(world: WatchedWorld, statement: str, **values: Any) -> None:
    """Put in what no column of ours would take."""
    places = ", ".join(f"{name} = :{name}" for name in values if name != "pair")
    with write(world.workspace.engine) as connection:
        connection.execute(text(statement.format(places)), values)


def test_a_rule_that_fails_does_not_silence_the_others(
    make: Callable[..., WatchedWorld], monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make()
    worse_version(world)
    check(world.workspace, TODAY)

    def broken(*_: Any) -> None:
        raise TypeError("no number")

    monkeypatch.setattr(standing, "drifts", broken)
    assert found(check(world.workspace, TODAY)) == {"drift": None, "correction_rate": True}
    monkeypatch.setattr(standing, "last_change", broken)
    checked = check(world.workspace, TODAY)
    assert found(checked) == {"drift": None, "correction_rate": None}
    assert [alert.rule for alert in checked.open] == ["correction_rate"], "nobody can tell"


def test_a_database_that_was_never_upgraded(tmp_path: Path) -> None:
    lyra = LyraDatabase(tmp_path / "lyra.db", NEWER)
    settings = load_settings(None, {"storage": {"database_path": str(lyra.path)}})
    workspace = Workspace.open(settings)
    engine = workspace.engine
    with pytest.raises(StorageError, match="lacks tables"):
        check(workspace)
    with engine.connect() as connection:
        stands = read_standing(connection, workspace.generation, BASE, settings.monitoring)
    assert (stands.version, stands.reviews, stands.events) == ("base", [], [])
    assert findings(stands, settings.monitoring) == []
    engine.dispose()


def test_the_webhook_is_told_and_its_answer_kept(
    make: Callable[..., WatchedWorld], monkeypatch: pytest.MonkeyPatch, receiver: Any
) -> None:
    monkeypatch.setattr(webhook, "WAIT_SECONDS", 0.01)
    world = make(webhook_url=receiver.url)
    worse_version(world)
    checked = check(world.workspace, TODAY)
    assert [alert.action for alert in checked.open] == ["webhook told"]
    [told] = receiver.got
    assert (told["state"], told["rule"], told["version"]) == ("open", "correction_rate", V1)
    assert told["text"].startswith("lyra-nli: correction_rate open: ")
    check(world.workspace, TODAY)
    assert len(receiver.got) == 1
    serve(world, None, V1, 39)
    check(world.workspace, TODAY)
    assert receiver.got[1]["state"] == "resolved"


def test_a_webhook_that_fails_is_recorded(
    make: Callable[..., WatchedWorld], monkeypatch: pytest.MonkeyPatch, receiver: Any
) -> None:
    monkeypatch.setattr(webhook, "WAIT_SECONDS", 0.01)
    receiver.answers = [500] * 3
    world = make(webhook_url=receiver.url)
    worse_version(world)
    [alert] = check(world.workspace, TODAY).open
    assert alert.action == "webhook failed: it answered 500"
    assert world.ask(recent_alerts) == [alert]
    [alert] = check(world.workspace, TODAY).open
    assert alert.action == "webhook failed: it answered 500; webhook told", "tried again"
    check(world.workspace, TODAY)
    assert [told["state"] for told in receiver.got] == ["open"] * 4


def test_no_automatic_rollback_while_other_pairs_come_in(
    make: Callable[..., WatchedWorld],
) -> None:
    world = make(auto_rollback=True)
    worse_version(world)
    world.count(38, V1, "domain", **{"new.org": 900, "old.org": 100})
    world.count(20, V1, "domain", **{"new.org": 100, "old.org": 900})
    actions = {alert.rule: alert.action for alert in check(world.workspace, TODAY).open}
    held = "no rollback while other pairs come in: drift_domain"
    assert actions == {"correction_rate": held, "drift_domain": ""}
    active = world.workspace.registry.active(BASE)
    assert active is not None
    assert active.name == V1


def test_a_rollback_that_can_not_be_made_is_recorded(make: Callable[..., WatchedWorld]) -> None:
    world = make(auto_rollback=True)
    world.reviews(10, V1, 200, 10)
    serve(world, V2, V1, 20)
    world.reviews(25, V2, 100, 25)
    [alert] = check(world.workspace, TODAY).open
    assert alert.action.startswith("no rollback: ")
    active = world.workspace.registry.active(BASE)
    assert active is not None
    assert active.name == V2
    assert check(world.workspace, TODAY).open == [alert], "said once"


def test_a_confidence_that_is_right_has_no_error_beyond_chance() -> None:
    rng = np.random.default_rng(0)
    said = rng.uniform(0.4, 1.0, 1000)
    right = rng.random(1000) < said
    reviews = [
        RandomReview(day(1), "base", "supports", "supports" if hit else "neutral", None, float(s))
        for s, hit in zip(said, right, strict=True)
    ]
    error = calibration_error(reviews)
    assert error is not None
    assert error.value < 0.05
    assert (error.low or 0) <= 0.02
