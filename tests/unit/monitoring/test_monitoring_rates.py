from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pytest
from lyra_databases import NEWER, LyraDatabase, populate
from sqlalchemy import text
from watched_world import WatchedWorld, day

from lyra_nli.monitoring import rates
from lyra_nli.monitoring.rates import by_version, by_week, read_random_reviews
from lyra_nli.monitoring.shares import Share
from lyra_nli.storage.engine import read, write
from lyra_nli.storage.generation import inspect_database


@pytest.fixture
def world(tmp_path: Path) -> Iterator[WatchedWorld]:
    world = WatchedWorld(tmp_path)
    yield world
    world.workspace.engine.dispose()


def reviews(world: WatchedWorld, today: str = day(60)) -> list[rates.RandomReview]:
    found: list[rates.RandomReview] = world.ask(read_random_reviews, date.fromisoformat(today))
    return found


def test_the_first_random_verdict_that_stands_counts(world: WatchedWorld) -> None:
    world.review(0, sampling="queue", edge_id="e", correct="neutral")
    world.review(1, undone_at=day(2), edge_id="e", correct="neutral")
    world.review(3, edge_id="e", correct="refutes")
    world.review(2, edge_id="e")
    world.review(4, sampling="unknown")
    world.review(5, edge_id=None, pair_key="p")
    world.review(6, edge_id=None, pair_key="p", correct="neutral")
    found = reviews(world)
    assert [(r.day, r.corrected) for r in found] == [(day(2), False), (day(5), False)]
    assert by_version(found) == {"base": Share(0, 2)}


def test_a_version_is_found_in_the_log(world: WatchedWorld) -> None:
    world.answer(0, "lora-lyra-v1", 0.8, 0.1, 0.1, pair="p")
    world.answer(1, "lora-lyra-v2", 0.7, 0.2, 0.1, pair="p")
    world.answer(1, "lora-lyra-v3", 0.1, 0.8, 0.1, pair="p")  # another label
    world.answer(3, "lora-lyra-v4", 0.9, 0.0, 0.1, pair="p")  # later
    for predicted_by in (None, "", "lora-lyra-v1", "lora-lyra-v9"):
        world.review(2, predicted_by, pair_key="p", correct="refutes")
    world.review(2, None, pair_key="q")
    first, empty, named, foreign, lost = reviews(world)
    assert [r.version for r in (first, empty)] == ["lora-lyra-v2"] * 2
    assert (named.version, foreign.version, lost.version) == (
        "lora-lyra-v1", "lora-lyra-v9", "unknown",
    )  # fmt: skip
    # (0.7 - 0)^2 + (0.2 - 1)^2 + (0.1 - 0)^2
    assert first.brier == pytest.approx(1.14)
    assert named.brier == pytest.approx(0.8**2 + 0.9**2 + 0.1**2)
    assert (foreign.brier, lost.brier) == (None, None)
    assert (first.confidence, lost.confidence) == (0.7, None)


def test_the_newest_row_wins_whatever_the_clock_did(world: WatchedWorld) -> None:
    world.answer(1, "lora-lyra-v1", 0.8, 0.1, 0.1, pair="p", calibrated=0.6)
    world.answer(0, "lora-lyra-v2", 0.8, 0.1, 0.1, pair="p", calibrated=0.5)
    world.review(2, None, pair_key="p")
    [found] = reviews(world)
    assert (found.version, found.confidence) == ("lora-lyra-v2", 0.5)


@pytest.mark.parametrize("at", ["soon", "", "2026-02-31T00:00:00", "2126-01-01T00:00:00+00:00"])
def test_a_time_that_can_not_be_counts_in_no_week(world: WatchedWorld, at: str) -> None:
    world.review(0, reviewed_at=at)
    world.review(1)
    found = reviews(world)
    assert sorted(r.day for r in found) == ["", day(1)]
    assert by_version(found)["base"].n == 2
    assert [week.corrected.n for week in by_week(found)] == [1]


def test_weeks(world: WatchedWorld) -> None:
    world.reviews(0, "base", 3, 1)
    world.reviews(6, "base", 2, 0)
    world.reviews(7, "base", 1, 1)
    world.answer(5, "lora-lyra-v1", 0.5, 0.5, 0.0, pair="p")
    world.review(6, "lora-lyra-v1", pair_key="p")
    world.review(6, "lora-lyra-v1")
    weeks = by_week(reviews(world))
    shown = [(week.week, week.start, week.version, week.corrected) for week in weeks]
    assert shown == [
        ("2026-W10", day(0), "base", Share(1, 5)),
        ("2026-W10", day(0), "lora-lyra-v1", Share(0, 2)),
        ("2026-W11", day(7), "base", Share(1, 1)),
    ]
    assert weeks[0].accuracy == Share(4, 5)
    assert weeks[1].brier == pytest.approx(0.5)
    assert weeks[1].brier_n == 1


def test_databases_that_were_never_upgraded(tmp_path: Path, world: WatchedWorld) -> None:
    lyra = LyraDatabase(tmp_path / "theirs.db", NEWER)
    populate(lyra)
    engine = lyra.open(read_only=True)
    with read(engine) as connection:
        assert read_random_reviews(connection, inspect_database(engine)) == []
    engine.dispose()

    world.review(0, "base")
    world.review(0, None)
    with write(world.workspace.engine) as connection:
        connection.execute(text("DROP TABLE nli_predictions"))
    with read(world.workspace.engine) as connection:
        found = read_random_reviews(connection, inspect_database(world.workspace.engine))
    assert [r.version for r in found] == ["base", "unknown"]


def test_the_index_is_used(world: WatchedWorld) -> None:
    statement = rates._statement(world.workspace.generation)
    with read(world.workspace.engine) as connection:
        sql = statement.compile(connection.engine)
        values = tuple(sql.params[name] for name in sql.positiontup or ())
        rows = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {sql}", values)
        plan = "\n".join(str(row[3]) for row in rows)
    assert "ix_nli_reviews_random" in plan
    assert "ix_nli_predictions_pair_key (pair_key=?)" in plan
    assert "SCAN nli_predictions" not in plan
    assert "SCAN answer" not in plan
