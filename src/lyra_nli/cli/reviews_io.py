"""``lyra-nli enqueue``, ``lyra-nli import`` and ``lyra-nli export``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lyra_nli.cli.options import (
    base_option,
    open_engine,
    open_workspace,
    place_options,
    read_settings,
)

if TYPE_CHECKING:
    from lyra_nli.feedback.exporting import Only
    from lyra_nli.feedback.formats import Format

_FORMATS = ("jsonl", "csv", "parquet", "datasets", "argilla", "label-studio")


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@place_options
@base_option
@click.option("--adapter", default="", help="who judges, as for `predict`")
def enqueue(
    file: Path, config: Path | None, db: str | None, base: str | None, adapter: str
) -> None:
    """Judge pairs and put them before the reviewers, where no Lyra does.

    FILE is JSON lines as for `predict`: pair_id, premise, hypothesis, and the source_url of the
    premise where there is one. Draw them at random from what your system judges: the queue's
    random share can only be as random as they are. Pairs that are there already stay as they are.
    """
    from lyra_nli.enqueueing import enqueue_rows
    from lyra_nli.prediction import Judges, read_pairs

    workspace = open_workspace(config, db)
    rows = read_pairs(file)
    judges = Judges(workspace.settings, base, adapter)
    with _progress("judging", len(rows)) as progress:
        result = enqueue_rows(workspace, judges, rows, progress)
    click.echo(f"{result.new} pairs put into the review queue, {result.known} known already")


@click.command("import")
@click.argument("file", type=click.Path(exists=True, path_type=Path))
@place_options
@click.option("--format", "kind", type=click.Choice(_FORMATS), help="[default: as the file shows]")
@click.option("--skip-bad", is_flag=True, help="import the good rows although others are bad")
def import_reviews(
    file: Path, config: Path | None, db: str | None, kind: Format | None, skip_bad: bool
) -> None:
    """Import reviewed pairs from a file.

    JSON lines, CSV, Parquet, a folder of Hugging Face datasets, or a JSON export of Argilla or
    Label Studio. Fields: premise, hypothesis, predicted_label, predicted_confidence,
    correct_label, and more that are optional (docs/data.md). All rows or none, unless --skip-bad.
    """
    from lyra_nli.feedback.files import count_rows
    from lyra_nli.feedback.formats import detect_format
    from lyra_nli.feedback.importing import import_file

    kind = kind or detect_format(file)
    engine = open_engine(read_settings(config, db))
    with _progress("importing", count_rows(file, kind)) as progress:
        result = import_file(engine, file, kind=kind, skip_bad=skip_bad, progress=progress)
    for problem in result.problems:
        click.echo(f"skipped: {problem}", err=True)
    click.echo(
        f"{result.imported} reviews imported, {result.duplicates} known already, "
        f"{result.skipped} bad rows skipped"
    )


@click.command("export")
@click.argument("file", type=click.Path(path_type=Path))
@place_options
@click.option("--format", "kind", type=click.Choice(_FORMATS), help="[default: as the name ends]")
@click.option("--only", type=click.Choice(["all", "corrected", "agreed"]), default="all")
@click.option("--since", metavar="TIME", default="", help="reviews of that time or later, ISO-8601")
@click.option("--force", is_flag=True, help="replace an existing file")
def export_reviews(
    file: Path,
    config: Path | None,
    db: str | None,
    kind: Format | None,
    only: Only,
    since: str,
    force: bool,
) -> None:
    """Export all reviews that stand to a file that `import` reads back as it was.

    The name's ending tells the format: .jsonl, .csv, .parquet. With --format also datasets (a
    folder), argilla and label-studio (JSON).
    """
    from lyra_nli.feedback.exporting import export_file

    engine = open_engine(read_settings(config, db), read_only=True)
    with _progress("exporting", None) as progress:
        result = export_file(
            engine, file, kind=kind, only=only, since=since, overwrite=force, progress=progress
        )
    for line in result.left_out:
        click.echo(f"left out: {line}", err=True)
    click.echo(f"{result.exported} reviews exported, {len(result.left_out)} left out")
    if result.second:
        click.echo(f"{result.second} second verdicts on them stay behind: no format holds them")


@contextmanager
def _progress(doing: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """Draw a bar on a terminal; without a total it only moves and counts."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    counted = TextColumn("{task.completed:,.0f} rows")
    columns = (TextColumn(doing), BarColumn(), counted, TimeElapsedColumn())
    console = Console(stderr=True)
    off = not console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=off) as bar:
        task = bar.add_task(doing, total=total)
        yield lambda rows: bar.update(task, completed=rows)
