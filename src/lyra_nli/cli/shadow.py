"""``lyra-nli shadow``: a version judges live pairs again before it answers anybody."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lyra_nli.cli.crosstab import print_crosstab
from lyra_nli.cli.options import base_option, json_option, open_workspace, place_options, print_json
from lyra_nli.cli.trials import last, print_trial, reason_option, share_option, start, stop

if TYPE_CHECKING:
    from lyra_nli.monitoring.shadow_report import Agreement, Disagreement
    from lyra_nli.registry.trials import Trial
    from lyra_nli.workspace import Workspace

_SHOWN = 5


@click.group()
def shadow() -> None:
    """Let a version judge live pairs again, beside the active one, and see where they part."""


@shadow.command("start")
@click.argument("name")
@share_option(0.2, "of the pairs that the active version answers")
@place_options
@reason_option
def start_shadow(name: str, share: float, config: Path | None, db: str | None, reason: str) -> None:
    """Run a version as a shadow on every server of this registry.

    It answers nobody. Servers judge with it after the answer has left, a pair at a time and within
    ml_server.shadow_cpu of the model's time.

    The texts of the pairs on which the two disagree are kept, also where monitoring.log_texts is
    off: without them nobody could tell who is right. monitoring.keep_disagreements bounds them.
    """
    print_trial(start(open_workspace(config, db), "shadow", name, share, reason))


@shadow.command("stop")
@place_options
@base_option
@reason_option
def stop_shadow(config: Path | None, db: str | None, base: str | None, reason: str) -> None:
    """End the shadow; what it found stays."""
    print_trial(stop(open_workspace(config, db), "shadow", base, reason))


@shadow.command("status")
@place_options
@base_option
@json_option
def shadow_status(config: Path | None, db: str | None, base: str | None, as_json: bool) -> None:
    """Say which shadow runs, and how far it has come."""
    workspace = open_workspace(config, db, read_only=True)
    trial = last(workspace, "shadow", base)
    running = trial if trial and not trial.ended_at else None
    found = _agreement(workspace, running) if running else None
    if as_json:
        print_json({"trial": running and asdict(running), "agreement": found and found.to_dict()})
    elif running and found:
        print_trial(running)
        click.echo(f"disagreed {found.disagreed.text}; skipped for lack of time: {found.skipped}")
    else:
        click.echo("no shadow runs: `lyra-nli shadow start NAME` begins one")


@shadow.command("report")
@click.option("--limit", type=click.IntRange(min=0), default=_SHOWN, show_default=True)
@click.option(
    "--export",
    "export_file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="write all pairs in dispute as JSON lines; fill in `correct_label`, then `import`",
)
@place_options
@base_option
@json_option
def shadow_report(
    limit: int,
    export_file: Path | None,
    config: Path | None,
    db: str | None,
    base: str | None,
    as_json: bool,
) -> None:
    """How the last shadow and the active version agree, by label, and where they are most apart.

    Nobody has reviewed these pairs: it says where the two differ, not which of them is right.
    """
    from lyra_nli.monitoring.shadow_report import disagreements
    from lyra_nli.storage.engine import read

    workspace = open_workspace(config, db, read_only=True)
    trial = last(workspace, "shadow", base)
    if trial is None:
        print_json(None) if as_json else click.echo("there was no shadow yet")
        return
    found = _agreement(workspace, trial)
    with read(workspace.engine) as connection:
        wanted = None if export_file else limit
        disputes = list(disagreements(connection, workspace.generation, trial, wanted))
    if export_file:
        lines = (json.dumps(each.to_review(), ensure_ascii=False) for each in disputes)
        with export_file.open("x", encoding="utf-8") as file:  # nothing is ever overwritten
            file.writelines(f"{line}\n" for line in lines)
        click.echo(f"{len(disputes)} pairs in dispute written to {export_file}", err=True)
    if as_json:
        shown = [asdict(each) for each in disputes[:limit]]
        print_json({"trial": asdict(trial), "agreement": found.to_dict(), "disagreements": shown})
        return
    print_trial(trial)
    _print_agreement(found, trial.version)
    for each in disputes[:limit]:
        _print_dispute(each)


def _agreement(workspace: Workspace, trial: Trial) -> Agreement:
    from lyra_nli.monitoring.shadow_report import agreement
    from lyra_nli.storage.engine import read

    with read(workspace.engine) as connection:
        return agreement(connection, workspace.generation, trial)


def _print_agreement(found: Agreement, other: str) -> None:
    ones = " and ".join(found.ones) or "the active version"
    click.echo(f"{ones} and {other} disagree on {found.disagreed.text}")
    click.echo(f"skipped for lack of time: {found.skipped}")
    if found.confidence_shift is None:
        return
    print_crosstab(found.labels, "was answered", f"{other} says")
    click.echo(f"\nconfidence {found.confidence_shift:+.3f} on average")


def _print_dispute(found: Disagreement) -> None:
    from lyra_nli.monitoring.shadow_report import label_of

    click.echo(f"\n{found.hypothesis}\n  from: {found.premise}")
    if found.edge_id:
        click.echo(f"  edge: {found.edge_id}")
    for version, chances in found.answers.items():
        label = label_of(chances)
        click.echo(f"  {version}: {label} ({chances[label]:.0%})")
