"""Crosstab: how often one answer met another, label by label."""

from __future__ import annotations

from collections.abc import Sequence

import click

from lyra_nli.labels import LABELS


def print_crosstab(counts: Sequence[Sequence[int]], rows: str, columns: str) -> None:
    """Print counts [label, label].

    Args:
        rows: whose labels stand on the left, in words; `columns`: on top.
    """
    click.echo(f"\n{rows:>24}  {columns}")
    click.echo(" " * 24 + "".join(f"{label:>10}" for label in LABELS))
    for label, row in zip(LABELS, counts, strict=True):
        click.echo(f"{label:>24}" + "".join(f"{count:10}" for count in row))
