"""Reviewed pairs in columns: Parquet files, and folders by Hugging Face's ``datasets``.

Both libraries come with ``pip install 'lyra-nli[formats]'`` and are loaded when needed.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lyra_nli.errors import InputError
from lyra_nli.feedback.fields import EXPORTED, BadRowError

if TYPE_CHECKING:
    import datasets
    import pyarrow as pa

BATCH_ROWS = 200
"""Rows in memory while reading."""

GROUP_ROWS = 10_000
GROUP_CHARS = 16_000_000
"""A Parquet row group, which is in memory while it is written, ends at either."""

Row = tuple[int, tuple[object, ...] | BadRowError]
"""A row's number, from 1, and its values, or why it can't be read."""


def open_columns(path: Path) -> tuple[list[str], Iterator[Row]]:
    """Open a Parquet file or a `datasets` folder.

    Returns:
        The names of the columns, and the rows. Class labels are given by name; a dictionary
        of splits is read split by split.

    Raises:
        InputError: when it is damaged, or the library is not installed.
    """
    with _library_errors(path):
        if not path.is_dir():
            import pyarrow.parquet as pq

            # Without buffering a whole row group: a file may have one only.
            file = pq.ParquetFile(path, pre_buffer=False, buffer_size=1 << 20)
            return file.schema_arrow.names, _rows(path, file.iter_batches(BATCH_ROWS))
        parts = _load(path)
        if any(part.column_names != parts[0].column_names for part in parts):
            raise InputError(f"the splits of {path} have different columns")
        tables = (part.with_format("arrow").iter(BATCH_ROWS) for part in parts)
        return parts[0].column_names, _rows(path, chain.from_iterable(tables), _classes(parts[0]))


def count_rows(path: Path) -> int:
    """Tell how many rows there are.

    Raises:
        InputError: as `open_columns`.
    """
    with _library_errors(path):
        if path.is_dir():
            return sum(map(len, _load(path)))
        import pyarrow.parquet as pq

        return int(pq.read_metadata(path).num_rows)


def write_parquet(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows that have the `EXPORTED` fields into a new file.

    Raises:
        InputError: when the library is not installed.
    """
    with _library_errors(path):
        import pyarrow as pa
        import pyarrow.parquet as pq

        with pq.ParquetWriter(path, _schema(), compression="zstd") as writer:
            for group in _groups(rows):
                writer.write_table(pa.Table.from_pylist(group, schema=_schema()))


def write_datasets(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows that have the `EXPORTED` fields into a new folder.

    Raises:
        InputError: when a library is not installed.
    """
    with _library_errors(path), tempfile.TemporaryDirectory(dir=path.parent) as scratch:
        import pyarrow as pa
        from datasets import Dataset

        stream = Path(scratch) / "rows.arrow"
        with pa.OSFile(str(stream), "wb") as sink, pa.ipc.new_stream(sink, _schema()) as writer:
            for group in _groups(rows):
                writer.write_batch(pa.RecordBatch.from_pylist(group, schema=_schema()))
        with _no_bars():
            made = Dataset.from_file(str(stream))
            # Without rows the library writes no shard, and can't load what it wrote.
            made.save_to_disk(path, num_shards=None if len(made) else 1)


def _groups(rows: Iterable[Mapping[str, Any]]) -> Iterator[list[Mapping[str, Any]]]:
    group: list[Mapping[str, Any]] = []
    chars = 0
    for row in rows:
        group.append(row)
        chars += len(row["premise"]) + len(row["hypothesis"])
        if len(group) == GROUP_ROWS or chars >= GROUP_CHARS:
            yield group
            group, chars = [], 0
    if group:
        yield group


def _schema() -> pa.Schema:
    import pyarrow as pa

    types = {"predicted_confidence": pa.float64(), "anchors": pa.list_(pa.string())}
    return pa.schema([(name, types.get(name, pa.string())) for name in EXPORTED])


def _rows(
    path: Path,
    tables: Iterable[pa.RecordBatch | pa.Table],
    classes: Mapping[int, list[str]] | None = None,
) -> Iterator[Row]:
    number = 0
    with _library_errors(path):
        for table in tables:
            for values in _tuples(table):
                number += 1
                yield number, _named(values, classes or {})


def _tuples(table: pa.RecordBatch | pa.Table) -> Iterator[tuple[object, ...] | BadRowError]:
    try:
        yield from list(zip(*(column.to_pylist() for column in table.columns), strict=True))
    except ValueError as error:  # bytes in a text column that are no UTF-8
        if table.num_rows == 1:
            yield BadRowError(f"can't be read: {error}")
            return
        for index in range(table.num_rows):
            yield from _tuples(table.slice(index, 1))


def _named(
    values: tuple[object, ...] | BadRowError, classes: Mapping[int, list[str]]
) -> tuple[object, ...] | BadRowError:
    if not classes or isinstance(values, BadRowError):
        return values
    named = list(values)
    for index, names in classes.items():
        value = values[index]
        if isinstance(value, int) and 0 <= value < len(names):
            named[index] = names[value]
    return tuple(named)


def _load(path: Path) -> list[datasets.Dataset]:
    from datasets import Dataset, load_from_disk

    try:
        found = load_from_disk(str(path), keep_in_memory=False)
    except IndexError as error:  # see `write_datasets`
        raise InputError(f"{path} holds no rows") from error
    except (ValueError, KeyError) as error:
        raise InputError(f"{path} can't be read: {error}") from error
    parts = [found] if isinstance(found, Dataset) else list(found.values())
    if not parts:
        raise InputError(f"{path} holds no split")
    return parts


def _classes(part: datasets.Dataset) -> dict[int, list[str]]:
    """Find the columns of class numbers: position -> names."""
    from datasets import ClassLabel

    return {
        index: part.features[name].names
        for index, name in enumerate(part.column_names)
        if isinstance(part.features[name], ClassLabel)
    }


@contextmanager
def _library_errors(path: Path) -> Iterator[None]:
    """Turn what the libraries raise into an error that a user can act on."""
    try:
        import pyarrow as pa
    except ModuleNotFoundError as error:
        raise _not_installed(error) from error
    try:
        yield
    except ModuleNotFoundError as error:
        raise _not_installed(error) from error
    except pa.ArrowException as error:
        raise InputError(f"{path} can't be read: {error}") from error


def _not_installed(error: ModuleNotFoundError) -> InputError:
    return InputError(
        f"Parquet files and datasets folders need {error.name}, which is not installed",
        hint="pip install 'lyra-nli[formats]'",
    )


@contextmanager
def _no_bars() -> Iterator[None]:
    """Keep `datasets` from drawing a progress bar of its own."""
    import datasets

    were_off = datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if not were_off:
            datasets.enable_progress_bars()
