from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pytest
from sqlalchemy import text
from watched_world import BASE, WatchedWorld, day

from lyra_nli.monitoring import overview as module
from lyra_nli.monitoring.overview import Overview, Queue, overview
from lyra_nli.monitoring.rates import RandomReview, first_week
from lyra_nli.monitoring.report import LabelWeek, read_report
from lyra_nli.monitoring.shares import Share
from lyra_nli.storage.engine import write
from lyra_nli.workspace import Workspace

TODAY = date.fromisoformat(day(40))


@pytest.fixture
def world(tmp_path: Path) -> Iterator[WatchedWorld]:
    world = WatchedWorld(tmp_path)
    yield world
    world.workspace.engine.dispose()


def look(world: WatchedWorld) -> Overview:
    return overview(world.workspace, today=TODAY)


def add_edges(world: WatchedWorld, waiting: int) -> None:
    kinds = ["supports"] * waiting + ["cites", "supports"]
    rows = [
        {
            "id": f"e{n}", "source_type": "fragment", "source_id": "f", "target_type": "claim",
            "target_id": "c", "relation": kind, "edge_human_corrected": int(n == waiting + 1),
        }
        for n, kind in enumerate(kinds)
    ]  # fmt: skip
    world.add("edges", *rows)


def test_an_empty_database(world: WatchedWorld) -> None:
    found = look(world)
    assert (found.serving.version, found.serving.since, found.change) == ("base", None, None)
    assert found.standing.rate == Share(0, 0)
    assert found.queue == Queue(0, 0, 0, 0)
    assert (found.calibration, found.last_run, found.alerts, found.missing) == (None, None, [], [])
    assert found.next == [
        "Review what is drawn at random: base has 0 such reviews, too few for its correction rate.",
        "Not yet due: 0 corrections not yet trained on.",
    ]


def test_everything_of_today(world: WatchedWorld) -> None:
    world.reviews(10, "base", 40, 4)
    world.event(20, "lora-lyra-v1", None, action="deactivate", reason="try")
    world.event(21, "lora-lyra-v1", None, action="remove")
    world.add(
        "nli_training_runs",
        *(
            {
                "id": f"run_{n}", "base_model": base, "started_at": day(n), "status": "running",
                "recipe_json": "{}",
            }
            for n, base in enumerate([BASE, BASE, "other"])
        ),
    )  # fmt: skip
    add_edges(world, 3)
    scores = [
        {"kind": kind, "edge_id": f"e{n}", "score": 1.0, "at": day(1)}
        for n, kind in enumerate(["suspect", "suspect", "disagree"])
    ]
    world.add("nli_queue_scores", *scores)
    leases = [
        {
            "edge_id": f"e{n}", "token": str(n), "purpose": "first", "sampling": "random",
            "expires_at": at,
        }
        for n, at in enumerate(["2999-01-01", day(0)])
    ]  # fmt: skip
    world.add("nli_leases", *leases)
    found = look(world)
    assert (found.serving.who, found.serving.reason) == ("ada", "try")
    assert found.serving.since == f"{day(20)}T09:00:00+00:00"
    assert found.standing.rate == Share(4, 40)
    assert found.queue == Queue(waiting=3, on_screens=1, suspects=2, disagree=1)
    assert found.queue.text == ("3 to review, 1 on screens, 2 suspect, 1 where versions disagree")
    assert found.last_run is not None
    assert found.last_run["id"] == "run_1"
    assert "recipe_json" not in found.last_run
    assert found.next[0].startswith("Look again at 2 suspect labels")


def test_many_edges_are_not_counted_to_the_end(
    world: WatchedWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_edges(world, 9)
    monkeypatch.setattr(module, "MANY", 5)
    queue = look(world).queue
    assert queue is not None
    assert queue.text.startswith("5 or more to review")


def test_a_database_of_the_release_before(world: WatchedWorld) -> None:
    world.reviews(10, "base", 4, 1)
    world.review(10, "base", reviewed_at="never")
    late = ("nli_predictions", "nli_prediction_counts", "nli_comparisons", "nli_alerts")
    with write(world.workspace.engine) as connection:
        for table in late:
            connection.execute(text(f"DROP TABLE {table}"))
    workspace = Workspace.open(world.settings, read_only=True)
    found = overview(workspace, today=TODAY)
    assert found.standing.rate == Share(1, 5)
    assert [sentence.split(":")[0] for sentence in found.missing] == [
        "Answers, alerts and comparisons are not kept",
        "1 random reviews have no readable time, or one that has not come yet",
    ]
    report = read_report(workspace, today=TODAY)
    assert (report.labels, report.drifts) == ([], [])
    assert report.versions == {"base": Share(1, 5)}
    workspace.engine.dispose()


def test_reviews_that_were_read_already(world: WatchedWorld) -> None:
    read_already = [RandomReview(day(1), "base", "supports", "neutral")]
    found = overview(world.workspace, today=TODAY, reviews=read_already)
    assert found.standing.rate == Share(1, 1)


def test_it_waits_for_no_heavy_library() -> None:
    code = (
        "import sys, lyra_nli.monitoring.overview, lyra_nli.monitoring.report, "
        "lyra_nli.monitoring.watch\n"
        "sys.exit(' '.join({'torch', 'scipy', 'sklearn', 'fastapi', 'httpx'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stderr.strip() == ""


@pytest.mark.parametrize("today", [date(2026, 3, 2), date(2026, 3, 4), date(2026, 3, 8)])
def test_the_first_week_is_a_whole_one(today: date) -> None:
    assert first_week(today) == "2025-03-03"  # a Monday


def test_labels_by_week(world: WatchedWorld) -> None:
    world.count(0, "base", "label", supports=3, neutral=1)
    world.count(6, "base", "label", supports=4)
    world.count(7, "base", "label", refutes=5)
    world.count(7, "base", "length", **{"64": 5})
    report = read_report(world.workspace, today=TODAY)
    assert report.labels == [
        LabelWeek("2026-W10", day(0), "base", {"supports": 7, "refutes": 0, "neutral": 1}),
        LabelWeek("2026-W11", day(7), "base", {"supports": 0, "refutes": 5, "neutral": 0}),
    ]
    assert report.labels[0].text == "supports 87.5%, refutes 0.0%, neutral 12.5% of 8"
