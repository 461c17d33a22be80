"""Connections: to a SQLite file by default, to PostgreSQL by its URL.

Nothing here reads a SQLite file but SQLite. A process that opens the file in another way, and
closes it again, loses the locks of all its connections to it (they are POSIX advisory locks);
another process that ends then believes to be the last one, and takes the log of changes away
beneath them (https://sqlite.org/howtocorrupt.html, 2.2).
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from secrets import token_hex
from typing import Any, Final, TypeVar

from sqlalchemy import Connection, Engine, Table, create_engine, event, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.pool import ConnectionPoolEntry, NullPool

from lyra_nli.errors import InputError, LyraNliError, StorageError

T = TypeVar("T")

DAMAGED: Final = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
"""What damaged rows and files raise: SQLite keeps any value in any column, JSON may be torn, and
hold a list where there was an object."""

UNREADABLE: Final = (LyraNliError, OSError, SQLAlchemyError, *DAMAGED)
"""Everything that reading a database may raise."""


def open_database(
    location: str, *, read_only: bool = False, create: bool = False, busy_timeout: float = 30.0
) -> Engine:
    """Open a database.

    Args:
        location: a path to a SQLite file, or a SQLAlchemy URL (SQLite or PostgreSQL).
        read_only: open it so that nothing can be changed. Works on a SQLite file and folder
            without write permission, also when the file is in WAL mode.
        create: make a missing SQLite file (and its folder) instead of complaining; the new
            file is in WAL mode. An existing file keeps the journal mode that it has.
        busy_timeout: seconds to wait for another writer.

    Raises:
        StorageError: when the file is missing or is not a database.
    """
    path = Path(location)
    if "://" in location:
        url = _parse_url(location)
        if url.get_backend_name() != "sqlite":
            return _open_postgres(url, read_only=read_only)
        if url.database in (None, "", ":memory:"):
            raise StorageError("a database in memory keeps nothing: name a file")
        path = Path(str(url.database))
    _check_file(path, create=create)
    return _open_sqlite(path, read_only=read_only, create=create, busy_timeout=busy_timeout)


@contextmanager
def opened(location: str, *, busy_timeout: float = 30.0) -> Iterator[Engine]:
    """Open a database for writing, and close it again, see `open_database`."""
    engine = open_database(location, busy_timeout=busy_timeout)
    try:
        yield engine
    finally:
        engine.dispose()


def database_exists(location: str) -> bool:
    """False when the database is a SQLite file that is not there (yet).

    Raises:
        StorageError: for a URL that can't be read; it may hold a password, so it is not shown.
    """
    if "://" not in location:
        return Path(location).is_file()
    url = _parse_url(location)
    return url.get_backend_name() != "sqlite" or Path(url.database or "").is_file()


def shown(location: str) -> str:
    """A database's place as people may read it: without a password."""
    if "://" not in location:
        return location
    return _parse_url(location).render_as_string(hide_password=True)


@contextmanager
def read(engine: Engine) -> Iterator[Connection]:
    """Give a connection that sees one consistent state for as long as it is open."""
    with storage_errors(), engine.connect() as plain:
        if engine.dialect.name == "postgresql":
            plain = plain.execution_options(isolation_level="REPEATABLE READ")
        yield plain


@contextmanager
def write(engine: Engine) -> Iterator[Connection]:
    """Run one transaction that takes the writer's lock at its start: all of it or nothing."""
    with storage_errors(), engine.connect() as plain:
        connection = plain.execution_options(lyra_nli_write=True)
        with connection.begin():
            yield connection


@contextmanager
def storage_errors() -> Iterator[None]:
    """Turn what a database driver raises into an error that a user can act on.

    Raises:
        InputError: for text that the database can't hold (NUL on PostgreSQL, half a
            surrogate pair anywhere).
        StorageError: for everything else.
    """
    try:
        yield
    except UnicodeEncodeError as error:
        raise InputError(
            "a text holds half a surrogate pair, which no database can store",
            problems=[f"at character {error.start}: {error.object[error.start]!a}"],
        ) from error
    except PoolTimeoutError as error:
        raise StorageError(
            "too many connections are in use", hint="Try again in a moment."
        ) from error
    except DBAPIError as error:
        text = str(error.orig).strip()
        if "NUL (0x00)" in text:
            raise InputError(
                "a text holds a NUL character, which PostgreSQL can't store",
                hint="Remove the NUL characters from the text.",
            ) from error
        raise StorageError(f"the database refused: {text}", hint=_hint(text)) from error


def sqlite_file(connection: Connection) -> Path | None:
    """Find the file behind a connection; None when it is no SQLite."""
    if connection.dialect.name != "sqlite":
        return None
    rows = connection.exec_driver_sql("PRAGMA database_list")
    return next((Path(file) for _, name, file in rows if name == "main" and file), None)


def insert_into(connection: Connection, table: Table) -> Any:
    """Begin an INSERT of SQLite's or PostgreSQL's, which may say what happens on a conflict."""
    dialect = sqlite if connection.dialect.name == "sqlite" else postgresql
    return dialect.insert(table)


def lock(connection: Connection, table: Table) -> None:
    """Keep all others from writing into a table; SQLite has one writer anyhow."""
    if connection.dialect.name == "postgresql":
        connection.execute(text(f"LOCK TABLE {table.name} IN EXCLUSIVE MODE"))


def batches(items: Iterable[T], size: int = 500) -> Iterator[list[T]]:
    """Cut a long list: one statement takes only so many parameters."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


def now() -> str:
    """Tell the time as the databases keep it: ISO-8601, UTC, microseconds."""
    return datetime.now(UTC).isoformat()


def utc(text: object) -> str:
    """Write a point in time as ISO-8601 in UTC, so that texts sort as times do.

    Times without a zone are UTC. Empty for what is no time.
    """
    try:
        moment = datetime.fromisoformat(str(text).strip())
        zoned = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        return zoned.astimezone(UTC).isoformat()
    except (ValueError, OverflowError):
        return ""


def new_id(prefix: str) -> str:
    """Make a prefixed random id, as Lyra does: ``nlc_9f…``."""
    return f"{prefix}_{token_hex(8)}"


_HINTS = (
    ("readonly", "This command writes: give it a database that can be written."),
    ("read-only", "This command writes: give it a database that can be written."),
    ("locked", "Another process holds the writer's lock; try again."),
    ("no such table", "Bring the database up to date with `lyra-nli db upgrade`."),
    ("no such column", "Bring the database up to date with `lyra-nli db upgrade`."),
    ("authentication failed", "Are user and password right?"),
    ("FATAL:  role", "Are user and password right?"),
    ("FATAL:  database", "Make that database first: `createdb NAME`."),
    ("does not exist", "Bring the database up to date with `lyra-nli db upgrade`."),
    ("is full", "The disk is full; nothing was written."),
    ("malformed", "The file is damaged: go back to a backup."),
    ("unable to open", "Is the path right, and may you read and write there?"),
    ("onnection", "Is the database server running, and are host and user right?"),
)


def _hint(text: str) -> str:
    return next((hint for word, hint in _HINTS if word in text), "")


def _parse_url(location: str) -> URL:
    try:
        url = make_url(location)
    except (ArgumentError, ValueError) as error:
        raise StorageError(
            "the database URL can't be read",  # it may hold a password: not shown
            hint="It looks like postgresql://user:password@host:5432/name",
        ) from error
    if url.get_backend_name() not in ("sqlite", "postgresql"):
        raise StorageError(
            f"{url.get_backend_name()!r} databases are not supported: SQLite and PostgreSQL are"
        )
    return url


def _open_postgres(url: URL, *, read_only: bool) -> Engine:
    if url.drivername == "postgresql":
        url = url.set(drivername="postgresql+psycopg")
    try:
        return create_engine(
            url, pool_pre_ping=True, execution_options={"postgresql_readonly": read_only}
        )
    except (SQLAlchemyError, ModuleNotFoundError) as error:
        shown = url.render_as_string(hide_password=True)
        raise StorageError(
            f"can't open the database {shown}: {error}",
            hint="PostgreSQL needs `pip install 'lyra-nli[postgres]'`.",
        ) from error


def _check_file(path: Path, *, create: bool) -> None:
    try:
        if path.is_dir():
            raise StorageError(f"{path} is a folder: name a file in it")
        if path.is_file():
            if "not a database" in _complaint(path):
                raise StorageError(f"{path} is not a SQLite database")
        elif create:
            path.parent.mkdir(parents=True, exist_ok=True)
        else:
            raise StorageError(
                f"there is no database at {path}",
                hint=f"Make one with `lyra-nli db init --db {path}`, or name yours with --db.",
            )
    except OSError as error:
        raise StorageError(f"can't open {path}: {error.strerror}") from error


def _complaint(path: Path) -> str:
    """What SQLite says to a file that it only reads; empty when it can."""
    try:
        uri = f"{path.resolve().as_uri()}?mode=ro"
        with closing(sqlite3.connect(uri, uri=True, timeout=0)) as connection:
            connection.execute("SELECT count(*) FROM sqlite_master")
    except sqlite3.DatabaseError as error:
        return str(error)
    return ""


def _open_sqlite(path: Path, *, read_only: bool, create: bool, busy_timeout: float) -> Engine:
    mode = "ro" if read_only else "rwc" if create else "rw"
    new = create and not (path.is_file() and path.stat().st_size)
    uri = f"{path.resolve().as_uri()}?mode={mode}"

    def connect() -> sqlite3.Connection:
        immutable = "&immutable=1" if read_only and _must_be_immutable(path) else ""
        return sqlite3.connect(
            uri + immutable, uri=True, timeout=busy_timeout, check_same_thread=False
        )

    # An immutable connection would not see what others write later, so it is not kept.
    kept = not read_only or _can_write_beside(path)
    engine = create_engine(
        URL.create("sqlite", database=str(path)),
        creator=connect,
        poolclass=None if kept else NullPool,
    )
    _configure_sqlite(engine, wal=new)
    return engine


def _must_be_immutable(path: Path) -> bool:
    """Whether a file in WAL mode lies where SQLite can't make its two companions.

    Opened with ``mode=ro`` alone, SQLite then fails; with ``immutable=1`` it reads the file
    as it is, which is safe: nobody has it open for writing, or the companions would be there.
    """
    path = path.resolve()
    if _can_write_beside(path):
        return False
    complaint = _complaint(path)
    if "unable to open" not in complaint and "readonly" not in complaint:
        return False
    log = path.with_name(f"{path.name}-wal")
    if log.exists() and log.stat().st_size:
        raise StorageError(
            f"{path} has changes in {log.name} that can't be read in a folder without write "
            "permission",
            hint="Copy both files to a folder that you can write, and use that copy.",
        )
    return True


def _can_write_beside(path: Path) -> bool:
    return os.access(path.resolve().parent, os.W_OK)


def _configure_sqlite(engine: Engine, *, wal: bool) -> None:
    @event.listens_for(engine, "connect")
    def _on_connect(connection: sqlite3.Connection, _: ConnectionPoolEntry) -> None:
        # The driver must not open transactions of its own: ours begin in `_on_begin`, so
        # that DDL is part of them and writers take their lock before they read.
        connection.isolation_level = None
        cursor = connection.cursor()
        cursor.execute("PRAGMA foreign_keys = ON")
        cursor.execute("PRAGMA journal_mode = WAL" if wal else "PRAGMA journal_mode")
        if cursor.fetchone() == ("wal",):
            cursor.execute("PRAGMA synchronous = NORMAL")  # safe in WAL mode, and much faster
        cursor.close()

    @event.listens_for(engine, "begin")
    def _on_begin(connection: Connection) -> None:
        options: Mapping[str, Any] = connection.get_execution_options()
        immediate = options.get("lyra_nli_write", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")
