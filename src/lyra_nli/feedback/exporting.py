"""Everything people said, into a file that an import reads back as it was."""

from __future__ import annotations

import csv
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from sqlalchemy import Engine

from lyra_nli.errors import InputError
from lyra_nli.feedback import columns
from lyra_nli.feedback.argilla import to_record
from lyra_nli.feedback.fields import EXPORTED, UNKNOWN, BadRowError
from lyra_nli.feedback.formats import Format, format_for, is_datasets_folder
from lyra_nli.feedback.known import export_id
from lyra_nli.feedback.label_studio import to_task
from lyra_nli.feedback.rows import parse_row
from lyra_nli.feedback.seconds import second_looks
from lyra_nli.records import Review
from lyra_nli.storage.engine import new_id, read, utc
from lyra_nli.storage.generation import inspect_database
from lyra_nli.storage.reviews import stream_reviews

Only = Literal["all", "corrected", "agreed"]
Rows = Iterable[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class ExportResult:
    """What an export wrote.

    Attributes:
        exported: rows in the file.
        left_out: reviews that an import would refuse, each with its id and why: those
            without a text, or where nobody kept what the model had said.
        second: blind second verdicts on what was exported; no format holds them.
    """

    exported: int
    left_out: tuple[str, ...]
    second: int = 0


def export_file(
    engine: Engine,
    path: Path,
    *,
    kind: Format | None = None,
    only: Only = "all",
    since: str = "",
    overwrite: bool = False,
    progress: Callable[[int], None] | None = None,
) -> ExportResult:
    """Write all reviews that stand to a new file (a folder for ``datasets``).

    It appears whole or not at all. Memory holds a few thousand rows, however many there are.

    Args:
        engine: a database, ours or Lyra's; it is only read.
        path: the new file.
        kind: by default the one that the file's name stands for.
        only: those that changed the model's label, those that confirmed it, or both.
        since: an ISO-8601 time; only reviews of that time or later.
        overwrite: replace an existing file.
        progress: called with the number of rows written so far.

    Raises:
        InputError: when the file exists, its name tells no format, `since` is no time, the
            format's library is not installed, or the file can't be written.
        StorageError: when the database can't be read.
    """
    kind = kind or format_for(path)
    if since and not utc(since):
        raise InputError(f"since: {since!r} is no ISO-8601 time, such as 2026-01-31")
    generation = inspect_database(engine)
    left_out: list[str] = []
    written = second = 0

    def counted(rows: Rows) -> Iterator[Mapping[str, Any]]:
        nonlocal written, second
        for row in rows:
            yield row
            written += 1
            second += again[row["id"]]
            if progress and written % 200 == 0:
                progress(written)

    with _new_file(path, overwrite=overwrite) as scratch, read(engine) as connection:
        reviews = stream_reviews(connection, generation, left_out)
        wanted = (review for review in reviews if _wanted(review, only, utc(since)))
        again = second_looks(connection, generation)
        _WRITERS[kind](scratch, counted(_importable(wanted, left_out)))
    if progress:
        progress(written)
    return ExportResult(written, tuple(left_out), second)


def _wanted(review: Review, only: Only, since: str) -> bool:
    if only != "all" and review.corrected != (only == "corrected"):
        return False
    return review.reviewed_at >= since


def _importable(reviews: Iterable[Review], left_out: list[str]) -> Iterator[dict[str, Any]]:
    """Write each review as a row; name those that an import would refuse."""
    for review in reviews:
        row = _row(review)
        try:
            parse_row(0, row)
        except BadRowError as error:
            left_out.append(f"{review.id}: {error}")
        else:
            yield row


def _row(review: Review) -> dict[str, Any]:
    return {
        "id": export_id(review),
        "premise": review.pair.premise,
        "hypothesis": review.pair.hypothesis,
        "predicted_label": review.predicted_label,
        "predicted_confidence": review.predicted_confidence,
        "predicted_by": review.predicted_by,
        "correct_label": review.label,
        "reviewed_at": review.reviewed_at or UNKNOWN,
        "reviewer": review.reviewer,
        "reason": review.reason,
        "sampling": review.sampling,
        "source_url": review.source_url,
        "edge_id": review.edge_id,
        "anchors": sorted(review.anchors),
    }


def _write_jsonl(path: Path, rows: Rows) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for row in rows:
            file.write(f"{_json(row)}\n")


def _write_csv(path: Path, rows: Rows) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, EXPORTED)
        writer.writeheader()
        for row in rows:
            writer.writerow({**row, "anchors": _json(row["anchors"])})


def _write_argilla(path: Path, rows: Rows) -> None:
    _write_list(path, map(to_record, rows))


def _write_label_studio(path: Path, rows: Rows) -> None:
    _write_list(path, map(to_task, rows))


def _write_list(path: Path, elements: Iterable[object]) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.write("[")
        for number, element in enumerate(elements):
            file.write(f"{',' if number else ''}\n{_json(element)}")
        file.write("\n]\n")


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


_WRITERS: Mapping[Format, Callable[[Path, Rows], None]] = {
    "jsonl": _write_jsonl,
    "csv": _write_csv,
    "parquet": columns.write_parquet,
    "datasets": columns.write_datasets,
    "argilla": _write_argilla,
    "label-studio": _write_label_studio,
}


@contextmanager
def _new_file(path: Path, *, overwrite: bool) -> Iterator[Path]:
    """Give a place beside the file to write to; put it there when all is written."""
    if path.is_dir() and not is_datasets_folder(path):
        raise InputError(f"{path} is a folder: name a new file")
    if path.exists() and not overwrite:
        raise InputError(f"{path} exists", hint="Name a new file, or replace it with --force.")
    scratch = path.with_name(f".{new_id('export')}")
    try:
        yield scratch
        if path.is_dir():
            shutil.rmtree(path)
        os.replace(scratch, path)
    except OSError as error:
        raise InputError(f"{path} can't be written: {error.strerror or error}") from error
    finally:
        if scratch.is_dir():
            shutil.rmtree(scratch)
        scratch.unlink(missing_ok=True)
