"""Make a new database, or add to an existing one what the loop needs and it lacks.

Nothing is renamed, dropped or rewritten. All additions are one transaction, taken after a
backup copy, so a failure or a killed process leaves the database as it was.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import NoReturn

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import Script, ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection, Engine, inspect

from lyra_nli.errors import StorageError
from lyra_nli.storage.engine import open_database, read, sqlite_file, write
from lyra_nli.storage.generation import VERSION_TABLE, inspect_database, look
from lyra_nli.storage.migrations.steps import Schema, Step


@dataclass(frozen=True, slots=True)
class UpgradeResult:
    """What an upgrade did.

    Attributes:
        added: the additions in plain words; empty when there was nothing to do.
        backup: the copy that was made before (SQLite).
    """

    added: tuple[str, ...]
    backup: Path | None


def init_database(location: str) -> list[str]:
    """Make a new database with all tables.

    Args:
        location: a path to a SQLite file that is missing or empty, or a PostgreSQL URL.

    Returns:
        What was made, in plain words; empty when the database is there and up to date.

    Raises:
        StorageError: when the database is an existing one that only an upgrade may touch,
            or is not ours at all.
    """
    engine = open_database(location, create=True)
    try:
        with read(engine) as connection:
            generation, others = look(connection)
            if generation.migrated and not _plan(connection):
                return []
        if generation.columns or others:
            _refuse_existing(engine, location)
        with write(engine) as connection:
            added = _plan(connection)
            _run_migrations(connection)
        return added
    finally:
        engine.dispose()


def plan_upgrade(engine: Engine) -> list[str]:
    """List in plain words what `upgrade` would add; empty when there is nothing to do.

    Works on a read-only database.

    Raises:
        StorageError: when the database is empty, foreign, damaged, or made by a newer
            lyra-nli.
    """
    inspect_database(engine)
    with read(engine) as connection:
        return _plan(connection)


def upgrade(engine: Engine, *, backup: bool = True) -> UpgradeResult:
    """Add what is missing, in one transaction.

    Args:
        engine: a database opened for writing.
        backup: copy a SQLite file first, next to itself (``lyra.db.backup-20260131T120000``).
            Nobody can write between the copy and the additions.

    Raises:
        StorageError: as `plan_upgrade`, or when the copy or an addition fails; then the
            database is as it was before.
    """
    inspect_database(engine)
    with write(engine) as connection:
        added = _plan(connection)
        if not added:
            return UpgradeResult(added=(), backup=None)
        file = sqlite_file(connection)
        copy = _backup(file) if backup and file else None
        _run_migrations(connection)
    return UpgradeResult(added=tuple(added), backup=copy)


def _refuse_existing(engine: Engine, location: str) -> NoReturn:
    generation = inspect_database(engine)
    shown = "URL" if "://" in location else location  # a URL may hold a password
    raise StorageError(
        f"there is a database already ({generation.name}); `db init` only makes new ones",
        hint=f"See what it lacks, and add it, with `lyra-nli db upgrade --db {shown}`.",
    )


def _plan(connection: Connection) -> list[str]:
    words = [step.words for step in _pending_steps(connection)]
    first = not inspect(connection).has_table(VERSION_TABLE)
    if _pending_versions(connection):
        kept = f"{'table' if first else 'row in'} {VERSION_TABLE}"
        words.append(f"{kept}: which upgrades this database has had")
    return words


def _pending_steps(connection: Connection) -> list[Step]:
    schema = Schema.of(connection)
    return [
        step for script in _pending_versions(connection) for step in script.module.steps(schema)
    ]


def _pending_versions(connection: Connection) -> list[Script]:
    """Our versions that a database has not had, oldest first."""
    scripts = ScriptDirectory.from_config(_config())
    present = MigrationContext.configure(
        connection, opts={"version_table": VERSION_TABLE}
    ).get_current_revision()
    try:
        return list(_newest_first(scripts, present))[::-1]
    except CommandError as error:
        raise StorageError(
            f"the database was made by a newer lyra-nli (its schema is {present})",
            hint="Upgrade the program: pip install --upgrade lyra-nli",
        ) from error


def _newest_first(scripts: ScriptDirectory, present: str | None) -> Iterator[Script]:
    if present is not None:
        scripts.get_revision(present)
    for script in scripts.walk_revisions():
        if script.revision == present:
            return
        yield script


def _run_migrations(connection: Connection) -> None:
    config = _config()
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def _config() -> Config:
    config = Config()
    folder = resources.files("lyra_nli.storage") / "migrations"
    config.set_main_option("script_location", str(folder).replace("%", "%%"))
    return config


def _backup(file: Path) -> Path:
    """Copy a database consistently, whatever other readers do meanwhile."""
    target = _free_name(file)
    try:
        with (
            closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True)) as source,
            closing(sqlite3.connect(target)) as copy,
        ):
            source.backup(copy)
        shutil.copymode(file, target)
        with target.open("rb+") as written:
            os.fsync(written.fileno())
    except (OSError, sqlite3.Error) as error:
        target.unlink(missing_ok=True)
        raise StorageError(
            f"the backup copy {target} could not be made: {error}",
            hint="The database was not touched.",
        ) from error
    return target


def _free_name(file: Path) -> Path:
    stamp = f"{datetime.now(UTC):%Y%m%dT%H%M%S}"
    names = (
        f"{file.name}.backup-{stamp}{suffix}" for suffix in ("", *map("-{}".format, range(2, 99)))
    )
    return next(path for path in map(file.with_name, names) if not path.exists())
