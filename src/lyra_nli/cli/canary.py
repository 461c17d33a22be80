"""``lyra-nli canary``: a version answers a share of the requests, and gives way if it is worse."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from lyra_nli.cli.options import base_option, json_option, open_workspace, place_options, print_json
from lyra_nli.cli.trials import last, print_trial, reason_option, share_option, start, stop


@click.group()
def canary() -> None:
    """Let a version answer a share of the requests, and watch how it does."""


@canary.command("start")
@click.argument("name")
@share_option(0.05, "of the requests, by a hash of their `key`, or of each pair's texts")
@place_options
@reason_option
def start_canary(name: str, share: float, config: Path | None, db: str | None, reason: str) -> None:
    """Let a version answer a share of the requests on every server of this registry.

    A version that the gate did not pass needs --reason. What names a version or has a route stays
    as it is. The canary ends by itself when it can't judge, or when the random reviews of its
    answers show that it errs more than the active version.
    """
    print_trial(start(open_workspace(config, db), "canary", name, share, reason))


@canary.command("stop")
@place_options
@base_option
@reason_option
def stop_canary(config: Path | None, db: str | None, base: str | None, reason: str) -> None:
    """End the canary: the active version answers everything again."""
    print_trial(stop(open_workspace(config, db), "canary", base, reason))


@canary.command("status")
@place_options
@base_option
@json_option
def canary_status(config: Path | None, db: str | None, base: str | None, as_json: bool) -> None:
    """Say which canary answers."""
    trial = last(open_workspace(config, db, read_only=True), "canary", base)
    running = trial if trial and not trial.ended_at else None
    if as_json:
        print_json({"trial": running and asdict(running)})
    elif running:
        print_trial(running)
    else:
        click.echo("no canary answers: `lyra-nli canary start NAME` begins one")


@canary.command("report")
@place_options
@base_option
@json_option
def canary_report(config: Path | None, db: str | None, base: str | None, as_json: bool) -> None:
    """How often people correct the last canary, and the active version meanwhile.

    By reviews drawn at random. Whether to activate it is yours to say.
    """
    from lyra_nli.monitoring.canary import judge_canary
    from lyra_nli.monitoring.rates import read_random_reviews
    from lyra_nli.storage.engine import read

    workspace = open_workspace(config, db, read_only=True)
    trial = last(workspace, "canary", base)
    if trial is None:
        print_json(None) if as_json else click.echo("there was no canary yet")
        return
    with read(workspace.engine) as connection:
        reviews = read_random_reviews(connection, workspace.generation)
    alpha = workspace.settings.monitoring.alert_alpha
    found = judge_canary(trial, workspace.registry.events(trial.base_model), reviews, alpha)
    if as_json:
        print_json(found.to_dict())
        return
    print_trial(trial)
    for name, share in ((", ".join(found.actives), found.active), (trial.version, found.canary)):
        click.echo(f"{name:16} corrected {share.text}")
    click.echo(found.text)
    click.echo(
        f"evidence that it is worse: {found.evidence.highest:.3g} to 1 in "
        f"{found.evidence.days} whole days (it ends at {1 / alpha:.3g})"
    )
