"""Files of reviewed pairs, read row by row, whatever their format."""

from __future__ import annotations

import csv
import json
from codecs import BOM_UTF8, BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lyra_nli.errors import InputError
from lyra_nli.feedback.argilla import from_record
from lyra_nli.feedback.fields import FIELDS, REQUIRED, BadRowError, ImportRow, unknown_field
from lyra_nli.feedback.formats import Format, detect_format
from lyra_nli.feedback.json_list import read_list
from lyra_nli.feedback.label_studio import from_task
from lyra_nli.feedback.rows import parse_row
from lyra_nli.records import MAX_TEXT_CHARS

MAX_LINE_BYTES = 32 * 1024 * 1024
"""Two texts of the greatest length, every character escaped, and room for the rest."""

Outcome = ImportRow | tuple[int, BadRowError]
"""A row, or the line and what is wrong with it."""


def read_file(file: Path, kind: Format | None = None) -> Iterator[Outcome]:
    """Read a file (or a `datasets` folder) of reviewed pairs, in memory for a few rows.

    Text is UTF-8, with or without a byte order mark, lines ending with LF or CRLF. Blank
    lines are passed over.

    Args:
        file: what to read.
        kind: what it is, when its name or its content does not tell.

    Raises:
        InputError: when the file can't be read as a whole: missing, of another kind, not
            UTF-8, a header with unknown, missing or doubled columns; or when its format
            needs a library that is not installed.
    """
    kind = kind or detect_format(file)
    try:
        if kind in ("jsonl", "csv", "argilla", "label-studio"):
            _refuse_utf16(file)
        yield from _READERS[kind](file)
    except OSError as error:
        raise InputError(f"{file} can't be read: {error.strerror or error}") from error


def count_rows(file: Path, kind: Format) -> int | None:
    """Tell how many rows a file has, where that is quickly known; for a progress bar."""
    if kind not in ("parquet", "datasets"):
        return None
    from lyra_nli.feedback import columns

    return columns.count_rows(file)


def _read_jsonl(file: Path) -> Iterator[Outcome]:
    with file.open("rb") as lines:
        number = 0
        while line := lines.readline(MAX_LINE_BYTES):
            number += 1
            if number == 1:
                line = line.removeprefix(BOM_UTF8)
            if len(line) == MAX_LINE_BYTES and not line.endswith(b"\n"):
                _skip_rest_of_line(lines)
                yield number, BadRowError(f"is longer than {MAX_LINE_BYTES:,} bytes")
            elif line.strip():
                yield _outcome(number, lambda text=line: _parse_json(text))


def _read_csv(file: Path) -> Iterator[Outcome]:
    # Bytes that are no UTF-8 become lone surrogates, which `fields` reports row by row.
    with (
        _long_csv_fields(),
        file.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as text,
    ):
        reader = csv.reader(text, strict=True)
        end = 0
        header: list[str] | None = None
        while True:
            start = end + 1
            try:
                cells = next(reader, None)
            except csv.Error as error:
                yield start, BadRowError(f"the CSV is broken here: {error}; nothing after was read")
                return
            if cells is None:
                return
            end = reader.line_num
            if not cells:
                continue
            if header is None:
                header = _check_header(file, cells)
            else:
                yield _outcome(start, lambda row=cells, names=header: _by_name(names, row))


def _read_columns(file: Path) -> Iterator[Outcome]:
    from lyra_nli.feedback.columns import open_columns

    names, rows = open_columns(file)
    header = _check_header(file, names)
    for number, row in rows:
        yield _outcome(number, lambda row=row: _by_name(header, _values(row)))


def _read_argilla(file: Path) -> Iterator[Outcome]:
    return _read_tool(file, from_record)


def _read_label_studio(file: Path) -> Iterator[Outcome]:
    return _read_tool(file, from_task)


def _read_tool(
    file: Path, rows_of: Callable[[object], Iterator[dict[str, Any]]]
) -> Iterator[Outcome]:
    for number, element in read_list(file):
        try:
            for row in rows_of(_values(element)):
                yield _outcome(number, lambda row=row: row)
        except BadRowError as error:
            yield number, error


def _values(element: Any) -> Any:
    if isinstance(element, BadRowError):
        raise element
    return element


_READERS: Mapping[Format, Callable[[Path], Iterator[Outcome]]] = {
    "jsonl": _read_jsonl,
    "csv": _read_csv,
    "parquet": _read_columns,
    "datasets": _read_columns,
    "argilla": _read_argilla,
    "label-studio": _read_label_studio,
}


def _outcome(line: int, values: Any) -> Outcome:
    try:
        return parse_row(line, values())
    except BadRowError as error:
        return line, error


def _parse_json(line: bytes) -> dict[str, object]:
    try:
        values = json.loads(line.decode("utf-8"), object_pairs_hook=_without_doubles)
    except UnicodeDecodeError as error:
        raise BadRowError(f"is not UTF-8 (at byte {error.start})") from error
    except json.JSONDecodeError as error:
        raise BadRowError(f"is no JSON: {error.msg} (at character {error.pos})") from error
    except RecursionError as error:
        raise BadRowError("is nested too deeply") from error
    except BadRowError:
        raise
    except ValueError as error:  # a number with thousands of digits
        raise BadRowError(f"is no JSON that can be read: {error}") from error
    if not isinstance(values, dict):
        raise BadRowError("is no JSON object with named fields")
    return values


def _without_doubles(pairs: Sequence[tuple[str, object]]) -> dict[str, object]:
    values = dict(pairs)
    if len(values) != len(pairs):
        names = [name for name, _ in pairs]
        doubled = sorted({name for name in names if names.count(name) > 1})
        raise BadRowError(*(f"{name[:80]!r}: stands here twice" for name in doubled))
    return values


def _skip_rest_of_line(lines: Any) -> None:
    while rest := lines.readline(MAX_LINE_BYTES):
        if rest.endswith(b"\n"):
            return


def _check_header(file: Path, header: Iterable[str]) -> list[str]:
    names = [name.strip() for name in header]
    ours = ["hypothesis" if name == "nli_hypothesis" else name for name in names]
    problems = [unknown_field(name) for name in ours if name not in FIELDS]
    problems += [f"{name!r}: no such column" for name in REQUIRED if name not in ours]
    problems += [f"{name!r}: two columns" for name in FIELDS if ours.count(name) > 1]
    if problems:
        raise InputError(f"the header of {file} does not fit", problems=problems)
    return ours


def _by_name(header: Sequence[str], cells: Sequence[str]) -> dict[str, object]:
    if len(cells) != len(header):
        raise BadRowError(f"has {len(cells)} cells, the header has {len(header)}")
    return dict(zip(header, cells, strict=True))


@contextmanager
def _long_csv_fields() -> Iterator[None]:
    """Let a cell hold the longest text; `csv` keeps its limit for the whole process."""
    before = csv.field_size_limit()
    csv.field_size_limit(max(before, 2 * MAX_TEXT_CHARS))
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _refuse_utf16(file: Path) -> None:
    with file.open("rb") as start:
        if start.read(2) in (BOM_UTF16_LE, BOM_UTF16_BE):
            raise InputError(f"{file} is UTF-16 text", hint="Save it as UTF-8 (CSV UTF-8).")
