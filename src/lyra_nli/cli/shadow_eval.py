"""``lyra-nli shadow-eval``, which is also ``lyra-nli adapters compare``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lyra_nli.cli.crosstab import print_crosstab
from lyra_nli.cli.options import json_option, open_workspace, place_options, print_json

if TYPE_CHECKING:
    from lyra_nli.comparison import Comparison, Dispute

_SHOWN = 5


@click.command("shadow-eval")
@click.argument("name")
@click.option("--with", "other", default="active", show_default=True, help="the other one")
@click.option("--limit", type=click.IntRange(min=1), default=500, show_default=True)
@place_options
@json_option
def shadow_eval(
    name: str, other: str, limit: int, config: Path | None, db: str | None, as_json: bool
) -> None:
    """Find unreviewed edges on which two versions disagree, for the queue's `disagree` order.

    NAME and --with are versions, `active`, `base` or `slow` (the slow base model). Nobody has
    reviewed these edges: it says where the two differ, not which of them is right.
    """
    from lyra_nli.comparison import compare

    found = compare(open_workspace(config, db), name, other, limit)
    if as_json:
        print_json(asdict(found))
    else:
        _print(found)


def _print(found: Comparison) -> None:
    click.echo(
        f"{found.one} and {found.other} disagree on {found.disagreed} of {found.compared} "
        "unreviewed edges; review them at /review, order `disagree`"
    )
    if found.confidence is None:
        return
    print_crosstab(found.labels, f"{found.one} said", f"{found.other} says")
    one, other = found.confidence
    click.echo(
        f"\nconfidence: {found.one} {one:.3f}, clearly surer on {found.less_sure} edges; "
        f"{found.other} {other:.3f}, clearly surer on {found.surer}"
    )
    for dispute in found.disputes[:_SHOWN]:
        _print_dispute(dispute)


def _print_dispute(dispute: Dispute) -> None:
    click.echo(f"\n{dispute.edge_id}  {dispute.hypothesis}\n  from: {dispute.premise}")
    for version, chances in dispute.answers.items():
        label = max(chances, key=chances.__getitem__)
        click.echo(f"  {version}: {label} ({chances[label]:.0%})")
