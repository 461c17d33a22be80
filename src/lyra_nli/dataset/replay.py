"""Replay: general NLI that is mixed into training so that a model does not forget it.

The shipped set (``replay.jsonl``, written by ``scripts/build_replay.py``) is this project's
own: everyday scenes, negation, quantifiers, numbers, time, reference, news, fiction, letters.
A user may name a file of their own.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from lyra_nli.errors import InputError
from lyra_nli.labels import Label, parse_label
from lyra_nli.records import MAX_TEXT_CHARS, Example, Pair, normalise

GENERAL_ROWS = 300
"""Replay pairs kept from training, on which the gate measures forgetting."""

_HINT = (
    "One JSON object a line: premise, hypothesis, label (supports, refutes or neutral); "
    "optional: id, phenomenon, group."
)


def load_replay(file: Path | None = None) -> list[Example]:
    """Read the replay set.

    Args:
        file: JSONL with ``premise``, ``hypothesis``, ``label``, and optionally ``id``,
            ``group`` and ``phenomenon``; None: the set that ships with the package.

    Returns:
        Examples with the source ``replay``. Rows of one ``group``, else of one
        ``phenomenon``, else with one premise, share their group.

    Raises:
        InputError: when the file can't be read, is empty, or has bad rows: every one of them
            is named, with its line.
    """
    name = str(file) if file else "the shipped replay set"
    rows, problems = [], []
    for number, line in enumerate(_read(file).split("\n"), start=1):
        if line.strip():
            try:
                rows.append(_row(number, json.loads(line)))
            except json.JSONDecodeError as error:
                problems.append(f"line {number}: not JSON: {error.msg}")
            except _BadRowError as error:
                problems.extend(f"line {number}: {problem}" for problem in error.problems)
    problems += _doubles(rows)
    if problems:
        raise InputError(f"{name} has bad rows", problems=problems, hint=_HINT)
    if not rows:
        raise InputError(f"{name} holds no pairs", hint=_HINT)
    return [
        Example(id=row.id, pair=row.pair, label=row.label, source="replay", group=row.group)
        for row in rows
    ]


def share_out(
    replay: Sequence[Example], rows: int, seed: int
) -> tuple[list[Example], list[Example]]:
    """Draw the rows to learn from and, of other groups, the rows for the forgetting check.

    Where one group holds more than a third of all, rows of one premise are groups instead.

    Raises:
        InputError: all rows have the same premise, and can't be told apart.
    """
    if not replay:
        return [], []
    names = [example.group for example in replay]
    if max(Counter(names).values()) > len(replay) / 3:
        names = [normalise(example.pair.premise) for example in replay]
    sizes = Counter(names)
    if len(sizes) == 1:
        raise InputError("the replay pairs have one and the same premise", hint=_HINT)
    groups = sorted(sizes)
    rng = random.Random(seed)
    rng.shuffle(groups)
    held: set[str] = set()
    kept = 0
    for group in groups[:-1]:
        if kept >= min(GENERAL_ROWS, max(1, len(replay) // 3)):
            break
        held.add(group)
        kept += sizes[group]
    pool = [example for name, example in zip(names, replay, strict=True) if name not in held]
    rng.shuffle(pool)
    general = [example for name, example in zip(names, replay, strict=True) if name in held]
    return pool[:rows], general


@dataclass(frozen=True, slots=True)
class _Row:
    line: int
    id: str
    pair: Pair
    label: Label
    group: str


class _BadRowError(ValueError):
    """A row that can't be used.

    Args:
        problems: everything that is wrong with it.
    """

    def __init__(self, *problems: str) -> None:
        super().__init__(*problems)
        self.problems = problems


def _read(file: Path | None) -> str:
    if file is None:
        return files(__package__).joinpath("replay.jsonl").read_text("utf-8")
    try:
        # utf-8-sig: editors on Windows put a byte-order mark in front.
        return file.read_text("utf-8-sig")
    except OSError as error:
        raise InputError(f"{file} can't be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{file} is not UTF-8 text", hint="Save it as UTF-8.") from error


def _row(number: int, values: Any) -> _Row:
    if not isinstance(values, dict):
        raise _BadRowError(f"expected an object, got {type(values).__name__}")
    problems = [*_text_problems(values), *_name_problems(values)]
    label: Label | None = None
    try:
        label = parse_label(values.get("label"))
    except InputError as error:
        problems.append(error.message)
    if problems or label is None:
        raise _BadRowError(*problems)
    pair = Pair(values["premise"], values["hypothesis"])
    return _Row(number, _id(number, values), pair, label, _group(values, pair))


def _text_problems(values: dict[str, Any]) -> Iterator[str]:
    for name in ("premise", "hypothesis"):
        text = values.get(name)
        if not isinstance(text, str):
            yield f"{name}: expected text, got {text!r}"
        elif not text.strip():
            yield f"{name}: empty"
        elif len(text) > MAX_TEXT_CHARS:
            yield f"{name}: longer than {MAX_TEXT_CHARS:,} characters"


def _name_problems(values: dict[str, Any]) -> Iterator[str]:
    for name in ("id", "group", "phenomenon"):
        given = values.get(name)
        if given is not None and not isinstance(given, (str, int)):
            yield f"{name}: expected text, got {given!r}"


def _id(number: int, values: dict[str, Any]) -> str:
    given = number if values.get("id") is None else values["id"]
    return f"replay:{str(given).removeprefix('replay:')}"


def _group(values: dict[str, Any], pair: Pair) -> str:
    """Near-variants stay together: those of one frame, at least those with one premise."""
    for name in ("group", "phenomenon"):
        if values.get(name):
            return f"replay:{str(values[name]).replace('/', ':')}"
    return f"replay:{hashlib.sha256(normalise(pair.premise).encode()).hexdigest()[:16]}"


def _doubles(rows: list[_Row]) -> list[str]:
    counts = Counter(row.id for row in rows)
    return [
        f"line {row.line}: the id {row.id.removeprefix('replay:')!r} comes {counts[row.id]} times"
        for row in rows
        if counts[row.id] > 1
    ]
