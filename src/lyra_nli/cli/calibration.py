"""``lyra-nli calibrate`` and ``lyra-nli calibration``: how far a confidence is to be believed."""

from __future__ import annotations

import sys
from collections.abc import Mapping
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

if TYPE_CHECKING:
    from lyra_nli.workspace import Workspace

_FIGURES = ("confidence_brier", "brier", "nll", "ece", "ece_mass", "ece_debiased", "classwise_ece")


@click.command()
@click.argument("version", default="active")
@place_options
@base_option
@json_option
def calibrate(
    version: str, config: Path | None, db: str | None, base: str | None, as_json: bool
) -> None:
    """Measure a version's confidence on random reviews, and keep what corrects it.

    VERSION is a name, `active` (the default) or `base`. Exit code 1: measured, but nothing was
    kept.
    """
    from lyra_nli.feedback.calibration import evaluate

    workspace = open_workspace(config, db)
    source, base_model = _owner(workspace, version, base)
    answer = evaluate(
        workspace.engine,
        source=source,
        base_model=base_model,
        directory=workspace.registry.directory,
        who=who(),
    )
    if as_json:
        print_json(answer)
    else:
        _print_evaluation(answer)
    sys.exit(0 if answer["accepted"] else 1)


@click.group()
def calibration() -> None:
    """What corrects the confidence of each version."""


@calibration.command("show")
@click.argument("version", required=False)
@place_options
@any_base_option
@json_option
def show(
    version: str | None, config: Path | None, db: str | None, base: str | None, as_json: bool
) -> None:
    """All calibrations, or those of one VERSION with its last reliability diagram."""
    from lyra_nli.feedback.calibration import get_history

    workspace = open_workspace(config, db, read_only=True)
    source, base_model = _owner(workspace, version, base) if version else (None, base)
    history = get_history(workspace.engine, source=source, base_model=base_model)
    if as_json:
        print_json(history)
        return
    for each in history["calibrations"]:
        mark = "*" if each["is_current"] else " "
        click.echo(
            f"{mark} {each['version']:4}  {each['source']:16} {each['method']:12} "
            f"{each['samples']:5} pairs  {each['created_at'][:16]}  {each['base_model']}"
        )
    if not history["calibrations"]:
        click.echo("no calibration: confidences stand as the model gives them")
    for bar in history["bins"]:
        _print_bar(bar)


@calibration.command("rollback")
@click.argument("version", required=False)
@click.option("--to", type=click.IntRange(min=0), help="this one; 0: none [the one before]")
@click.option("--reason", required=True, help="why; kept in the history")
@place_options
@any_base_option
@json_option
def rollback(
    version: str | None,
    to: int | None,
    reason: str,
    config: Path | None,
    db: str | None,
    base: str | None,
    as_json: bool,
) -> None:
    """Make an earlier calibration current again: of VERSION, or of what changed last."""
    from lyra_nli.feedback.calibration import rollback as go_back

    workspace = open_workspace(config, db)
    source, base_model = _owner(workspace, version, base) if version else (None, base)
    answer = go_back(
        workspace.engine,
        reason=reason,
        version=to,
        source=source,
        base_model=base_model,
        who=who(),
    )
    if as_json:
        print_json(answer)
    else:
        click.echo(answer["message"])


def _owner(workspace: Workspace, reference: str, base: str | None) -> tuple[str, str]:
    """The source that is meant, and its base: a version that is named has its own."""
    base = base or workspace.settings.nli.fast_model
    version = workspace.registry.resolve(reference, base)
    return (version.name, version.base_model) if version else ("base", base)


def _print_evaluation(answer: Mapping[str, Any]) -> None:
    before, after = answer["metrics"]["before"], answer["metrics"]["after"]
    click.echo(f"{answer['source']}: {answer['samples']} pairs\n")
    click.echo(f"{'':18}{'as it is':24}{answer['method']}, out of fold")
    for name in _FIGURES:
        if name in before:
            click.echo(f"{name:18}{_estimate(before[name]):24}{_estimate(after[name])}")
    for method, why in answer["refused"].items():
        click.echo(f"refused: {method}: {why}")
    click.echo(f"\n{answer['message']}")


def _estimate(figure: Mapping[str, Any]) -> str:
    if figure["low"] is None:
        return f"{figure['value']:.3f} ({figure['groups']} groups: few)"
    return f"{figure['value']:.3f} [{figure['low']:.3f}, {figure['high']:.3f}]"


def _print_bar(bar: Mapping[str, Any]) -> None:
    after = bar.get("calibrated", {"n": 0})
    if bar.get("n") or after["n"]:  # Lyra's own evaluations may have bars of another shape
        words = f"{bar['low']:.1f}-{bar['high']:.1f}  {_side(bar)}"
        click.echo(f"{words}  calibrated: {_side(after)}".rstrip())


def _side(bar: Mapping[str, Any]) -> str:
    if not bar["n"]:
        return f"{'no rows':42}"
    low, high = bar["accuracy_low"], bar["accuracy_high"]
    return f"{bar['n']:5} rows, right in {bar['accuracy']:4.0%} [{low:4.0%}, {high:4.0%}]  "
