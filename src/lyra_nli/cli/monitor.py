"""``lyra-nli monitor``: how the served versions do, and whether somebody should look."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from lyra_nli.cli.options import (
    base_option,
    json_option,
    open_workspace,
    place_options,
    print_json,
)

if TYPE_CHECKING:
    from lyra_nli.monitoring.changes import Change
    from lyra_nli.monitoring.report import Report

ALERT_OPEN: Final = 9
"""Exit code, as of a training that did not pass: no error has it, see `lyra_nli.errors`."""


@click.group()
def monitor() -> None:
    """How the served versions do, and whether somebody should look."""


@monitor.command()
@place_options
@json_option
def check(config: Path | None, db: str | None, as_json: bool) -> None:
    """Apply the alert rules once, as the server does. Exit code 0: no alert is open, 9: some are.

    Alerts are kept, told to the webhook, and lead to a rollback where the settings say so.
    """
    from lyra_nli.monitoring.watch import check as look

    found = look(open_workspace(config, db))
    if as_json:
        print_json(asdict(found))
        sys.exit(ALERT_OPEN if found.open else 0)
    marks = {True: "ALERT", False: "ok", None: "?"}
    for finding in found.findings:
        click.echo(f"{marks[finding.exceeded]:6} {finding.rule:16} {finding.message}")
    for alert in found.resolved:
        click.echo(f"resolved {alert.rule} of {alert.version}, open since {alert.at[:16]}")
    for alert in found.open:
        action = f"  [{alert.action}]" if alert.action else ""
        click.echo(f"open   {alert.rule} of {alert.version} since {alert.at[:16]}{action}")
    click.echo(f"{len(found.open)} alert(s) open" if found.open else "nothing to look at")
    sys.exit(ALERT_OPEN if found.open else 0)


@monitor.command()
@place_options
@base_option
@json_option
def report(config: Path | None, db: str | None, base: str | None, as_json: bool) -> None:
    """Correction rate, accuracy and Brier score by version and week, every change, drift."""
    from lyra_nli.monitoring.report import read_report

    found = read_report(open_workspace(config, db, read_only=True), base)
    if as_json:
        print_json(_facts(found))
        return
    click.echo("by version, on reviews drawn at random")
    for name, share in found.versions.items():
        click.echo(f"  {name:16} corrected {share.text}")
    click.echo("by week")
    for week in found.weeks:
        brier = f"{week.brier:.3f} ({week.brier_n})" if week.brier is not None else "-"
        click.echo(
            f"  {week.week}  {week.version:16} corrected {week.corrected.text}, Brier {brier}"
        )
    click.echo("changes")
    for change in found.changes:
        click.echo(f"  {change.day}  {change.from_version} -> {change.to_version}: {change.text}")
        click.echo(f"              {_evidence(change)}")
    click.echo("labels answered by week")
    for week_label in found.labels:
        click.echo(f"  {week_label.week}  {week_label.version:16} {week_label.text}")
    click.echo("drift")
    for drift in found.drifts:
        click.echo(f"  {drift.text}")


def _evidence(change: Change) -> str:
    words = f"evidence that it is worse: {change.evidence.highest:.3g} to 1"
    p = f", one-sided Fisher p = {change.p:.3g}" if change.p is not None else ""
    reached = f"; enough on {change.reached_on}" if change.reached_on else ""
    return f"{words} in {change.evidence.days} days{p}{reached}"


def _facts(found: Report) -> dict[str, Any]:
    return {
        "base_model": found.base_model,
        "versions": {name: share.to_dict() for name, share in found.versions.items()},
        "weeks": [{**asdict(week), "corrected": week.corrected.to_dict()} for week in found.weeks],
        "changes": [change.to_dict() for change in found.changes],
        "labels": [asdict(week_label) for week_label in found.labels],
        "drift": [drift.to_dict() for drift in found.drifts],
    }
