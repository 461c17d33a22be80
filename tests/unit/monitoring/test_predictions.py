from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from lyra_databases import LyraDatabase

from lyra_nli.monitoring import prediction_rows, predictions
from lyra_nli.monitoring.prediction_rows import Judged, recent
from lyra_nli.monitoring.predictions import PredictionLog
from lyra_nli.records import Judgement, Pair
from lyra_nli.settings import MonitoringSettings, StorageSettings
from lyra_nli.storage.engine import open_database, read
from lyra_nli.storage.generation import inspect_database
from lyra_nli.storage.upgrade import init_database

PAIR = Pair("Prémise of ten.", "Ten holds.")


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predictions, "FLUSH_SECONDS", 0.01)
    monkeypatch.setattr(predictions, "BUSY_SECONDS", 0.05)


@pytest.fixture
def database(tmp_path: Path) -> Path:
    init_database(str(tmp_path / "lyra.db"))
    return tmp_path / "lyra.db"


@contextmanager
def logging_to(database: Path, **settings: Any) -> Iterator[PredictionLog]:
    storage = StorageSettings(database_path=str(database))
    log = PredictionLog(storage, MonitoringSettings(**settings))
    log.start()
    try:
        yield log
    finally:
        log.close()


def judged(n: int = 1, *, at: str = "2026-03-01T10:00:00+00:00", **changes: Any) -> Judged:
    judgement = Judgement(
        label="refutes",
        confidence=0.7,
        probabilities={"supports": 0.2, "refutes": 0.7, "neutral": 0.1},
        raw_label="contradiction",
        truncated=False,
        adapter="lora-lyra-v1",
        calibrated_confidence=0.6,
        calibration=3,
    )
    values = {"pairs": [PAIR] * n, "judgements": [judgement] * n, "milliseconds": 12.5}
    return Judged(**{"at": at, "base_model": "b", "sources": (), **values, **changes})


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.005)


def rows(database: Path, sql: str = "SELECT * FROM nli_predictions") -> list[sqlite3.Row]:
    with closing(sqlite3.connect(database)) as connection:
        connection.row_factory = sqlite3.Row
        return connection.execute(sql).fetchall()


def test_what_was_answered_is_kept_without_its_texts(database: Path) -> None:
    with logging_to(database) as log:
        log.put(judged(sources=["https://www.example.co.uk/a?b=c"]))

    assert [dict(row) for row in rows(database)] == [
        {
            "id": 1,
            "at": "2026-03-01T10:00:00+00:00",
            "pair_key": PAIR.key,
            "base_model": "b",
            "version": "lora-lyra-v1",
            "label": "refutes",
            "supports": 0.2,
            "refutes": 0.7,
            "neutral": 0.1,
            "calibrated": 0.6,
            "calibration": 3,
            "premise_chars": 15,
            "hypothesis_chars": 10,
            "milliseconds": 12.5,
            "domain": "example.co.uk",
            "premise": None,
            "hypothesis": None,
        }
    ]
    counted = rows(database, "SELECT kind, bucket, n FROM nli_prediction_counts ORDER BY kind")
    assert [tuple(row) for row in counted] == [
        ("calibrated", "0.60", 1),
        ("confidence", "0.70", 1),
        ("domain", "example.co.uk", 1),
        ("label", "refutes", 1),
        ("latency", "8", 1),
        ("length", "16", 1),
    ]


def test_texts_are_kept_when_the_settings_say_so(database: Path) -> None:
    with logging_to(database, log_texts=True) as log:
        log.put(judged(pairs=[Pair("a\0b", "c")]))

    [row] = rows(database)
    assert (row["premise"], row["hypothesis"]) == ("a?b", "c")


def test_a_share_is_drawn(database: Path) -> None:
    with logging_to(database, log_share=0.25) as log:
        log.put(judged(2000))

    [(n,)] = rows(database, "SELECT count(*) FROM nli_predictions")
    assert 400 < n < 600  # five standard deviations
    [(counted,)] = rows(database, "SELECT n FROM nli_prediction_counts WHERE kind = 'label'")
    assert counted == n == log.status().written


def test_a_share_of_nothing_is_no_log(database: Path) -> None:
    with logging_to(database, log_share=0) as log:
        log.put(judged())
        assert log.status().state == "off"

    assert rows(database) == []


def test_the_oldest_rows_go_and_the_counts_stay(database: Path) -> None:
    with logging_to(database, keep_predictions=100) as log:
        for i in range(5):
            log.put(judged(50, milliseconds=float(i)))
            until(lambda n=50 * (i + 1): log.status().written == n)  # type: ignore[misc]
        kept = rows(database)

    assert [row["milliseconds"] for row in kept] == [3.0] * 50 + [4.0] * 50
    [(n,)] = rows(database, "SELECT n FROM nli_prediction_counts WHERE kind = 'label'")
    assert n == 250


def test_a_log_that_is_far_too_long_gets_shorter_step_by_step(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with logging_to(database) as log:
        log.put(judged(1000))
    monkeypatch.setattr(prediction_rows, "ROWS_AT_ONCE", 50)
    left: list[int] = []
    with logging_to(database, keep_predictions=10) as log:
        for i in range(6):
            log.put(judged(1))
            until(lambda n=i + 1: log.status().written == n)  # type: ignore[misc]
            left += rows(database, "SELECT count(*) FROM nli_predictions")[0]

    assert left == [800, 600, 400, 200, 10, 10]


def test_a_database_that_appears_is_written_to(tmp_path: Path) -> None:
    database = tmp_path / "lyra.db"
    with logging_to(database) as log:
        until(lambda: log.status().state == "waiting")
        assert "lyra-nli db init" in log.status().problem
        log.put(judged(3))
        init_database(str(database))
        until(lambda: log.status().state == "on")
        log.put(judged(2))
        until(lambda: log.status().written >= 2)
        assert log.status().dropped == 0
        assert log.status().problem == ""


def test_a_database_that_was_never_upgraded_is_left_alone(tmp_path: Path) -> None:
    lyra = LyraDatabase(tmp_path / "lyra.db")
    before = lyra.dump()
    with logging_to(lyra.path) as log:
        log.put(judged())
        until(lambda: log.status().state == "waiting")
        assert "lyra-nli db upgrade" in log.status().problem

    assert log.status().dropped == 0
    assert lyra.dump() == before


def test_a_locked_database_costs_rows_and_is_told_once_a_minute(
    database: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with logging_to(database) as log, caplog.at_level(logging.WARNING):
        with closing(sqlite3.connect(database, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            for n in (2, 5):
                log.put(judged(2 if n == 2 else 3))
                until(lambda n=n: log.status().dropped == n)  # type: ignore[misc]
            assert log.status().state == "failing"
            assert "locked" in log.status().problem
        log.put(judged(4))
        until(lambda: log.status().written == 4)
        assert log.status().state == "on"

    assert len(rows(database)) == 4
    [said] = [record.message for record in caplog.records]
    assert said.startswith("2 predictions were not")


def test_the_next_line_of_the_minute_counts_all_that_was_dropped_since(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predictions, "MAX_WAITING", 2)
    log = PredictionLog(StorageSettings(database_path=str(tmp_path / "x")), MonitoringSettings())
    with caplog.at_level(logging.WARNING):
        log.put(judged(3))  # too many, but nothing waited
        for _ in range(4):
            log.put(judged(5))
        monkeypatch.setattr(log, "_silent_until", 0.0)
        log.put(judged(5))

    assert log.status().dropped == 25
    said = [record.message for record in caplog.records]
    assert [line.split()[0] for line in said] == ["5", "20"]
    assert "2 pairs wait to be written already" in said[0]


@pytest.mark.parametrize(
    "content", [b"no database at all", b"SQLite format 3\x00" + b"\xff" * 4096], ids=str
)
def test_a_broken_database_costs_rows_and_nothing_else(tmp_path: Path, content: bytes) -> None:
    database = tmp_path / "lyra.db"
    database.write_bytes(content)
    with logging_to(database) as log:
        log.put(judged(2))
        until(lambda: log.status().dropped == 2)
        assert log.status().state == "failing"

    assert database.read_bytes() == content


def test_a_table_that_another_program_changed_costs_rows(database: Path) -> None:
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("ALTER TABLE nli_predictions DROP COLUMN neutral")
    with logging_to(database) as log:
        log.put(judged(2))
        until(lambda: log.status().dropped == 2)
        assert "neutral" in log.status().problem

    assert rows(database, "SELECT * FROM nli_prediction_counts") == [], "all or nothing"


def test_closing_writes_what_waits(database: Path) -> None:
    with logging_to(database) as log:
        for _ in range(30):
            log.put(judged(100))

    assert log.status() == predictions.LogStatus("ended", written=3000)
    assert len(rows(database)) == 3000


def test_recent_answers_come_newest_first(database: Path) -> None:
    with logging_to(database) as log:
        log.put(judged(3, milliseconds=1.0))
        log.put(judged(1, milliseconds=2.0))
    engine = open_database(str(database))
    generation = inspect_database(engine)
    with read(engine) as connection:
        found = recent(connection, generation, limit=2)

    assert [(row["id"], row["milliseconds"]) for row in found] == [(4, 2.0), (3, 1.0)]


def test_a_database_that_was_never_upgraded_has_no_recent_answers(tmp_path: Path) -> None:
    engine = LyraDatabase(tmp_path / "old.db").open()
    generation = inspect_database(engine)
    with read(engine) as connection:
        assert recent(connection, generation) == []
