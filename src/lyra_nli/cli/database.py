"""``lyra-nli db``."""

from __future__ import annotations

from pathlib import Path

import click

from lyra_nli.cli.options import open_engine, place_options, read_settings


@click.group()
def db() -> None:
    """Make a database, or bring an existing Lyra database up to date."""


@db.command("init")
@place_options
def init(config: Path | None, db: str | None) -> None:
    """Make a new database with Lyra's tables and ours."""
    from lyra_nli.storage.engine import shown
    from lyra_nli.storage.upgrade import init_database

    location = read_settings(config, db).storage.database_path
    made = init_database(location)
    done = f"{len(made)} tables, columns and indexes made" if made else "nothing to do"
    click.echo(f"{shown(location)}: {done}")


@db.command("upgrade")
@place_options
@click.option("--yes", is_flag=True, help="do not ask")
def upgrade_command(config: Path | None, db: str | None, yes: bool) -> None:
    """Add what is missing to an existing Lyra database; never rename, drop or rewrite."""
    from lyra_nli.storage.engine import shown
    from lyra_nli.storage.upgrade import plan_upgrade, upgrade

    settings = read_settings(config, db)
    plan = plan_upgrade(open_engine(settings, read_only=True))
    location = shown(settings.storage.database_path)
    if not plan:
        click.echo(f"{location}: nothing to do")
        return
    click.echo(f"{location} lacks {len(plan)} thing(s); after a backup copy this will add:")
    for line in plan:
        click.echo(f"  + {line}")
    if not yes:
        click.confirm("Go ahead?", abort=True)
    result = upgrade(open_engine(settings))
    click.echo(f"Done: {len(result.added)} added. Backup: {result.backup or 'none'}")
