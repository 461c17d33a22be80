"""``lyra-nli adapters``: the versions, and which one serves."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lyra_nli.cli.options import (
    any_base_option,
    base_option,
    json_option,
    open_workspace,
    place_options,
    print_json,
    who,
)
from lyra_nli.cli.shadow_eval import shadow_eval
from lyra_nli.errors import AdapterError

if TYPE_CHECKING:
    from lyra_nli.registry.rows import Event, Version

reason_option = click.option("--reason", default="", help="why; kept in the history")


@click.group()
def adapters() -> None:
    """The adapter versions, and which one serves."""


adapters.add_command(shadow_eval, "compare")


@adapters.command("list")
@place_options
@any_base_option
@json_option
def list_versions(config: Path | None, db: str | None, base: str | None, as_json: bool) -> None:
    """All versions, with their verdict and aliases."""
    versions = open_workspace(config, db, read_only=True).registry.list(base)
    if as_json:
        print_json([facts(version) for version in versions])
        return
    if not versions:
        click.echo("no versions yet: `lyra-nli train` makes the first")
    for version in versions:
        aliases = ", ".join(version.aliases)
        change = _change(version.metrics or {})
        only = f"  for {version.domain} alone" if version.domain else ""
        click.echo(
            f"{version.name:14} {version.status:9} {aliases:17} {change:32} "
            f"{version.base_model}  {version.created_at[:16]}{only}"
        )


@adapters.command()
@click.argument("name")
@place_options
@json_option
def show(name: str, config: Path | None, db: str | None, as_json: bool) -> None:
    """One version: where it comes from, what the gate found, its history."""
    from lyra_nli.storage.engine import read
    from lyra_nli.storage.runs import run_facts

    registry = open_workspace(config, db, read_only=True).registry
    version = registry.get(name)
    with read(registry.engine) as connection:
        run = run_facts(connection, version.run_id)
    events = [
        event
        for event in registry.events(version.base_model)
        if version.name in (event.from_version, event.to_version)
    ]
    if as_json:
        print_json({**facts(version), "events": [asdict(event) for event in events], "run": run})
        return
    for key, value in facts(version).items():
        if key != "metrics":
            click.echo(f"{key:16} {value}")
    for key, value in run.items():
        click.echo(f"{'run ' + key:16} {value}")
    report = version.path / (version.report_path or "report.md")
    if report.is_file():
        click.echo(f"\n{report.read_text('utf-8')}")
    for event in events:
        _print_event(event)


@adapters.command()
@click.argument("name")
@place_options
@reason_option
def activate(name: str, config: Path | None, db: str | None, reason: str) -> None:
    """Let a version serve. A version that the gate did not pass needs --reason."""
    registry = open_workspace(config, db).registry
    _print_event(registry.activate(name, who=who(), reason=reason))


@adapters.command()
@place_options
@base_option
@reason_option
def rollback(config: Path | None, db: str | None, base: str | None, reason: str) -> None:
    """Go back to what served before; twice is back again."""
    workspace = open_workspace(config, db)
    base = base or workspace.settings.nli.fast_model
    _print_event(workspace.registry.rollback(base, who=who(), reason=reason))


@adapters.command()
@click.argument("name", required=False)
@place_options
def verify(name: str | None, config: Path | None, db: str | None) -> None:
    """Check the files of a version (or of all) against its manifest."""
    registry = open_workspace(config, db, read_only=True).registry
    names = [name] if name else [version.name for version in registry.list()]
    damaged = []
    for each in names:
        try:
            manifest = registry.verify(each)
        except AdapterError as error:
            damaged.append(error)
        else:
            click.echo(f"{manifest.name}: {len(manifest.files)} files match the manifest")
    if len(damaged) == 1:
        raise damaged[0]
    if damaged:
        raise AdapterError(
            f"{len(damaged)} of {len(names)} versions are damaged",
            problems=[str(each) for each in damaged],
        )


@adapters.command()
@click.argument("name")
@place_options
@reason_option
def remove(name: str, config: Path | None, db: str | None, reason: str) -> None:
    """Delete a version's files; its history stays, its name is never used again."""
    _print_event(open_workspace(config, db).registry.remove(name, who=who(), reason=reason))


@adapters.command()
@click.argument("name")
@click.argument("destination", type=click.Path(path_type=Path))
@place_options
def export(name: str, destination: Path, config: Path | None, db: str | None) -> None:
    """Copy a version to a folder, or to a .zip file."""
    registry = open_workspace(config, db, read_only=True).registry
    click.echo(str(registry.export(name, destination)))
    click.echo("Its reports quote reviewed texts: think before you publish it.", err=True)


@adapters.command()
@place_options
@any_base_option
@json_option
def history(config: Path | None, db: str | None, base: str | None, as_json: bool) -> None:
    """Who changed what serves or is on trial, when and why."""
    events = open_workspace(config, db, read_only=True).registry.events(base)
    if as_json:
        print_json([asdict(event) for event in events])
        return
    for event in events:
        _print_event(event)


def facts(version: Version) -> dict[str, Any]:
    """A version as plain values."""
    return {**asdict(version), "path": str(version.path), "domain": version.domain}


def _print_event(event: Event) -> None:
    reason = f" ({event.reason})" if event.reason else ""
    action = event.action.replace("_", " ")
    click.echo(f"{event.at[:19]}  {action}  {event.change}  by {event.who}{reason}")


def _change(metrics: dict[str, Any]) -> str:
    if "accuracy_before" not in metrics:
        return ""
    before, after = metrics["accuracy_before"], metrics["accuracy_after"]
    return f"accuracy {before:.3f} -> {after:.3f}"
