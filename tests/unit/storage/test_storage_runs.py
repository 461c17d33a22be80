from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from lyra_databases import LyraDatabase, fetch
from sqlalchemy import Engine

from lyra_nli.errors import StorageError
from lyra_nli.storage.engine import open_database, read, write
from lyra_nli.storage.runs import finish_run, last_finished_training, start_run
from lyra_nli.storage.upgrade import init_database


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    init_database(str(tmp_path / "lyra.db"))
    engine = open_database(str(tmp_path / "lyra.db"))
    yield engine
    engine.dispose()


def last(engine: Engine, base_model: str | None = None) -> str | None:
    with read(engine) as connection:
        return last_finished_training(connection, base_model)


def test_a_run_is_kept_with_its_reason_recipe_and_end(engine: Engine, tmp_path: Path) -> None:
    with write(engine) as connection:
        run = start_run(connection, "starter", "the boss asked", {"rank": 8})
    with write(engine) as connection:
        finish_run(connection, run, "done", "fine", dataset_hash="abc", samples=123)
    ((forced, recipe, status, message, digest, samples),) = fetch(
        tmp_path / "lyra.db",
        "SELECT forced_reason, recipe_json, status, message, dataset_hash, samples"
        " FROM nli_training_runs WHERE id = ?",
        run,
    )
    assert (forced, json.loads(str(recipe))) == ("the boss asked", {"rank": 8})
    assert (status, message, digest, samples) == ("done", "fine", "abc", 123)


def test_the_last_training_is_the_last_that_was_finished_of_that_base(engine: Engine) -> None:
    assert last(engine) is None
    with write(engine) as connection:
        of_a = start_run(connection, "a", None, {})
        of_b = start_run(connection, "b", None, {})
        failed = start_run(connection, "a", None, {})
        start_run(connection, "a", None, {})
    with write(engine) as connection:
        finish_run(connection, of_a, "done")
    with write(engine) as connection:
        finish_run(connection, of_b, "done")
        finish_run(connection, failed, "failed", "out of memory")
    of_a_at, of_b_at = last(engine, "a"), last(engine, "b")
    assert of_a_at is not None
    assert of_b_at is not None
    assert of_a_at < of_b_at == last(engine)
    assert last(engine, "c") is None


def test_a_run_that_never_began_cant_end(engine: Engine) -> None:
    with pytest.raises(StorageError, match="no training run 'x'"), write(engine) as connection:
        finish_run(connection, "x", "done")


def test_a_database_that_was_never_upgraded_has_no_training(tmp_path: Path) -> None:
    engine = LyraDatabase(tmp_path / "old.db").open(read_only=True)
    assert last(engine) is None
    engine.dispose()


def test_a_training_of_one_domain_is_not_the_last_one(engine: Engine) -> None:
    with write(engine) as connection:
        general = start_run(connection, "a", None, {})
        finish_run(connection, general, "done")
    finished = last(engine, "a")
    with write(engine) as connection:
        finish_run(connection, start_run(connection, "a", None, {}, "example.org"), "done")
    assert last(engine, "a") == finished
