"""Options that many commands share, and the workspace they open."""

from __future__ import annotations

import getpass
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from lyra_nli.settings import Settings
    from lyra_nli.workspace import Workspace

F = TypeVar("F", bound=Callable[..., Any])

db_option = click.option(
    "--db", metavar="PATH", help="SQLite file or SQLAlchemy URL [settings: storage.database_path]"
)
config_option = click.option(
    "--config",
    type=click.Path(dir_okay=False, path_type=Path),
    help="settings file [default: config/settings.yaml where it exists]",
)
base_option = click.option(
    "--base", metavar="MODEL", help="Hub id, local folder or `starter` [settings: nli.fast_model]"
)
any_base_option = click.option(
    "--base",
    metavar="MODEL",
    help="Hub id, local folder or `starter` [default: all; with a version, nli.fast_model]",
)
json_option = click.option("--json", "as_json", is_flag=True, help="print JSON")


def place_options(command: F) -> F:
    """``--db`` and ``--config``."""
    return db_option(config_option(command))


def read_settings(config: Path | None, db: str | None, **sections: dict[str, Any]) -> Settings:
    """Settings from file, environment, ``--db``, and what other options say of a section."""
    from lyra_nli.settings import load_settings

    storage = {"storage": {"database_path": db}} if db else {}
    return load_settings(config, {**storage, **sections})


def open_engine(settings: Settings, *, read_only: bool = False) -> Engine:
    """The database of the settings, whatever it holds."""
    from lyra_nli.storage.engine import open_database

    return open_database(
        settings.storage.database_path,
        read_only=read_only,
        busy_timeout=settings.storage.busy_timeout_seconds,
    )


def open_workspace(
    config: Path | None, db: str | None, *, read_only: bool = False, **sections: dict[str, Any]
) -> Workspace:
    """Settings, database and registry of this command."""
    from lyra_nli.workspace import Workspace

    return Workspace.open(read_settings(config, db, **sections), read_only=read_only)


def who() -> str:
    """The name that the audit log keeps."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        return "unknown"


def print_json(value: object) -> None:
    """Machine-readable output."""
    click.echo(json.dumps(value, indent=2, default=str, ensure_ascii=False))
