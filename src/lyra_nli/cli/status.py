"""``lyra-nli status``: everything a person needs to know today; reading only."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lyra_nli.cli.data import due_facts, print_due
from lyra_nli.cli.options import json_option, open_workspace, place_options, print_json

if TYPE_CHECKING:
    from lyra_nli.monitoring.overview import Overview


@click.command()
@place_options
@json_option
def status(config: Path | None, db: str | None, as_json: bool) -> None:
    """What serves, how it does, what people said, and what is to be done."""
    from lyra_nli.monitoring.overview import overview

    found = overview(open_workspace(config, db, read_only=True))
    if as_json:
        print_json(_facts(found))
        return
    _print_serving(found)
    _print_people(found)
    print_due(found.due)
    for event in found.events:
        action = event.action.replace("_", " ")
        click.echo(f"{event.at[:19]}  {action:10} {event.change}  {event.who}  {event.reason}")
    for sentence in found.missing:
        click.echo(f"missing     {sentence}")
    for step in found.next:
        click.echo(f"next        {step}")


def _print_serving(found: Overview) -> None:
    serving = found.serving
    since = f", since {serving.since[:16]} by {serving.who}" if serving.since else ""
    click.echo(f"database    {found.database}")
    click.echo(f"base model  {found.base_model}")
    click.echo(f"active      {_name(serving.version)}{since}")
    click.echo(f"previous    {_name(serving.previous)}")
    click.echo(f"corrected   {found.standing.rate.text}")
    if found.change:
        click.echo(f"  change    {found.change.text}")
    kept = "none: the confidence is the model's own"
    if found.calibration:
        kept = "{}, {}".format(*found.calibration)
    error = f"; off by {found.standing.error}" if found.standing.error else ""
    click.echo(f"calibration {kept}{error}")
    moved = [drift for drift in found.standing.drifts if drift.level in ("small", "large")]
    for drift in moved:
        click.echo(f"drift       {drift.text}")
    if found.standing.drifts and not moved:
        click.echo("drift       none to speak of this week")
    for alert in found.alerts:
        click.echo(f"ALERT       {alert.rule}: {alert.message} (since {alert.at[:16]})")


def _print_people(found: Overview) -> None:
    counts, drawn = found.reviews, found.sampling
    click.echo(f"reviews     {counts.reviewed}, of which {counts.corrected} corrected the model")
    if drawn.correction_rate is not None:
        click.echo(
            f"at random   {drawn.random}, of which {drawn.random_corrected} corrected the model: "
            f"it errs in about {drawn.correction_rate:.0%}"
        )
    if found.agreement:
        click.echo(f"agreement   {found.agreement.text}")
    if found.queue:
        click.echo(f"queue       {found.queue.text}")
    if run := found.last_run:
        ended = f"{run['status']} {run['finished_at'][:16]}" if run["finished_at"] else "running"
        click.echo(f"last run    begun {run['started_at'][:16]}, {ended}  {run['message'] or ''}")


def _name(version: str) -> str:
    return "the base itself" if version == "base" else version


def _facts(found: Overview) -> dict[str, Any]:
    serving, standing, drawn = found.serving, found.standing, found.sampling
    return {
        "database": found.database,
        "base_model": found.base_model,
        "active": None if serving.version == "base" else serving.version,
        "previous": None if serving.previous == "base" else serving.previous,
        "reviewed": found.reviews.reviewed,
        "corrected": found.reviews.corrected,
        "corrected_unused": found.reviews.corrected_unused,
        "random": {**asdict(drawn), "correction_rate": drawn.correction_rate},
        "agreement": asdict(found.agreement) if found.agreement else None,
        **due_facts(found.due),
        "events": [asdict(event) for event in found.events],
        "at": found.at,
        "serving": asdict(serving),
        "correction_rate": standing.rate.to_dict(),
        "change": found.change.to_dict() if found.change else None,
        "calibration": dict(zip(("number", "method"), found.calibration, strict=True))
        if found.calibration
        else None,
        "calibration_error": asdict(standing.error) if standing.error else None,
        "drift": [drift.to_dict() for drift in standing.drifts],
        "alerts": [asdict(alert) for alert in found.alerts],
        "queue": asdict(found.queue) if found.queue else None,
        "last_run": found.last_run,
        "missing": found.missing,
        "next": found.next,
    }
