"""Reviewed pairs from a file into the database: all of them, or none."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, insert

from lyra_nli.errors import InputError
from lyra_nli.feedback.fields import BadRowError, ImportRow
from lyra_nli.feedback.files import read_file
from lyra_nli.feedback.formats import ROW_NAMES, Format, detect_format
from lyra_nli.feedback.known import Known, content_of, row_id
from lyra_nli.storage.engine import batches, now, write
from lyra_nli.storage.generation import inspect_database
from lyra_nli.storage.tables import nli_reviews


@dataclass(frozen=True, slots=True)
class ImportResult:
    """What an import did.

    Attributes:
        imported: rows that are new in the database.
        skipped: bad rows that were left out, as was asked.
        duplicates: rows that the file holds twice, or the database already.
        problems: what is wrong with the skipped rows, with line numbers.
    """

    imported: int
    skipped: int
    duplicates: int
    problems: tuple[str, ...]


def read_rows(file: Path) -> tuple[list[ImportRow], list[str]]:
    """Read and check a whole file.

    Returns:
        The good rows, and what is wrong with the others: ``line 3: premise: is empty``.

    Raises:
        InputError: when the file can't be read as a whole (see `files.read_file`).
    """
    kind = detect_format(file)
    problems = _Problems(ROW_NAMES[kind])
    return list(problems.keep_good(read_file(file, kind))), problems.lines


def import_file(
    engine: Engine,
    file: Path,
    *,
    kind: Format | None = None,
    skip_bad: bool = False,
    progress: Callable[[int], None] | None = None,
) -> ImportResult:
    """Import a file of reviewed pairs in one transaction.

    A row is a duplicate when its id is known; one without an id, when pair, label, reviewer,
    time and edge (where it names one) are. So importing a file again changes nothing. Memory
    holds a few hundred rows, whatever the file's length.

    Args:
        engine: a database opened for writing, with our tables.
        file: of any format in `formats.FORMATS`.
        kind: which one; by default its name or content tells.
        skip_bad: import the good rows although others are bad.
        progress: called with the number of rows dealt with so far.

    Raises:
        InputError: when any row is bad (every one is named) and `skip_bad` is not set, or
            the file can't be read; nothing is imported then.
        StorageError: when the database was not upgraded or can't be written.
    """
    generation = inspect_database(engine)
    generation.require_upgraded()
    kind = kind or detect_format(file)
    problems = _Problems(ROW_NAMES[kind])
    imported = duplicates = 0
    with write(engine) as connection:
        known = Known(connection, generation)
        for batch in batches(problems.keep_good(read_file(file, kind)), size=200):
            # Stored even after a bad row, so that every taken id is found; then undone.
            conflicts = problems.conflicts
            new = _new_rows(known, batch, problems)
            if new:
                connection.execute(insert(nli_reviews), new)
            imported += len(new)
            duplicates += len(batch) - len(new) - (problems.conflicts - conflicts)
            if progress:
                progress(imported + duplicates + problems.rows)
        if problems.lines and not skip_bad:
            raise InputError(
                f"{problems.rows} bad row(s) in {file}; nothing was imported",
                problems=problems.lines,
                hint="Mend them, or import the good rows with --skip-bad.",
            )
    return ImportResult(imported, problems.rows, duplicates, tuple(problems.lines))


class _Problems:
    """Collects what is wrong, row by row.

    Attributes:
        lines: one for each fault.
        rows: how many rows are bad.
        conflicts: how many of those were well formed, but their id is taken.
    """

    def __init__(self, row_name: str) -> None:
        self.row_name = row_name
        self.lines: list[str] = []
        self.rows = 0
        self.conflicts = 0

    def keep_good(
        self, outcomes: Iterable[ImportRow | tuple[int, BadRowError]]
    ) -> Iterator[ImportRow]:
        """Pass on the good rows."""
        for outcome in outcomes:
            if isinstance(outcome, ImportRow):
                yield outcome
            else:
                self._add(*outcome)

    def id_taken(self, row: ImportRow) -> None:
        """Note that another review has this row's id."""
        self.conflicts += 1
        self._add(row.line, BadRowError(f"id: {row.id!r} belongs to another review already"))

    def _add(self, line: int, error: BadRowError) -> None:
        self.rows += 1
        self.lines += [f"{self.row_name} {line}: {problem}" for problem in error.problems]


def _new_rows(
    known: Known, batch: Sequence[ImportRow], problems: _Problems
) -> list[dict[str, Any]]:
    """Turn a batch into rows to insert, leaving out what is there already."""
    ids = [row_id(row) for row in batch]
    by_id, contents = known.find(dict(zip(ids, batch, strict=True)))
    new = []
    for row, given in zip(batch, ids, strict=True):
        content = content_of(row)
        taken = by_id.get(given)
        if taken is not None and not content.may_be(taken):
            problems.id_taken(row)
        elif taken is None and (row.id or content not in contents):
            new.append(_values(row, given))
            by_id[given] = content
            contents |= content.forms()
    return new


def _values(row: ImportRow, given: str) -> dict[str, Any]:
    return {
        "id": given,
        "edge_id": row.edge_id or None,
        "pair_key": row.pair.key,
        "premise": row.pair.premise,
        "hypothesis": row.pair.hypothesis,
        "predicted_label": row.predicted_label,
        "predicted_confidence": row.predicted_confidence,
        "predicted_by": row.predicted_by or None,
        "correct_label": row.correct_label,
        "anchors_json": json.dumps(row.anchors),
        "reviewer": row.reviewer,
        "reason": row.reason,
        "sampling": row.sampling,
        "source_url": row.source_url,
        "reviewed_at": now() if row.reviewed_at is None else row.reviewed_at,
    }
