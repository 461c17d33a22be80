"""Prediction without a server: one pair, or a file of pairs, with any version."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from lyra_nli.errors import InputError
from lyra_nli.feedback.fields import fault
from lyra_nli.hosts import site_of
from lyra_nli.loop import load_base_for
from lyra_nli.models.adapter import read_adapter
from lyra_nli.models.encoding import misfit
from lyra_nli.models.judge import Judge
from lyra_nli.records import MAX_TEXT_CHARS, Judgement, Pair
from lyra_nli.registry.manifest import check_base, read_manifest
from lyra_nli.registry.rows import Version
from lyra_nli.settings import Settings
from lyra_nli.storage.engine import batches, database_exists
from lyra_nli.workspace import Workspace

_CHUNK = 512
"""Pairs judged between two writes: memory stays flat however long the file is."""


@dataclass(frozen=True)
class Row:
    """One line of the file, counted from 1; who judges it and its source are often unknown."""

    line: int
    pair_id: str
    pair: Pair
    adapter: str = ""
    source_url: str = ""


class Judges:
    """The versions of one base that answer, each opened at its first use.

    Args:
        base_name: None: the fast one of the settings.
        adapter: ``active``, ``base`` or a version's name. Empty: ``active``, but where a row's
            site is routed to a version of this base.

    Raises:
        StorageError: the database is there, but can't be read.
        AdapterNotFoundError, AdapterInvalidError: an unknown, damaged or foreign version.
        ModelError: the base can't be loaded.
    """

    def __init__(self, settings: Settings, base_name: str | None, adapter: str = "") -> None:
        self._settings = settings
        self._adapter = adapter
        self._opened: dict[str, Judge] = {}
        self._routes: dict[str, str] = {}
        name = base_name or settings.nli.fast_model
        version = self._version(adapter or "active", name)
        self.base = load_base_for(settings, name)
        size, overlap = settings.nli.batch_size, settings.nli.overlap()
        self._plain = Judge(self.base, batch_size=size, overlap=overlap)
        self.default = self._opened[adapter or "active"] = self._judge(version)

    def of(self, row: Row) -> Judge:
        """Who judges this row: whom it names, or the rule of this object.

        Raises:
            AdapterNotFoundError, AdapterInvalidError, StorageError: as the class.
        """
        name = row.adapter or self._adapter or self._routed(row.source_url) or "active"
        if name not in self._opened:
            self._opened[name] = self._judge(self._version(name, self.base.name))
        return self._opened[name]

    def _routed(self, url: str) -> str:
        """What the site of a URL is routed to; a version of another base is nothing here."""
        nli = self._settings.nli
        name = nli.routes.get(site_of(url), "") if nli.routes else ""
        if name not in nli.routed_versions:
            return name
        if name not in self._routes:
            registry = Workspace.open(self._settings, read_only=True).registry
            ours = registry.get(name).base_model == self.base.name
            self._routes[name] = name if ours else ""
        return self._routes[name]

    def _version(self, name: str, base_name: str) -> Version | None:
        """The verified version; None: the base, which also serves where there is no database."""
        missing = not database_exists(self._settings.storage.database_path)
        if name == "base" or (name == "active" and missing):
            return None
        registry = Workspace.open(self._settings, read_only=True).registry
        version = registry.resolve(name, base_name)
        if version:
            registry.verify(version.name)
        return version

    def _judge(self, version: Version | None) -> Judge:
        if version is None:
            return self._plain
        check_base(read_manifest(version.path), self.base.name, self.base.fingerprint)
        return self._plain.adapted(read_adapter(self.base, version.path), version.name)


def predict_one(judge: Judge, premise: str, hypothesis: str) -> dict[str, Any]:
    """Judge one pair."""
    return _answer(judge.judge([Pair(premise, hypothesis)])[0])


def predict_file(judges: Judges, pairs: Sequence[Row], out: Path | None) -> list[str]:
    """Judge the rows of a file, in order; gives the names of the versions that did.

    All of them are checked before the first is judged. `out` appears when it is complete; None
    prints to standard output.

    Raises:
        InputError: with every line whose texts the model can't read.
        AdapterNotFoundError, AdapterInvalidError, StorageError: see `Judges`.
    """
    problems = [
        f"line {row.line}: {problem}" for row in pairs for problem in misfit(judges.base, row.pair)
    ]
    if problems:
        raise InputError("nothing was judged", problems=problems)
    names = list(dict.fromkeys(judges.of(row).adapter for row in pairs))
    if out is None:
        _write(judges, pairs, sys.stdout)
        return names
    handle, temporary = tempfile.mkstemp(dir=out.parent, prefix=f".{out.name}-")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            _write(judges, pairs, stream)
        os.chmod(temporary, 0o644)
        os.replace(temporary, out)
    except BaseException:  # an interrupt too must not leave a partial file
        os.unlink(temporary)
        raise
    return names


def read_pairs(file: Path) -> list[Row]:
    """Read JSONL of ``pair_id``, ``premise``, ``hypothesis`` (or ``nli_hypothesis``).

    ``adapter`` and ``source_url`` may be there too.

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
            who = (values.get("adapter") or "", values.get("source_url") or "")
            rows.append(Row(number, pair_id, Pair(values["premise"], hypothesis), *who))
    if problems:
        raise InputError(
            f"{file}: {len(problems)} problem(s), nothing was judged", problems=problems
        )
    return rows


def judged(judges: Judges, rows: Sequence[Row]) -> Iterator[tuple[Row, Judgement]]:
    """Judge rows whose texts the model can read, in order, some hundreds at a time.

    Raises:
        AdapterNotFoundError, AdapterInvalidError, StorageError: see `Judges`.
    """
    for part in batches(rows, _CHUNK):
        by_judge: dict[Judge, list[Row]] = defaultdict(list)
        for row in part:
            by_judge[judges.of(row)].append(row)
        answers = {
            row.line: answer
            for judge, own in by_judge.items()
            for row, answer in zip(own, judge.judge([row.pair for row in own]), strict=True)
        }
        yield from ((row, answers[row.line]) for row in part)


def _write(judges: Judges, rows: Sequence[Row], stream: TextIO) -> None:
    for row, answer in judged(judges, rows):
        values = {"pair_id": row.pair_id, **_answer(answer)}
        stream.write(json.dumps(values, ensure_ascii=False) + "\n")


def _answer(judgement: Judgement) -> dict[str, Any]:
    return {
        "label": judgement.label,
        "confidence": judgement.confidence,
        "probabilities": dict(judgement.probabilities),
        "raw_label": judgement.raw_label,
        "truncated": judgement.truncated,
        "windows": judgement.windows,
        "evidence": judgement.evidence,
        "adapter": judgement.adapter,
    }


def _parse(line: str) -> tuple[dict[str, Any], list[str]]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        return {}, [f"not JSON: {error}"]
    if not isinstance(row, dict):
        return {}, ["not a JSON object"]
    wrong = [
        f"{name} is no text"
        for name in ("adapter", "source_url")
        if not isinstance(row.get(name) or "", str)
    ]
    return row, [*_id_problems(row.get("pair_id")), *wrong, *_text_problems(row)]


def _id_problems(pair_id: object) -> Iterator[str]:
    """Whole numbers are ids, too; `read_pairs` makes texts of them."""
    if pair_id is None or not str(pair_id).strip():
        yield "pair_id is missing"
    elif isinstance(pair_id, bool) or not isinstance(pair_id, str | int):
        yield "pair_id is neither text nor a whole number"
    elif isinstance(pair_id, str) and (found := fault(pair_id, MAX_TEXT_CHARS)):
        yield f"pair_id {found}"


def _text_problems(row: dict[str, Any]) -> Iterator[str]:
    hypothesis = "hypothesis" if "hypothesis" in row else "nli_hypothesis"
    for name in ("premise", hypothesis):
        text = row.get(name)
        if not isinstance(text, str) or not text.strip():
            yield f"{name} is missing or empty"
        elif len(text) > MAX_TEXT_CHARS:
            yield f"{name} is longer than {MAX_TEXT_CHARS:,} characters"
