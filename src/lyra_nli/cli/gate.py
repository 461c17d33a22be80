"""``lyra-nli gate``, and how a verdict is printed."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lyra_nli.cli.options import json_option, open_workspace, place_options, print_json

if TYPE_CHECKING:
    from lyra_nli.evaluation.gate import Verdict

_MARKS = {"shown": "ok", "open": "?", "harm": "NO"}

NOT_PASSED = 9
"""Exit code of a candidate that the gate does not pass."""


@click.command()
@click.argument("name")
@click.option(
    "--against",
    default="",
    metavar="VERSION|base|active",
    help="what to hold it against [default: what served when it was made]",
)
@click.option(
    "--html",
    type=click.Path(dir_okay=False, path_type=Path),
    help="write the whole report into this file; with `.md` as Markdown",
)
@place_options
@json_option
def gate(
    name: str, against: str, html: Path | None, config: Path | None, db: str | None, as_json: bool
) -> None:
    """Judge a version again, by today's rule, on the rows that it was judged on.

    Changes nothing. Exit code 0: it passes; 9: it does not.
    """
    from lyra_nli.appeal import appeal

    heard = appeal(open_workspace(config, db, read_only=True), name, against)
    if html:
        markdown = html.suffix.lower() == ".md"
        html.write_text(heard.report.markdown() if markdown else heard.report.html(), "utf-8")
    if as_json:
        print_json({"version": heard.version.name, "verdict": heard.verdict.to_dict()})
    else:
        print_verdict(heard.version.name, heard.verdict)
    sys.exit(0 if heard.verdict.outcome == "pass" else NOT_PASSED)


def print_verdict(name: str, verdict: Verdict) -> None:
    """The sentence, then each check in words, and what else a reader must know."""
    click.echo(f"{name}: {verdict.outcome}. {verdict.sentence}")
    for check in verdict.checks:
        mark = _MARKS[check.state] if check.enforced or check.holds else "(no)"
        click.echo(f"  {mark:<4} {check.name}: {check.text}")
    for warning in verdict.warnings:
        click.echo(f"  {'!':<4} {warning}")
