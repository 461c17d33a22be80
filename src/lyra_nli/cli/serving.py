"""``lyra-nli serve`` and ``lyra-nli predict``."""

from __future__ import annotations

from pathlib import Path

import click

from lyra_nli.cli.options import base_option, place_options, print_json, read_settings
from lyra_nli.errors import InputError


@click.command()
@place_options
@click.option("--host", help="[settings: ml_server.host]")
@click.option("--port", type=int, help="[settings: ml_server.port]")
def serve(config: Path | None, db: str | None, host: str | None, port: int | None) -> None:
    """Run the ML server."""
    from lyra_nli.ml_server.main import serve as run

    server = {key: value for key, value in (("host", host), ("port", port)) if value is not None}
    run(read_settings(config, db, ml_server=server))


@click.command()
@place_options
@base_option
@click.option("--premise")
@click.option("--hypothesis")
@click.option(
    "--file", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="JSONL of pairs"
)
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="JSONL of answers")
@click.option(
    "--adapter",
    default="",
    help="base, or a version's name [default: active, or what nli.routes says of a row's source]",
)
@click.option(
    "--windows/--no-windows",
    default=None,
    help="judge a premise that is too long piece by piece, or cut it [settings: nli.windows]",
)
def predict(
    config: Path | None,
    db: str | None,
    base: str | None,
    premise: str | None,
    hypothesis: str | None,
    file: Path | None,
    out: Path | None,
    adapter: str,
    windows: bool | None,
) -> None:
    """Judge one pair, or a file of pairs (pair_id, premise, hypothesis); no server needed.

    A row of a file may name the `adapter` that judges it, or the `source_url` of its premise.
    """
    texts = [text for text in (premise, hypothesis) if text is not None]
    if len(texts) != (0 if file else 2) or (out is not None and file is None):
        raise InputError("give either --premise and --hypothesis, or --file [--out]")
    from lyra_nli import prediction

    nli = {} if windows is None else {"windows": windows}
    settings = read_settings(config, db, nli=nli)
    if file is not None:
        rows = prediction.read_pairs(file)
        names = prediction.predict_file(prediction.Judges(settings, base, adapter), rows, out)
        if out:
            click.echo(f"{len(rows)} pairs judged by {', '.join(names)}: {out}")
        return
    judge = prediction.Judges(settings, base, adapter).default
    print_json(prediction.predict_one(judge, str(premise), str(hypothesis)))
