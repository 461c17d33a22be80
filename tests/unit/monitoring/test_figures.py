from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from lyra_databases import NEWER, LyraDatabase

from lyra_nli.errors import StorageError
from lyra_nli.monitoring.figures import Figures, read_figures
from lyra_nli.settings import Settings
from lyra_nli.storage.upgrade import init_database


def settings(database: Path) -> Settings:
    return Settings.model_validate({"storage": {"database_path": str(database)}})


def write(database: Path, sql: str) -> None:
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute(sql)


def alert(key: str, rule: str, resolved_at: str = "NULL") -> str:
    return (
        "INSERT INTO nli_alerts (id, at, rule, base_model, version, message, resolved_at)"
        f" VALUES ('{key}', '2026-01-01', '{rule}', 'b', 'v', 'm', {resolved_at})"
    )


def test_reviews_due_conditions_and_open_alerts(tmp_path: Path) -> None:
    database = tmp_path / "lyra.db"
    init_database(str(database))
    for key, rule, resolved in (("1", "drift", "NULL"), ("2", "drift", "NULL"), ("3", "ece", "1")):
        write(database, alert(key, rule, resolved))
    found = read_figures(settings(database))

    assert (found.agreed, found.corrected) == (0, 0)
    assert found.open_alerts == {"drift": 2}
    assert [each.name for each in found.conditions] == [
        "samples",
        "correction rate",
        "days since training",
    ]


def test_a_lyra_database_that_was_never_upgraded(tmp_path: Path) -> None:
    lyra = LyraDatabase(tmp_path / "lyra.db", NEWER)
    at = "2026-01-01T00:00:00+00:00"
    lyra.add_edge("a", reviewed_at=at), lyra.add_edge("b", reviewed_at=at)
    lyra.correct(lyra.add_edge("c"), "refutes", at)
    found = read_figures(settings(lyra.path))

    assert isinstance(found, Figures)
    assert (found.agreed, found.corrected) == (2, 1)
    assert found.open_alerts == {}


def test_what_can_not_be_read_is_one_kind_of_error(tmp_path: Path) -> None:
    database = tmp_path / "lyra.db"
    with pytest.raises(StorageError):
        read_figures(settings(database))
    init_database(str(database))
    write(
        database,
        "INSERT INTO nli_training_runs (id, base_model, started_at, finished_at, status) VALUES"
        f" ('r', '{Settings().nli.fast_model}', 'x', 'yesterday', 'done')",
    )
    with pytest.raises(StorageError, match="yesterday"):
        read_figures(settings(database))
