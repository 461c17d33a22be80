"""``lyra-nli demo``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from lyra_nli.demo.run import Result
    from lyra_nli.evaluation.metrics import Interval


@click.command()
@click.option(
    "--dir",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("demo"),
    show_default=True,
    help="folder of the sample project; emptied if it is an earlier demo",
)
@click.option(
    "--data",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="your own reviewed pairs (JSONL or CSV, as for `import`) instead of the sample project",
)
@click.option("--base", default="starter", show_default=True, help="base model")
@click.option("--pairs", type=click.IntRange(min=600), default=960, show_default=True)
@click.option("--seed", default=7, show_default=True)
def demo(folder: Path, data: Path | None, base: str, pairs: int, seed: int) -> None:
    """The whole loop on a sample project: judge, review, train, prove, serve, roll back."""
    from lyra_nli.demo.own_data import world_of_reviews
    from lyra_nli.demo.run import run
    from lyra_nli.demo.world import build_world

    base = str(Path(base).resolve()) if Path(base).is_dir() else base
    world = world_of_reviews(data) if data else build_world(seed, pairs)
    result = run(
        world,
        folder,
        base=base,
        slip_rate=0.0 if data else 0.03,
        seed=seed,
        say=lambda step: click.echo(f"- {step}"),
    )
    _print(result, folder)


def _print(result: Result, folder: Path) -> None:
    before, after, outcome = result.before, result.after, result.outcome
    lines = [
        "",
        f"reviewed {result.corrected + result.agreed} pairs: "
        f"{result.corrected} corrected, {result.agreed} agreed",
        *(f"due      {condition.text}" for condition in result.due.conditions),
        f"gate     {outcome.verdict.outcome}: {outcome.verdict.sentence}",
        "",
        f"{before.n} pairs about topics that nobody reviewed:",
        f"{'':18}{'base':>16}{outcome.version.name:>18}",
        f"{'accuracy':18}{before.accuracy.value:16.3f}{after.accuracy.value:18.3f}",
        f"{'  95% interval':18}{_interval(before.accuracy):>16}{_interval(after.accuracy):>18}",
        f"{'Brier score':18}{before.brier:16.3f}{after.brier:18.3f}",
        f"{'errors fixed':18}{'':16}{result.fixed:18}",
        f"{'answers broken':18}{'':16}{result.broken:18}",
        "",
        "after the rollback: "
        + ("the base's answers again" if result.restored else "NOT the base's answers"),
        f"the server followed in {result.follow_seconds:.2f} s, "
        f"and back in {result.rollback_seconds:.2f} s",
        "",
        *(f"{seconds:8.1f} s  {step}" for step, seconds in result.seconds.items()),
        *(f"{seconds:12.1f} s  of which {step}" for step, seconds in outcome.seconds.items()),
        f"{sum(result.seconds.values()):8.1f} s  in all",
        "",
        f"gate report: {outcome.version.path / 'report.html'}",
        f"look around: cd {folder} && lyra-nli status",
    ]
    click.echo("\n".join(lines))


def _interval(interval: Interval) -> str:
    return f"{interval.low:.3f}-{interval.high:.3f}"
