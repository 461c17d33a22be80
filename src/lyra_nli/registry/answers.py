"""The answers that a version keeps: what was said of the rows that it was judged on."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from lyra_nli.errors import AdapterInvalidError
from lyra_nli.labels import LABELS

ANSWERS: Final = "out_of_fold.jsonl"


def write_answers(folder: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write a line for each row, see `lyra_nli.training.folds.answer_rows`."""
    with (folder / ANSWERS).open("w", encoding="utf-8") as lines:
        lines.writelines(json.dumps(row) + "\n" for row in rows)


def read_answers(folder: Path) -> list[dict[str, Any]]:
    """Read every row that a version was judged on; none where it kept none.

    Each has an ``id``, the ``part`` that it stood in and the ``probabilities`` of all labels.

    Raises:
        AdapterInvalidError: when a line can't be read.
    """
    file = folder / ANSWERS
    if not file.is_file():
        return []
    with file.open("rb") as lines:
        return [_row(file, number, line) for number, line in enumerate(lines, 1)]


def _row(file: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        row: dict[str, Any] = json.loads(line)
        row["id"], row["part"], [float(row["probabilities"][label]) for label in LABELS]
    except (ValueError, KeyError, TypeError) as error:
        raise AdapterInvalidError(
            f"{file} can't be read: line {number}: {error!r}",
            hint="Restore the folder from an export, or train again.",
        ) from error
    return row
