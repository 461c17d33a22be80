"""``lyra-nli train``."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from lyra_nli.cli.gate import NOT_PASSED, print_verdict
from lyra_nli.cli.options import base_option, open_workspace, place_options, print_json, who
from lyra_nli.errors import InputError

if TYPE_CHECKING:
    from lyra_nli.loop import Outcome
    from lyra_nli.workspace import Workspace


@click.command()
@place_options
@base_option
@click.option("--if-due", is_flag=True, help="for timers: do nothing, and succeed, when not due")
@click.option("--force", is_flag=True, help="train although it is not due; needs --reason")
@click.option(
    "--promote-anyway", is_flag=True, help="activate whatever the gate says; needs --reason"
)
@click.option("--no-activate", is_flag=True, help="leave activation to `adapters activate`")
@click.option("--reason", default="", help="why; kept in the history")
@click.option("--reproduce", metavar="VERSION", help="train a version again and compare the bytes")
@click.option(
    "--domain", default="", metavar="SITE|GROUP", help="learn from its reviews alone, due or not"
)
@click.option("--layers", metavar="N|third|half|all", help="how many upper layers learn, this time")
@click.option(
    "--search",
    "minutes",
    type=click.FloatRange(min=0, min_open=True),
    is_flag=False,
    flag_value=30.0,
    metavar="[MINUTES]",
    help="look for a better recipe first; 30 minutes, if no number is given",
)
@click.option("--warm-start", is_flag=True, help="start from the active version's adapter")
@click.option("--json", "as_json", is_flag=True, help="print JSON")
def train(
    config: Path | None,
    db: str | None,
    base: str | None,
    if_due: bool,
    force: bool,
    promote_anyway: bool,
    no_activate: bool,
    reason: str,
    reproduce: str | None,
    domain: str,
    layers: str | None,
    minutes: float | None,
    warm_start: bool,
    as_json: bool,
) -> None:
    """Train a LoRA adapter from all reviews, prove it, register it, and let it serve.

    Exit code 0: passed the gate (or not due, with --if-due); 1: not due; 9: trained, but the
    gate did not pass it.
    """
    if reproduce:
        _reproduce(config, db, reproduce, as_json)
        return
    if (force or promote_anyway) and not reason.strip():
        raise InputError("--force and --promote-anyway need --reason TEXT: the history keeps it")
    if no_activate and promote_anyway:
        raise InputError("--no-activate and --promote-anyway contradict each other")
    if domain and (if_due or promote_anyway):
        raise InputError(
            "--domain goes with neither --if-due nor --promote-anyway",
            hint="A domain is learned when you say so, and served where nli.routes names it.",
        )
    changes = {
        **({"layers": layers} if layers else {}),
        **({"warm_start": True} if warm_start else {}),
    }
    workspace = open_workspace(config, db, training=changes)
    if minutes and workspace.settings.training.warm_start:
        raise InputError(
            "a search and a warm start do not go together",
            hint="A search tries adapters of other shapes, a warm start has one already.",
        )
    base = base or workspace.settings.nli.fast_model
    if not force and not domain and not _is_due(workspace, base, as_json):
        if if_due:
            return
        click.echo("Not due. `--force --reason TEXT` trains nevertheless.", err=True)
        sys.exit(1)
    # `systemctl stop` ends a training as Ctrl-C does: nothing half-done stays.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    from lyra_nli import loop

    outcome = loop.train(
        workspace,
        base,
        who=who(),
        forced_reason=reason if force or domain else "",
        promote_reason=reason if promote_anyway else "",
        activate=not no_activate,
        domain=domain,
        search_minutes=minutes or 0.0,
    )
    if as_json:
        print_json(summary(outcome))
    else:
        _print(outcome)
    sys.exit(0 if outcome.verdict.outcome == "pass" or promote_anyway else NOT_PASSED)


def _reproduce(config: Path | None, db: str | None, name: str, as_json: bool) -> None:
    context = click.get_current_context()
    given = {
        parameter.opts[0]
        for parameter in context.command.params
        if context.get_parameter_source(parameter.name or "") is ParameterSource.COMMANDLINE
    }
    if others := sorted(given - {"--reproduce", "--config", "--db", "--json"}):
        raise InputError(
            f"--reproduce goes without {', '.join(others)}",
            hint="It trains as the version's own manifest tells.",
        )
    from lyra_nli.reproduction import reproduce

    version = reproduce(open_workspace(config, db), name)
    if as_json:
        print_json({"version": version.name, "same_bytes": True})
    else:
        click.echo(f"{version.name}: trained again, the same bytes")


def summary(outcome: Outcome) -> dict[str, object]:
    """The outcome as plain values."""
    return {
        "version": outcome.version.name,
        "path": str(outcome.version.path),
        "status": outcome.version.status,
        "activated": outcome.activated,
        "kept_back": outcome.kept_back,
        "domain": outcome.version.domain,
        "verdict": outcome.verdict.to_dict(),
        "training": outcome.trained.figures(),
        "origin": dict(outcome.origin),
        "seconds": outcome.seconds,
    }


def _is_due(workspace: Workspace, base: str, as_json: bool) -> bool:
    from lyra_nli.cli.data import due_facts, print_due
    from lyra_nli.storage.engine import read
    from lyra_nli.training.due import check_due

    with read(workspace.engine) as connection:
        state = check_due(connection, workspace.generation, workspace.settings.due, base)
    if not as_json:
        print_due(state)
    elif not state.due:
        print_json(due_facts(state))
    return state.due


def _print(outcome: Outcome) -> None:
    version, verdict, trained = outcome.version, outcome.verdict, outcome.trained
    print_verdict(version.name, verdict)
    for name in ("started from", "search"):
        if name in outcome.origin:
            click.echo(f"  {name}: {outcome.origin[name]}")
    share = trained.trainable / trained.total
    click.echo(
        f"  trained {trained.trainable:,} parameters ({share:.2%}) in {trained.seconds:.0f} s, "
        f"{trained.peak_memory / 2**20:.0f} MB; report: {version.path / 'report.html'}"
    )
    if version.domain and version.status == "passed":
        click.echo(
            f"  not active: it is for {version.domain} alone. Route its site in the settings,\n"
            f"    nli: {{routes: {{{version.domain}: {version.name}}}}}\n"
            f'  or ask for it by name: "adapter": "{version.name}"'
        )
    else:
        click.echo("  active now" if outcome.activated else f"  not active {outcome.kept_back}")
