from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from watched_world import BASE, WatchedWorld, day

from lyra_nli.monitoring.alerts import (
    Alert,
    Finding,
    note,
    note_action,
    open_alerts,
    recent_alerts,
)
from lyra_nli.storage.engine import write

WORSE = Finding("correction_rate", BASE, "v2", True, 50.0, 20.0, "worse")
ALERTS = tuple[list[Alert], list[Alert]]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[WatchedWorld]:
    world = WatchedWorld(tmp_path)
    yield world
    world.workspace.engine.dispose()


def noted(
    world: WatchedWorld, *findings: Finding, base: str = BASE, failed: tuple[str, ...] = ()
) -> ALERTS:
    with write(world.workspace.engine) as connection:
        return note(connection, base, findings, failed)


def test_raised_once_and_resolved_when_over(world: WatchedWorld) -> None:
    [raised], resolved = noted(world, WORSE)
    assert resolved == []
    assert (raised.rule, raised.version, raised.value, raised.threshold) == (
        "correction_rate", "v2", 50.0, 20.0,
    )  # fmt: skip
    assert noted(world, WORSE) == ([], [])
    assert noted(world, replace(WORSE, exceeded=None)) == ([], [])
    assert world.ask(open_alerts) == [raised]
    raised_again, [over] = noted(world, replace(WORSE, exceeded=False))
    assert (raised_again, over.id) == ([], raised.id)
    assert world.ask(open_alerts) == []
    [kept] = world.ask(recent_alerts)
    assert kept.resolved_at is not None
    [anew], _ = noted(world, WORSE)
    assert anew.id != raised.id


def test_each_rule_and_version_for_itself(world: WatchedWorld) -> None:
    drift = replace(WORSE, rule="drift_label")
    raised, _ = noted(world, WORSE, drift, replace(WORSE, version="v3"))
    assert len(raised) == 3
    _, over = noted(world, drift)
    assert {(alert.rule, alert.version) for alert in over} == {
        ("correction_rate", "v2"), ("correction_rate", "v3"),
    }  # fmt: skip


def test_what_can_not_be_judged_stays_open(world: WatchedWorld) -> None:
    drift = replace(WORSE, rule="drift_label")
    noted(world, WORSE, drift)
    assert noted(world, WORSE, failed=("drift",)) == ([], [])
    assert len(world.ask(open_alerts)) == 2
    assert [alert.rule for alert in noted(world, WORSE)[1]] == ["drift_label"]


def test_bases_do_not_mix(world: WatchedWorld) -> None:
    noted(world, WORSE)
    noted(world, replace(WORSE, base_model="other"), base="other")
    assert noted(world, base="other")[1][0].base_model == "other"
    assert len(world.ask(open_alerts)) == 1
    assert world.ask(open_alerts, "other") == []
    assert len(world.ask(recent_alerts, "other")) == 1


def test_what_was_done_is_kept(world: WatchedWorld) -> None:
    [alert], _ = noted(world, WORSE)
    with write(world.workspace.engine) as connection:
        note_action(connection, alert.id, ["rolled back to base"])
    assert world.ask(open_alerts) == [replace(alert, action="rolled back to base")]
    # Another watch, which read the alert before that, adds what it did.
    with write(world.workspace.engine) as connection:
        note_action(connection, alert.id, ["webhook told", "rolled back to base"])
    assert world.ask(open_alerts)[0].action == "rolled back to base; webhook told"


def test_an_alert_from_before_the_change_is_about_something_else(world: WatchedWorld) -> None:
    [first], _ = noted(world, replace(WORSE, since=day(20)))
    assert noted(world, replace(WORSE, since=day(20))) == ([], [])
    unsure = replace(WORSE, exceeded=None, since="2999-01-01")
    assert [over.id for over in noted(world, unsure)[1]] == [first.id]
    [again], _ = noted(world, WORSE)
    [anew], [over] = noted(world, replace(WORSE, since="2999-01-01"))
    assert (over.id, anew.id != again.id) == (again.id, True)
