"""Prediction without a server: one pair, or a file of pairs, with any version."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from lyra_nli.errors import InputError
from lyra_nli.loop import load_base_for
from lyra_nli.models.adapter import adapted_model
from lyra_nli.models.encoding import misfit
from lyra_nli.models.judge import Judge
from lyra_nli.records import MAX_TEXT_CHARS, Judgement, Pair
from lyra_nli.registry.manifest import check_base
from lyra_nli.settings import Settings
from lyra_nli.storage.engine import database_exists
from lyra_nli.workspace import Workspace

_CHUNK = 512
"""Pairs judged between two writes: memory stays flat however long the file is."""


@dataclass(frozen=True)
class Row:
    """One line of the file, counted from 1."""

    line: int
    pair_id: str
    pair: Pair


def open_judge(settings: Settings, base_name: str | None, adapter: str) -> Judge:
    """The model that answers: a base, with the version that `adapter` stands for.

    Where there is no database yet, ``active`` is the base itself.

    Raises:
        StorageError: the database is there, but can't be read.
        AdapterNotFoundError, AdapterInvalidError: an unknown, damaged or foreign version.
        ModelError: the base can't be loaded.
    """
    name = base_name or settings.nli.fast_model
    missing = not database_exists(settings.storage.database_path)
    if adapter == "base" or (adapter == "active" and missing):
        return Judge(load_base_for(settings, name), batch_size=settings.nli.batch_size)
    registry = Workspace.open(settings, read_only=True).registry
    version = registry.resolve(adapter, name)
    manifest = registry.verify(version.name) if version else None
    base = load_base_for(settings, name)
    if version is None or manifest is None:
        return Judge(base, batch_size=settings.nli.batch_size)
    check_base(manifest, base.name, base.fingerprint)
    model = adapted_model(base, version.path)
    return Judge(base, model, version.name, settings.nli.batch_size)


def predict_one(judge: Judge, premise: str, hypothesis: str) -> dict[str, Any]:
    """Judge one pair."""
    return _answer(judge.judge([Pair(premise, hypothesis)])[0])


def predict_file(judge: Judge, pairs: Sequence[Row], out: Path | None) -> None:
    """Judge the rows of a file, in order.

    All of them are checked before the first is judged. `out` appears when it is complete; None
    prints to standard output.

    Raises:
        InputError: with every line whose texts the model can't read.
    """
    problems = [
        f"line {row.line}: {problem}" for row in pairs for problem in misfit(judge.base, row.pair)
    ]
    if problems:
        raise InputError("nothing was judged", problems=problems)
    if out is None:
        _write(judge, pairs, sys.stdout)
        return
    handle, temporary = tempfile.mkstemp(dir=out.parent, prefix=f".{out.name}-")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            _write(judge, pairs, stream)
        os.chmod(temporary, 0o644)
        os.replace(temporary, out)
    except BaseException:  # an interrupt too must not leave a partial file
        os.unlink(temporary)
        raise


def read_pairs(file: Path) -> list[Row]:
    """Read JSONL of ``pair_id``, ``premise``, ``hypothesis`` (or ``nli_hypothesis``).

    Raises:
        InputError: with every bad line.
    """
    rows: list[Row] = []
    problems: list[str] = []
    first_line: dict[str, int] = {}
    try:
        lines = file.read_text("utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file} can't be read: {error}") from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        values, found = _parse(line)
        pair_id = str(values.get("pair_id", ""))
        if pair_id in first_line and pair_id:
            found.append(f"pair_id {pair_id!r} stands on line {first_line[pair_id]} already")
        first_line.setdefault(pair_id, number)
        problems += [f"line {number}: {problem}" for problem in found]
        if not found:
            hypothesis = values.get("hypothesis") or values["nli_hypothesis"]
            rows.append(Row(number, pair_id, Pair(values["premise"], hypothesis)))
    if problems:
        raise InputError(
            f"{file}: {len(problems)} problem(s), nothing was judged", problems=problems
        )
    return rows


def _write(judge: Judge, rows: Sequence[Row], stream: TextIO) -> None:
    for start in range(0, len(rows), _CHUNK):
        chunk = rows[start : start + _CHUNK]
        for row, answer in zip(chunk, judge.judge([row.pair for row in chunk]), strict=True):
            values = {"pair_id": row.pair_id, **_answer(answer)}
            stream.write(json.dumps(values, ensure_ascii=False) + "\n")


def _answer(judgement: Judgement) -> dict[str, Any]:
    return {
        "label": judgement.label,
        "confidence": judgement.confidence,
        "probabilities": dict(judgement.probabilities),
        "raw_label": judgement.raw_label,
        "truncated": judgement.truncated,
        "adapter": judgement.adapter,
    }


def _parse(line: str) -> tuple[dict[str, Any], list[str]]:
    try:
        row = json.loads(line)
    except ValueError as error:
        return {}, [f"not JSON: {error}"]
    if not isinstance(row, dict):
        return {}, ["not a JSON object"]
    missing = [] if str(row.get("pair_id") or "").strip() else ["pair_id is missing"]
    return row, [*missing, *_text_problems(row)]


def _text_problems(row: dict[str, Any]) -> Iterator[str]:
    hypothesis = "hypothesis" if "hypothesis" in row else "nli_hypothesis"
    for name in ("premise", hypothesis):
        text = row.get(name)
        if not isinstance(text, str) or not text.strip():
            yield f"{name} is missing or empty"
        elif len(text) > MAX_TEXT_CHARS:
            yield f"{name} is longer than {MAX_TEXT_CHARS:,} characters"
