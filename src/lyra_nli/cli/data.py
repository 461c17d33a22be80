"""``lyra-nli dataset`` and ``due``: reading only, also on a Lyra database as it is."""

from __future__ import annotations

import math
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lyra_nli.cli.options import (
    base_option,
    json_option,
    open_workspace,
    place_options,
    print_json,
)

if TYPE_CHECKING:
    from lyra_nli.dataset.build import Dataset
    from lyra_nli.training.due import Due


@click.group()
def dataset() -> None:
    """What a training run would learn from."""


@dataset.command("show")
@place_options
@base_option
@json_option
def show(config: Path | None, db: str | None, base: str | None, as_json: bool) -> None:
    """Counts by label, source and split; duplicates, conflicts, leakage."""
    workspace = open_workspace(config, db, read_only=True)
    found = workspace.reviews()
    active = workspace.registry.active(base or workspace.settings.nli.fast_model)
    built = workspace.dataset(found.reviews, active)
    built = built.weighed(workspace.settings.dataset)
    unusable = found.unusable
    if as_json:
        print_json(_dataset_facts(built, unusable))
        return
    click.echo(f"{'':10}{'rows':>7}  by label / by source")
    for side in built.sides():
        labels, sources = built.count(side, "label"), built.count(side, "source")
        click.echo(f"{side:10}{labels.total():7}  {_counts(labels)} / {_counts(sources)}")
    cleaned = built.cleaned
    click.echo(f"{'aside':10}{len(built.aside):7}  straddle a cut group, not used")
    judge = "the hold-out" if built.holdout else "folds; every review is learned from"
    click.echo(f"judged by        {judge}")
    click.echo(f"duplicates       {cleaned.duplicates}")
    click.echo(f"several agree    {len(built.people())}")
    click.echo(f"near-duplicates  {cleaned.near_duplicates}")
    click.echo(f"conflicts        {len(cleaned.conflicts)}")
    for conflict in cleaned.conflicts[:10]:
        others = ", ".join(review.label for review in conflict.overruled)
        click.echo(f"  {conflict.kept.id}: kept {conflict.kept.label}, overruled {others}")
    click.echo(f"capped           {len(built.capped)}")
    for (kind, name), rows in built.capped[:10]:
        click.echo(f"  {kind} {name}: {rows} rows weigh less")
    click.echo(f"empty texts      {len(cleaned.empty)}")
    click.echo(f"unusable rows    {len(unusable)}")
    for line in unusable[:10]:
        click.echo(f"  {line}")
    click.echo(f"leakage          {'NONE' if not built.leaking else built.leaking[:10]}")
    click.echo(f"content hash     {built.content_hash}")


@click.command()
@place_options
@base_option
@json_option
def due(config: Path | None, db: str | None, base: str | None, as_json: bool) -> None:
    """Is training due? Exit code 0: yes, 1: no."""
    from lyra_nli.storage.engine import read
    from lyra_nli.training.due import check_due

    workspace = open_workspace(config, db, read_only=True)
    settings = workspace.settings
    with read(workspace.engine) as connection:
        state = check_due(
            connection, workspace.generation, settings.due, base or settings.nli.fast_model
        )
    if as_json:
        print_json(due_facts(state))
    else:
        print_due(state)
    sys.exit(0 if state.due else 1)


def due_facts(state: Due) -> dict[str, object]:
    """The conditions as plain values."""
    return {
        "due": state.due,
        "conditions": [
            {
                "name": c.name,
                "value": c.value if math.isfinite(c.value) else None,
                "threshold": c.threshold,
                "holds": c.holds,
            }
            for c in state.conditions
        ],
    }


def print_due(state: Due) -> None:
    """Each condition with its figure and threshold, then the answer."""
    for condition in state.conditions:
        mark = "yes" if condition.holds else "no "
        click.echo(f"{mark}  {condition.name}: {condition.text} (>= {condition.threshold:g})")
    click.echo("training is due" if state.due else "training is not due")


def _dataset_facts(built: Dataset, unusable: list[str]) -> dict[str, object]:
    return {
        "splits": {
            side: {
                "rows": built.count(side, "label").total(),
                "labels": built.count(side, "label"),
                "sources": built.count(side, "source"),
            }
            for side in built.sides()
        },
        "aside": len(built.aside),
        "duplicates": built.cleaned.duplicates,
        "agreed_by_several": len(built.people()),
        "near_duplicates": built.cleaned.near_duplicates,
        "conflicts": [
            {"kept": c.kept.id, "label": c.kept.label, "overruled": [r.id for r in c.overruled]}
            for c in built.cleaned.conflicts
        ],
        "capped": [
            {"kind": kind, "name": name, "rows": rows} for (kind, name), rows in built.capped
        ],
        "empty": built.cleaned.empty,
        "unusable": unusable,
        "leaking": built.leaking,
        "content_hash": built.content_hash,
        "split_hash": built.split_hash,
    }


def _counts(counter: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(counter.items())) or "-"
