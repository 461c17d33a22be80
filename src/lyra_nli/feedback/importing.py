"""Reviewed pairs from a file into the database: all of them, or none."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, insert, or_, select

from lyra_nli.errors import InputError
from lyra_nli.feedback.fields import BadRowError, ImportRow
from lyra_nli.feedback.files import read_file
from lyra_nli.storage.engine import batches, now, utc, write
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
    problems = _Problems()
    return list(problems.keep_good(read_file(file))), problems.lines


def import_file(
    engine: Engine,
    file: Path,
    *,
    skip_bad: bool = False,
    progress: Callable[[int], None] | None = None,
) -> ImportResult:
    """Import a file of reviewed pairs in one transaction.

    A row is a duplicate when pair, label, reviewer and time are the same, so importing a
    file again changes nothing. Memory holds a few hundred rows, whatever the file's length.

    Args:
        engine: a database opened for writing, with our tables.
        file: JSON lines or CSV.
        skip_bad: import the good rows although others are bad.
        progress: called with the number of rows dealt with so far.

    Raises:
        InputError: when any row is bad (every one is named) and `skip_bad` is not set, or
            the file can't be read; nothing is imported then.
        StorageError: when the database was not upgraded or can't be written.
    """
    inspect_database(engine).require_upgraded()
    problems = _Problems()
    imported = duplicates = 0
    with write(engine) as connection:
        for batch in batches(problems.keep_good(read_file(file)), size=200):
            # Stored even after a bad row, so that every taken id is found; then undone.
            conflicts = problems.conflicts
            new = _new_rows(connection, batch, problems)
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

    def __init__(self) -> None:
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
        self.lines += [f"line {line}: {problem}" for problem in error.problems]


Content = tuple[str, str, str, str, str]
"""Premise, hypothesis, label, reviewer, time: what makes two reviews the same one."""


def _new_rows(
    connection: Connection, batch: Sequence[ImportRow], problems: _Problems
) -> list[dict[str, Any]]:
    """Turn a batch into rows to insert, leaving out what is there already."""
    keys = [row.pair.key for row in batch]
    ids = [_id(row) for row in batch]
    by_id = _stored(connection, keys, ids)
    contents = set(by_id.values())
    new = []
    for row, key, row_id in zip(batch, keys, ids, strict=True):
        content = _content(row)
        taken = by_id.get(row_id)
        if taken is not None and not _same(taken, content):
            problems.id_taken(row)
        elif taken is None and content not in contents:
            new.append(_values(row, row_id, key))
            by_id[row_id] = content
            contents.add(content)
    return new


def _stored(connection: Connection, keys: Sequence[str], ids: Sequence[str]) -> dict[str, Content]:
    columns = nli_reviews.c
    statement = select(
        columns.id,
        columns.premise,
        columns.hypothesis,
        columns.correct_label,
        columns.reviewer,
        columns.reviewed_at,
    ).where(or_(columns.pair_key.in_(keys), columns.id.in_(ids)))
    return {
        row_id: (premise, hypothesis, label, reviewer, utc(reviewed_at))
        for row_id, premise, hypothesis, label, reviewer, reviewed_at in connection.execute(
            statement
        )
    }


def _content(row: ImportRow) -> Content:
    pair = row.pair
    return (pair.premise, pair.hypothesis, row.correct_label, row.reviewer, row.reviewed_at)


def _same(stored: Content, given: Content) -> bool:
    return stored[:4] == given[:4] and given[4] in ("", stored[4])


def _id(row: ImportRow) -> str:
    """Give a row the id it brings, or one made of its content.

    So a row without a time, which gets the time of its import, is known again later.
    """
    if row.id:
        return row.id
    digest = hashlib.sha256(json.dumps(_content(row)).encode()).hexdigest()
    return f"nlr_{digest[:24]}"


def _values(row: ImportRow, row_id: str, key: str) -> dict[str, Any]:
    return {
        "id": row_id,
        "pair_key": key,
        "premise": row.pair.premise,
        "hypothesis": row.pair.hypothesis,
        "predicted_label": row.predicted_label,
        "predicted_confidence": row.predicted_confidence,
        "correct_label": row.correct_label,
        "anchors_json": json.dumps([f"group:{row.group}"] if row.group else []),
        "reviewer": row.reviewer,
        "reason": row.reason,
        "sampling": row.sampling,
        "source_url": row.source_url,
        "reviewed_at": row.reviewed_at or now(),
    }
