"""When training is due: three figures against three thresholds."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from lyra_databases import NEWER, PROPOSAL, SHAPES, LyraDatabase, Shape
from sqlalchemy import Engine, insert, update

from lyra_nli.feedback.importing import import_file
from lyra_nli.settings import DueSettings
from lyra_nli.storage.engine import open_database, read, write
from lyra_nli.storage.generation import inspect_database
from lyra_nli.storage.reviews import mark_trained, read_reviews
from lyra_nli.storage.runs import finish_run, start_run
from lyra_nli.storage.tables import nli_training_runs, nli_versions
from lyra_nli.storage.upgrade import init_database, upgrade
from lyra_nli.training.due import Due, check_due

NOW = datetime(2026, 6, 15, 12, tzinfo=UTC)
SETTINGS = DueSettings(min_samples=3, min_correction_rate=0.3, min_days=7)


def reviewed(path: Path, corrected: int, agreed: int, *, shape: Shape = NEWER) -> LyraDatabase:
    """A Lyra database in which people corrected and confirmed so many edges."""
    database = LyraDatabase(path, shape)
    for index in range(corrected + agreed):
        edge = database.add_edge(f"e{index}", "supports")
        if index < corrected:
            database.correct(edge, "refutes", "2026-06-01T10:00:00+00:00")
        else:
            database.agree(edge, "2026-06-01T10:00:00+00:00")
    return database


def ask(engine: Engine, settings: DueSettings = SETTINGS, base: str = "starter") -> Due:
    with read(engine) as connection:
        return check_due(connection, inspect_database(engine), settings, base, NOW)


def figures(state: Due) -> dict[str, tuple[float, bool]]:
    return {condition.name: (condition.value, condition.holds) for condition in state.conditions}


@pytest.fixture
def engine(tmp_path) -> Iterator[Engine]:
    """Three corrections among ten reviews, in a database with our own tables."""
    reviewed(tmp_path / "lyra.db", corrected=3, agreed=7)
    engine = open_database(str(tmp_path / "lyra.db"))
    upgrade(engine, backup=False)
    yield engine
    engine.dispose()


def train(
    engine: Engine, ago: timedelta, *, status: str = "done", base: str = "starter", zone: str = ""
) -> None:
    """Note a training that ended some time before the present."""
    at = NOW - ago
    with write(engine) as connection:
        run = start_run(connection, base, None, {})
        finish_run(connection, run, status)  # type: ignore[arg-type]
        connection.execute(
            update(nli_training_runs)
            .where(nli_training_runs.c.id == run)
            .values(finished_at=zone or at.isoformat())
        )


def test_all_three_hold_at_their_thresholds(engine):
    train(engine, timedelta(days=7))
    state = ask(engine)
    assert figures(state) == {
        "samples": (3, True),
        "correction rate": (0.3, True),
        "days since training": (7.0, True),
    }
    assert state.due


@pytest.mark.parametrize(
    ("settings", "failing"),
    [
        ({"min_samples": 4}, "samples"),
        ({"min_correction_rate": 0.31}, "correction rate"),
        ({"min_days": 7.01}, "days since training"),
    ],
)
def test_one_that_does_not_hold_is_enough(engine, settings, failing):
    train(engine, timedelta(days=7))
    state = ask(engine, SETTINGS.model_copy(update=settings))
    assert [condition.name for condition in state.conditions if not condition.holds] == [failing]
    assert not state.due


def test_a_base_that_was_never_trained_need_not_wait(engine):
    train(engine, timedelta(hours=1), base="another")
    condition = ask(engine).conditions[2]
    assert condition.value == math.inf
    assert condition.holds
    assert condition.text == "never trained"


def test_a_failed_training_does_not_count(engine):
    train(engine, timedelta(days=9))
    train(engine, timedelta(hours=1), status="failed")
    assert ask(engine).conditions[2].value == pytest.approx(9)


def test_the_last_training_counts(engine):
    train(engine, timedelta(days=2))
    train(engine, timedelta(days=9))
    condition = ask(engine).conditions[2]
    assert condition.value == pytest.approx(2)
    assert condition.text == "2.0 days since the last training"


def test_times_without_a_zone_are_utc(engine):
    train(engine, timedelta(), zone="2026-06-14T12:00:00")
    assert ask(engine).conditions[2].value == pytest.approx(1)


def test_what_was_trained_on_is_no_new_sample_but_still_a_correction(tmp_path):
    database = reviewed(tmp_path / "lyra.db", corrected=4, agreed=4)
    database.mark_used("nlc_e0")
    engine = database.open()
    state = ask(engine)
    engine.dispose()
    assert figures(state)["samples"] == (3, True)
    assert figures(state)["correction rate"] == (0.5, True)
    assert state.conditions[1].text == "4 of 8 reviewed edges were corrected (50.0%)"


def test_nobody_reviewed_anything(tmp_path):
    engine = reviewed(tmp_path / "lyra.db", 0, 0).open()
    state = ask(engine)
    engine.dispose()
    assert figures(state)["samples"] == (0, False)
    assert figures(state)["correction rate"] == (0.0, False)
    assert not state.due


@pytest.mark.parametrize("shape", SHAPES)
def test_a_lyra_database_as_it_is_can_be_asked_read_only(tmp_path, shape):
    database = reviewed(tmp_path / "lyra.db", 3, 5, shape=SHAPES[shape])
    before = database.path.read_bytes()
    engine = database.open(read_only=True)
    state = ask(engine)
    engine.dispose()
    assert figures(state) == {
        "samples": (3, True),
        "correction rate": (3 / 8, True),
        "days since training": (math.inf, True),
    }
    assert database.path.read_bytes() == before


def test_what_another_base_learned_is_not_yet_learned(tmp_path):
    init_database(str(tmp_path / "lyra.db"))
    engine = open_database(str(tmp_path / "lyra.db"))
    rows = [
        {"premise": f"P{n}.", "hypothesis": "H.", "predicted_label": "supports",
         "predicted_confidence": 0.9, "correct_label": "refutes", "reviewed_at": "2026-06-01"}
        for n in range(3)
    ]  # fmt: skip
    file = tmp_path / "reviews.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    import_file(engine, file)

    def learn(base: str, version: str) -> None:
        with write(engine) as connection:
            run = start_run(connection, base, None, {})
            finish_run(connection, run, "done")
            connection.execute(insert(nli_versions).values(
                name=version, base_model=base, base_fingerprint="", path="", digest="",
                status="passed", created_at="2026-06-02", samples_used=3,
            ))  # fmt: skip
            generation = inspect_database(engine)
            ids = [review.id for review in read_reviews(connection, generation).reviews]
            mark_trained(connection, generation, ids, version, None)

    learn("fast", "lora-lyra-v1")
    assert ask(engine, base="fast").conditions[0].value == 0
    assert ask(engine, base="slow").conditions[0].value == 3
    learn("slow", "lora-lyra-v2")
    assert ask(engine, base="slow").conditions[0].value == 0
    # The rows carry the slow base's version now; the fast one learned from them all the same.
    assert ask(engine, base="fast").conditions[0].value == 0
    engine.dispose()


def test_so_it_is_of_corrections_that_no_review_is_linked_to(tmp_path):
    reviewed(tmp_path / "lyra.db", corrected=3, agreed=7, shape=PROPOSAL)
    engine = open_database(str(tmp_path / "lyra.db"))
    upgrade(engine, backup=False)
    with write(engine) as connection:
        generation = inspect_database(engine)
        assert generation.has_used_for_training
        ids = [review.id for review in read_reviews(connection, generation).reviews]
        run = start_run(connection, "fast", None, {})
        finish_run(connection, run, "done")
        mark_trained(connection, generation, ids, "lora-lyra-v1", None)
    assert ask(engine, base="fast").conditions[0].value == 0
    assert ask(engine, base="slow").conditions[0].value == 3
    engine.dispose()
