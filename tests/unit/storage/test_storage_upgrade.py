from __future__ import annotations

import os
import re
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from alembic import command
from lyra_databases import NEWER, OLDER, SHAPES, LyraDatabase, Shape, fetch, names_of, populate
from sqlalchemy import event, text

from lyra_nli.errors import StorageError
from lyra_nli.storage import tables
from lyra_nli.storage.engine import open_database, read, write
from lyra_nli.storage.generation import inspect_database
from lyra_nli.storage.reviews import count_reviews
from lyra_nli.storage.upgrade import _config, init_database, plan_upgrade, upgrade

OURS = {
    table.name for table in tables.metadata.sorted_tables if table.info.get("owner") == "lyra-nli"
}


@pytest.fixture(params=SHAPES)
def database(request: pytest.FixtureRequest, tmp_path: Path) -> LyraDatabase:
    database = LyraDatabase(tmp_path / "lyra.db", SHAPES[request.param])
    populate(database)
    return database


def upgrade_path(path: Path, *, backup: bool = True) -> tuple[tuple[str, ...], Path | None]:
    engine = open_database(str(path), busy_timeout=5)
    try:
        result = upgrade(engine, backup=backup)
    finally:
        engine.dispose()
    return result.added, result.backup


# --- new databases ------------------------------------------------------------------------


def test_init_makes_every_table_and_then_has_nothing_to_do(tmp_path: Path) -> None:
    path = tmp_path / "data" / "lyra.db"
    made = init_database(str(path))
    assert set(names_of(path)) == {*tables.metadata.tables, "nli_schema_version"}
    assert sum(line.startswith("table ") for line in made) == len(tables.metadata.tables) + 1
    assert init_database(str(path)) == []
    assert fetch(path, "PRAGMA integrity_check") == [("ok",)]


def test_the_migrations_make_what_the_tables_module_says(tmp_path: Path) -> None:
    init_database(str(tmp_path / "migrated.db"))
    engine = open_database(str(tmp_path / "declared.db"), create=True)
    with write(engine) as connection:
        tables.metadata.create_all(connection)
    engine.dispose()

    def schema(name: str) -> dict[object, str]:
        rows = fetch(tmp_path / name, "SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL")
        return {key: re.sub(r"\s+", " ", str(sql)) for key, sql in rows}

    migrated = schema("migrated.db")
    del migrated["nli_schema_version"]
    assert migrated == schema("declared.db")


def test_init_fills_an_empty_file(tmp_path: Path) -> None:
    (tmp_path / "lyra.db").touch()
    assert init_database(str(tmp_path / "lyra.db"))


def test_init_refuses_a_lyra_database_and_leaves_it_alone(database: LyraDatabase) -> None:
    before = database.path.read_bytes()
    with pytest.raises(StorageError, match=r"already.*\n.*db upgrade --db .*lyra\.db"):
        init_database(str(database.path))
    assert database.path.read_bytes() == before


def test_init_on_an_upgraded_lyra_database_has_nothing_to_do(database: LyraDatabase) -> None:
    upgrade_path(database.path)
    assert init_database(str(database.path)) == []


def test_init_refuses_a_foreign_database(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "x.db")) as connection:
        connection.execute("CREATE TABLE bookmarks (id)")
    with pytest.raises(StorageError, match="bookmarks"):
        init_database(str(tmp_path / "x.db"))
    assert names_of(tmp_path / "x.db") == ["bookmarks"]


# --- existing databases -------------------------------------------------------------------


def test_the_plan_is_what_the_upgrade_adds_and_the_second_run_adds_nothing(
    database: LyraDatabase,
) -> None:
    reading = database.open(read_only=True)
    plan = plan_upgrade(reading)
    assert plan
    added, _ = upgrade_path(database.path)
    assert list(added) == plan
    assert plan_upgrade(reading) == []
    reading.dispose()
    assert upgrade_path(database.path) == ((), None)
    backups = [path.name for path in database.path.parent.iterdir() if "backup" in path.name]
    assert len(backups) == 1


def test_nothing_of_the_users_changes(database: LyraDatabase) -> None:
    rows = {
        name: fetch(database.path, f"SELECT * FROM {name} ORDER BY 1")
        for name in names_of(database.path)
    }
    schema = dict(fetch(database.path, "SELECT name, sql FROM sqlite_master"))
    upgrade_path(database.path)
    for name, before in rows.items():
        after = fetch(database.path, f"SELECT * FROM {name} ORDER BY 1")
        assert [row[: len(old)] for row, old in zip(after, before, strict=True)] == before
    after_schema = dict(fetch(database.path, "SELECT name, sql FROM sqlite_master"))
    changed = {name for name, sql in schema.items() if after_schema[name] != sql}
    assert changed <= {"nli_corrections"}
    assert fetch(database.path, "PRAGMA foreign_key_check") == []
    assert fetch(database.path, "PRAGMA journal_mode") == [("delete",)]


def test_what_each_generation_lacks_is_added(tmp_path: Path) -> None:
    added = {}
    for name, shape in SHAPES.items():
        database = LyraDatabase(tmp_path / f"{name}.db", shape)
        words, _ = upgrade_path(database.path)
        added[name] = {line.split(":")[0] for line in words}
    own = {f"table {name}" for name in OURS} | {
        "index ix_edges_human_corrected",
        "table nli_schema_version",
        "column nli_reviews.undone_at",
        "column nli_reviews.before_json",
        "index ix_nli_reviews_reviewed_at",
        "index ix_nli_reviews_undone",
        "index ix_nli_edges_confidence",
        "index ix_nli_edges_created",
        "index ix_nli_edges_target",
        "column nli_calibrations.base_model",
        "column nli_calibrations.source",
        "column nli_calibrations.metrics_json",
        "column nli_calibration_events.base_model",
        "column nli_calibration_events.source",
        "index ix_nli_reviews_random",
    }
    rest = {
        f"table {name}"
        for name in ("calibration_evaluations", "domain_override_rules", "domain_override_events")
    }
    mark = "column nli_corrections.trained_adapter_id"
    assert added["newer"] == own
    assert added["older"] == own | rest | {mark, "table adapters"}
    assert added["proposal"] == own | rest | {"table adapters"}
    assert added["newer edges, older corrections"] == added["older"]
    assert added["older edges, newer corrections"] == own | rest


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_the_first_version_of_our_tables_is_brought_up_to_date(
    tmp_path: Path, shape: Shape
) -> None:
    database = LyraDatabase(tmp_path / "lyra.db", shape)
    populate(database)
    engine = database.open()
    with write(engine) as connection:
        config = _config()
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
    with write(engine) as connection:
        connection.execute(
            text(
                "INSERT INTO nli_reviews (id, edge_id, pair_key, premise, hypothesis,"
                " predicted_label, correct_label, reviewed_at)"
                " VALUES ('nlr_1', 'e4', 'k', 'P', 'H', 'supports', 'supports', '2026-02-01')"
            )
        )
    generation = inspect_database(engine)
    with pytest.raises(StorageError, match="lyra-nli db upgrade"):
        generation.require_upgraded()
    with read(engine) as connection:
        before = count_reviews(connection, generation)
    assert before.reviewed == 4
    plan = plan_upgrade(engine)
    assert plan
    assert not any(line.startswith("table nli_reviews") for line in plan)
    assert upgrade(engine, backup=False).added == tuple(plan)
    assert plan_upgrade(engine) == []
    generation = inspect_database(engine)
    generation.require_upgraded()
    with read(engine) as connection:
        assert count_reviews(connection, generation) == before
    engine.dispose()


def test_the_queues_indexes_stand_on_what_the_edges_have(tmp_path: Path) -> None:
    for shape, confidence in ((OLDER, "nli_confidence"), (NEWER, "nli_edge_confidence")):
        database = LyraDatabase(tmp_path / f"{confidence}.db", shape)
        with database.connect() as connection:
            connection.execute("ALTER TABLE edges DROP COLUMN created_at")
        upgrade_path(database.path)
        indexes = dict(
            fetch(database.path, "SELECT name, sql FROM sqlite_master WHERE type = 'index'")
        )
        assert f"({confidence})" in str(indexes["ix_nli_edges_confidence"])
        assert "ix_nli_edges_created" not in indexes
        plan = fetch(
            database.path,
            "EXPLAIN QUERY PLAN SELECT id FROM edges WHERE edge_human_corrected = 0 AND relation"
            f" IN ('supports', 'refutes', 'neutral') ORDER BY {confidence} LIMIT 5",
        )
        assert "USING INDEX ix_nli_edges_confidence" in str(plan[0][3])


def test_columns_that_an_early_lyra_had_not_are_added(tmp_path: Path) -> None:
    database = LyraDatabase(tmp_path / "lyra.db", OLDER)
    with database.connect() as connection:
        for name in ("edge_human_corrected", "edge_correction_reason", "edge_corrected_at"):
            connection.execute(f"ALTER TABLE edges DROP COLUMN {name}")
        for name in ("adoption_status", "rejection_reason", "rejected_at"):
            connection.execute(f"ALTER TABLE claims DROP COLUMN claim_{name}")
        connection.execute("DROP TABLE nli_corrections")
    words, _ = upgrade_path(database.path)
    assert "column edges.edge_human_corrected: a person reviewed it" in words
    assert "column claims.claim_adoption_status: adopted or not_adopted" in words
    assert any(line.startswith("table nli_corrections") for line in words)
    engine = database.open()
    inspect_database(engine).require_upgraded()
    engine.dispose()


def test_the_backup_is_the_database_as_it_was(database: LyraDatabase) -> None:
    database.path.chmod(0o600)
    before = database.dump()
    _, backup = upgrade_path(database.path)
    assert backup is not None
    assert re.fullmatch(r"lyra\.db\.backup-\d{8}T\d{6}", backup.name)
    assert stat.S_IMODE(backup.stat().st_mode) == 0o600
    with closing(sqlite3.connect(backup)) as connection:
        assert list(connection.iterdump()) == before


def test_the_backup_has_what_is_still_in_the_log(tmp_path: Path) -> None:
    database = LyraDatabase(tmp_path / "lyra.db")
    with closing(sqlite3.connect(database.path)) as open_elsewhere:
        open_elsewhere.execute("PRAGMA journal_mode = WAL")
        open_elsewhere.execute("INSERT INTO tasks VALUES ('t2', 'in the log')")
        open_elsewhere.commit()
        _, backup = upgrade_path(database.path)
        assert backup is not None
        assert fetch(backup, "SELECT id FROM tasks") == [("t1",), ("t2",)]


def test_two_backups_in_one_second_have_two_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lyra_nli.storage.upgrade import _free_name

    first = _free_name(tmp_path / "lyra.db")
    first.touch()
    for _ in range(2):  # the clock may step on once
        second = _free_name(tmp_path / "lyra.db")
    assert second != first


def test_without_a_backup_when_asked(tmp_path: Path) -> None:
    database = LyraDatabase(tmp_path / "lyra.db")
    added, backup = upgrade_path(database.path, backup=False)
    assert added
    assert backup is None
    assert [path.name for path in tmp_path.iterdir()] == ["lyra.db"]


# --- failures -----------------------------------------------------------------------------


def test_a_failing_step_rolls_everything_back(database: LyraDatabase) -> None:
    before = database.dump()
    engine = database.open()

    @event.listens_for(engine, "before_cursor_execute")
    def fail_late(connection, cursor, statement, parameters, context, many) -> None:  # type: ignore[no-untyped-def]
        if "CREATE TABLE nli_version_events" in statement:
            raise sqlite3.OperationalError("database or disk is full")

    with pytest.raises(StorageError, match=r"full\nThe disk is full"):
        upgrade(engine)
    engine.dispose()
    assert database.dump() == before


def test_a_full_disk_while_adding_is_reported_and_undone(tmp_path: Path) -> None:
    database = LyraDatabase(tmp_path / "lyra.db", OLDER)
    before = database.dump()
    engine = database.open()

    @event.listens_for(engine, "connect")
    def no_room(connection: sqlite3.Connection, record: object) -> None:
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count = {pages + 10}")

    with pytest.raises(StorageError, match=r"full\nThe disk is full"):
        upgrade(engine)
    engine.dispose()
    assert database.dump() == before


KILLED = """
import os, sys
from sqlalchemy import event
from lyra_nli.storage.engine import open_database
from lyra_nli.storage.upgrade import upgrade
engine = open_database(sys.argv[1])
@event.listens_for(engine, "after_cursor_execute")
def die(connection, cursor, statement, *rest):
    if "CREATE TABLE nli_version_events" in statement:
        os._exit(9)
upgrade(engine)
"""


@pytest.mark.parametrize("shape", [OLDER, NEWER])
def test_a_killed_process_leaves_the_database_as_it_was(tmp_path: Path, shape: Shape) -> None:
    database = LyraDatabase(tmp_path / "lyra.db", shape)
    populate(database)
    before = database.dump()
    command = [sys.executable, "-c", KILLED, str(database.path)]
    assert subprocess.run(command, check=False).returncode == 9
    assert database.dump() == before
    added, _ = upgrade_path(database.path)
    assert added


def test_without_a_backup_there_is_no_upgrade(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = LyraDatabase(tmp_path / "lyra.db")
    before = database.dump()

    def no_room(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_room)
    with pytest.raises(StorageError, match=r"No space left.*\n.*not touched"):
        upgrade_path(database.path)
    assert database.dump() == before
    assert [path.name for path in tmp_path.iterdir()] == ["lyra.db"]


def test_a_database_of_a_newer_program_is_left_alone(tmp_path: Path) -> None:
    init_database(str(tmp_path / "lyra.db"))
    engine = open_database(str(tmp_path / "lyra.db"))
    with write(engine) as connection:
        connection.execute(text("UPDATE nli_schema_version SET version_num = '9999'"))
    for act in (plan_upgrade, upgrade):
        with pytest.raises(StorageError, match="newer lyra-nli"):
            act(engine)
    engine.dispose()


def test_foreign_and_empty_databases_are_not_upgraded(tmp_path: Path) -> None:
    (tmp_path / "x.db").touch()
    with pytest.raises(StorageError, match="is empty"):
        upgrade_path(tmp_path / "x.db")
    with closing(sqlite3.connect(tmp_path / "x.db")) as connection:
        connection.execute("CREATE TABLE edges (a, b)")
    with pytest.raises(StorageError, match="not the tables"):
        upgrade_path(tmp_path / "x.db")
    assert [path.name for path in tmp_path.iterdir()] == ["x.db"]


def test_a_read_only_database_can_be_planned_for_but_not_upgraded(tmp_path: Path) -> None:
    database = LyraDatabase(tmp_path / "lyra.db", NEWER)
    engine = database.open(read_only=True)
    assert plan_upgrade(engine)
    with pytest.raises(StorageError, match="can be written"):
        upgrade(engine, backup=False)
    engine.dispose()
