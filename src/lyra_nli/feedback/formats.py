"""The kinds of files that reviews come from and go to, and how to tell them apart."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal, get_args

from lyra_nli.errors import InputError
from lyra_nli.feedback.json_list import read_list

Format = Literal["jsonl", "csv", "parquet", "datasets", "argilla", "label-studio"]
"""``datasets`` is a folder by Hugging Face's ``save_to_disk``; the last two are JSON exports."""

FORMATS: tuple[Format, ...] = get_args(Format)

ROW_NAMES: Mapping[Format, str] = {
    "jsonl": "line",
    "csv": "line",
    "parquet": "row",
    "datasets": "row",
    "argilla": "record",
    "label-studio": "task",
}
"""What a row is called when one is reported as bad; all are counted from 1."""

_SUFFIXES: Mapping[str, Format] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".parquet": "parquet",
}


def detect_format(path: Path) -> Format:
    """Tell what a file or folder holds, by its name, or its content where that says nothing.

    Raises:
        InputError: when it is of no kind that can be imported, or can't be read.
    """
    known = _SUFFIXES.get(path.suffix.lower())
    try:
        if path.is_dir() and (known is None or is_datasets_folder(path)):
            return _datasets(path)
        if known or path.suffix.lower() == ".json":
            return known or _tool(path)
        with path.open("rb") as file:
            if file.read(4) == b"PAR1":
                return "parquet"
    except OSError as error:
        raise InputError(f"{path} can't be read: {error.strerror}") from error
    raise InputError(f"{path} is of no known kind: {', '.join(_SUFFIXES)}, .json can be imported")


def format_for(path: Path) -> Format:
    """Tell the format that a new file's name stands for.

    Raises:
        InputError: when the name stands for none, or for two.
    """
    found = _SUFFIXES.get(path.suffix.lower())
    if found is None:
        raise InputError(
            f"the name {path.name!r} does not tell the format",
            hint=f"End it with {', '.join(_SUFFIXES)}, or say one: {', '.join(FORMATS)}.",
        )
    return found


def is_datasets_folder(path: Path) -> bool:
    """Whether ``Dataset.save_to_disk`` or ``DatasetDict.save_to_disk`` wrote this folder."""
    return (path / "state.json").is_file() or (path / "dataset_dict.json").is_file()


def _datasets(path: Path) -> Format:
    if not is_datasets_folder(path):
        raise InputError(f"{path} is a folder, but none that Hugging Face's save_to_disk wrote")
    return "datasets"


def _tool(path: Path) -> Format:
    """Tell Argilla's records from Label Studio's tasks, by the first one."""
    _, first = next(read_list(path), (0, {"data": {}}))
    if isinstance(first, dict) and "fields" in first:
        return "argilla"
    if isinstance(first, dict) and "data" in first:
        return "label-studio"
    raise InputError(
        f"{path} is neither an Argilla nor a Label Studio export: its first element has no "
        "`fields` and no `data`",
        hint="Reviewed pairs of your own go into JSON lines: one object a line, named .jsonl.",
    )
