from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from lyra_databases import LyraDatabase, fetch
from sqlalchemy import Engine, text

from lyra_nli.errors import InputError, StorageError
from lyra_nli.storage.engine import (
    batches,
    open_database,
    read,
    shown,
    storage_errors,
    utc,
    write,
)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = open_database(str(tmp_path / "new" / "a.db"), create=True, busy_timeout=0.2)
    with write(engine) as connection:
        connection.execute(text("CREATE TABLE t (a TEXT)"))
    yield engine
    engine.dispose()


def test_a_missing_database_names_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"no database at .*a\.db\n.*db init"):
        open_database(str(tmp_path / "a.db"))
    assert list(tmp_path.iterdir()) == []


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.db").write_text("these are my notes, dear reader")
    for create in (False, True):
        with pytest.raises(StorageError, match="not a SQLite database"):
            open_database(str(tmp_path / "a.db"), create=create)
    with pytest.raises(StorageError, match="is a folder"):
        open_database(str(tmp_path))


def test_a_damaged_file_is_a_storage_error(tmp_path: Path) -> None:
    database = LyraDatabase(tmp_path / "lyra.db")
    content = database.path.read_bytes()
    database.path.write_bytes(content[:100] + b"\xff" * 5000 + content[5100:])
    engine = database.open(read_only=True)
    with pytest.raises(StorageError, match="the database refused"), read(engine) as connection:
        connection.execute(text("SELECT count(*) FROM edges")).all()
    engine.dispose()


@pytest.mark.parametrize("name", ["a b.db", "100%.db", "what?.db", "#1.db", "日本.db"])
def test_any_file_name_will_do(tmp_path: Path, name: str) -> None:
    engine = open_database(str(tmp_path / name), create=True)
    with write(engine) as connection:
        connection.execute(text("CREATE TABLE t (a)"))
    engine.dispose()
    assert fetch(tmp_path / name, "SELECT name FROM sqlite_master") == [("t",)]


def test_sqlite_urls_get_the_same_treatment(tmp_path: Path) -> None:
    engine = open_database(f"sqlite:///{tmp_path / 'a.db'}", create=True)
    with read(engine) as connection:
        assert connection.execute(text("PRAGMA foreign_keys")).scalar() == 1
    engine.dispose()
    with pytest.raises(StorageError, match="in memory"):
        open_database("sqlite://")


@pytest.mark.parametrize(
    "url", ["mysql://u:secret@h/db", "nonsense://", "://", "postgresql://u:secret@h:x/"]
)
def test_other_urls_are_refused_without_showing_a_password(url: str) -> None:
    with pytest.raises(StorageError) as caught:
        open_database(url)
    assert "secret" not in str(caught.value)


def test_a_server_that_is_not_there_is_a_storage_error() -> None:
    engine = open_database("postgresql://user:secret@127.0.0.1:1/db?connect_timeout=2")
    with pytest.raises(StorageError, match="refused") as caught, read(engine):
        pass
    assert "secret" not in str(caught.value)
    engine.dispose()


def test_a_failing_transaction_leaves_nothing_not_even_tables(engine: Engine) -> None:
    def fail() -> None:
        with write(engine) as connection:
            connection.execute(text("CREATE TABLE u (a)"))
            connection.execute(text("INSERT INTO t VALUES ('x')"))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    with read(engine) as connection:
        names = connection.execute(text("SELECT name FROM sqlite_master")).scalars().all()
        assert (names, connection.execute(text("SELECT * FROM t")).all()) == (["t"], [])


def test_a_reader_keeps_its_state_while_another_writes(engine: Engine) -> None:
    with read(engine) as reader:
        assert reader.execute(text("SELECT count(*) FROM t")).scalar() == 0
        with write(engine) as writer:
            writer.execute(text("INSERT INTO t VALUES ('x')"))
        assert reader.execute(text("SELECT count(*) FROM t")).scalar() == 0
    with read(engine) as reader:
        assert reader.execute(text("SELECT count(*) FROM t")).scalar() == 1


def test_opening_a_database_again_keeps_the_locks_of_those_who_have_it_open(engine: Engine) -> None:
    """Without them the other process takes the log away, and the database is damaged."""
    file = Path(str(engine.url.database))
    other = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute(sys.argv[2]); "
    other += "c.commit(); c.close()"
    with read(engine) as connection:
        assert connection.execute(text("SELECT count(*) FROM t")).scalar() == 0
        for read_only in (False, True):
            open_database(str(file), read_only=read_only).dispose()
        words = [sys.executable, "-c", other, str(file), "INSERT INTO t VALUES ('x')"]
        subprocess.run(words, check=True)
        assert file.with_name(f"{file.name}-wal").exists()
    with write(engine) as connection:
        connection.execute(text("INSERT INTO t VALUES ('y')"))
    engine.dispose()
    assert fetch(file, "PRAGMA integrity_check") == [("ok",)]
    assert fetch(file, "SELECT a FROM t ORDER BY a") == [("x",), ("y",)]


def test_the_second_writer_waits_and_then_says_so(engine: Engine) -> None:
    with (
        write(engine),
        pytest.raises(StorageError, match=r"locked\nAnother process"),
        write(engine),
    ):
        pass


def test_writers_in_many_threads_lose_nothing(tmp_path: Path) -> None:
    engine = open_database(str(tmp_path / "a.db"), create=True)
    with write(engine) as connection:
        connection.execute(text("CREATE TABLE n (n INTEGER)"))
        connection.execute(text("INSERT INTO n VALUES (0)"))

    def count_up() -> None:
        for _ in range(10):
            with write(engine) as connection:
                number = connection.execute(text("SELECT n FROM n")).scalar_one()
                connection.execute(text("UPDATE n SET n = :n"), {"n": number + 1})

    threads = [threading.Thread(target=count_up) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    engine.dispose()
    assert fetch(tmp_path / "a.db", "SELECT n FROM n") == [(80,)]


def test_a_read_only_engine_refuses_to_write(engine: Engine, tmp_path: Path) -> None:
    reading = open_database(str(tmp_path / "new" / "a.db"), read_only=True)
    with pytest.raises(StorageError, match="can be written"), write(reading) as connection:
        connection.execute(text("INSERT INTO t VALUES ('x')"))
    reading.dispose()


def test_only_a_new_file_gets_wal_mode(tmp_path: Path) -> None:
    database = LyraDatabase(tmp_path / "lyra.db")
    for create in (False, True):
        engine = open_database(str(database.path), create=create)
        with write(engine) as connection:
            connection.execute(text("UPDATE edges SET relation = relation"))
        engine.dispose()
    assert fetch(database.path, "PRAGMA journal_mode") == [("delete",)]
    engine = open_database(str(tmp_path / "new.db"), create=True)
    with read(engine):
        pass
    engine.dispose()
    assert fetch(tmp_path / "new.db", "PRAGMA journal_mode") == [("wal",)]


def test_half_a_surrogate_pair_is_the_callers_mistake(engine: Engine) -> None:
    with pytest.raises(InputError, match="surrogate"), write(engine) as connection:
        connection.execute(text("INSERT INTO t VALUES (:a)"), {"a": "x\ud800"})


def test_a_missing_value_is_not_taken_for_a_nul_character(engine: Engine) -> None:
    with write(engine) as connection:
        connection.execute(text("CREATE TABLE needed (a TEXT NOT NULL)"))
    with pytest.raises(StorageError, match="NOT NULL"), write(engine) as connection:
        connection.execute(text("INSERT INTO needed VALUES (NULL)"))


def test_an_error_of_ours_passes_through() -> None:
    with pytest.raises(InputError, match="mine"), storage_errors():
        raise InputError("mine")


def test_batches_cut_without_loss() -> None:
    assert list(batches(range(5), 2)) == [[0, 1], [2, 3], [4]]
    assert list(batches([])) == []


@pytest.mark.parametrize(
    ("given", "stored"),
    [
        ("2026-01-31T12:00:00+02:00", "2026-01-31T10:00:00+00:00"),
        ("2026-01-31T12:00:00Z", "2026-01-31T12:00:00+00:00"),
        ("2026-01-31 12:00:00", "2026-01-31T12:00:00+00:00"),
        ("2026-01-31", "2026-01-31T00:00:00+00:00"),
        ("yesterday", ""),
        ("0001-01-01T00:00:00+14:00", ""),
        (None, ""),
        (5, ""),
    ],
)
def test_times_become_sortable(given: object, stored: str) -> None:
    assert utc(given) == stored


# --- a folder without write permission ----------------------------------------------------

READ = """
import sys
from sqlalchemy import text
from lyra_nli.errors import StorageError
from lyra_nli.storage.engine import open_database, read
engine = open_database(sys.argv[1], read_only=True)
for _ in sys.stdin:
    try:
        with read(engine) as connection:
            print(connection.execute(text("SELECT count(*) FROM t")).scalar(), flush=True)
    except StorageError as error:
        print(*str(error).split(), flush=True)
"""


def bound_by_permissions() -> list[str]:
    """How to start a process that file permissions bind, also when root runs the tests."""
    if os.geteuid() != 0:
        return []
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        pytest.skip("root without setpriv: permissions don't bind")
    return [setpriv, "--bounding-set=-dac_override,-dac_read_search"]


@contextmanager
def reader_where_nothing_can_be_written(folder: Path) -> Iterator[Callable[[], str]]:
    """A process that reads the database, with the same engine, each time that it is asked."""
    for file in folder.iterdir():
        file.chmod(0o444)
    folder.chmod(0o555)
    command = [*bound_by_permissions(), sys.executable, "-c", READ, str(folder / "a.db")]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    )
    with process as process:
        assert process.stdin
        assert process.stdout
        reading, asking = process.stdout, process.stdin

        def ask() -> str:
            asking.write("read\n")
            return reading.readline().strip()

        try:
            yield ask
        finally:
            folder.chmod(0o755)
    assert process.returncode == 0


def read_where_nothing_can_be_written(folder: Path) -> str:
    with reader_where_nothing_can_be_written(folder) as ask:
        return ask()


def make_wal_file(path: Path) -> sqlite3.Connection:
    path.parent.mkdir()
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("CREATE TABLE t (a)")
    connection.execute("INSERT INTO t VALUES (1)")
    connection.commit()
    return connection


def test_a_wal_file_can_be_read_in_a_read_only_folder(tmp_path: Path) -> None:
    make_wal_file(tmp_path / "d" / "a.db").close()
    assert [file.name for file in (tmp_path / "d").iterdir()] == ["a.db"]
    assert read_where_nothing_can_be_written(tmp_path / "d") == "1"
    assert [file.name for file in (tmp_path / "d").iterdir()] == ["a.db"]


def test_a_wal_file_in_use_is_read_with_its_latest_changes(tmp_path: Path) -> None:
    with closing(make_wal_file(tmp_path / "d" / "a.db")):
        assert read_where_nothing_can_be_written(tmp_path / "d") == "1"


def test_a_log_that_cant_be_read_is_not_passed_over(tmp_path: Path) -> None:
    with closing(make_wal_file(tmp_path / "d" / "a.db")):
        (tmp_path / "copy").mkdir()
        for name in ("a.db", "a.db-wal"):
            shutil.copy(tmp_path / "d" / name, tmp_path / "copy" / name)
    assert "changes in a.db-wal" in read_where_nothing_can_be_written(tmp_path / "copy")


def test_who_reads_for_long_in_a_read_only_folder_sees_what_others_write(tmp_path: Path) -> None:
    make_wal_file(tmp_path / "d" / "a.db").close()
    with reader_where_nothing_can_be_written(tmp_path / "d") as ask:
        assert ask() == "1"
        for path in (tmp_path / "d", tmp_path / "d" / "a.db"):
            path.chmod(0o755)
        with closing(sqlite3.connect(tmp_path / "d" / "a.db")) as writer:
            writer.execute("INSERT INTO t VALUES (2)")
            writer.commit()
            assert ask() == "2"


@pytest.mark.parametrize(
    ("location", "told"),
    [
        ("data/lyra.db", "data/lyra.db"),
        ("postgresql://ann:secret@host:5432/lyra", "postgresql://ann:***@host:5432/lyra"),
        ("sqlite:///data/lyra.db", "sqlite:///data/lyra.db"),
    ],
)
def test_passwords_are_not_shown(location: str, told: str) -> None:
    assert shown(location) == told
