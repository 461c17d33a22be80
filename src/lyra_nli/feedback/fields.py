"""The fields of a reviewed pair, and what each may hold."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import cast

from lyra_nli.errors import InputError
from lyra_nli.labels import Label, parse_label
from lyra_nli.records import MAX_TEXT_CHARS, Pair, Sampling
from lyra_nli.storage.engine import utc

REQUIRED = ("premise", "hypothesis", "predicted_label", "predicted_confidence", "correct_label")
OPTIONAL = ("id", "group", "reviewed_at", "reviewer", "reason", "source_url", "sampling")
FIELDS = (*REQUIRED, *OPTIONAL)

MAX_NOTE_CHARS: Mapping[str, int] = {
    "id": 64,
    "group": 500,
    "reviewer": 200,
    "reason": 10_000,
    "source_url": 4_000,
}

_SAMPLINGS = ("random", "queue", "unknown")
_NEWER_HYPOTHESIS = "nli_hypothesis"
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


@dataclass(frozen=True, slots=True)
class ImportRow:
    """One valid row of a file.

    Attributes:
        line: where it begins, counted from 1.
        predicted_confidence: None when the file says that nobody kept it.
        reviewed_at: ISO-8601 in UTC; empty when the file has none.
    """

    line: int
    pair: Pair
    predicted_label: Label
    predicted_confidence: float | None
    correct_label: Label
    id: str = ""
    group: str = ""
    reviewed_at: str = ""
    reviewer: str = ""
    reason: str = ""
    source_url: str = ""
    sampling: Sampling = "unknown"


class BadRowError(ValueError):
    """A row can't be read; `problems` has one line for each fault."""

    def __init__(self, *problems: str) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


def parse_row(line: int, values: Mapping[str, object]) -> ImportRow:
    """Check one row, all fields at once.

    Args:
        line: where the row begins.
        values: field -> value as JSON has it; the confidence may be a number in text, as in
            a CSV file. None and "" mean that an optional value is absent.

    Raises:
        BadRowError: naming every fault with its field.
    """
    values = _with_our_hypothesis(values)
    checks = _Checks(values)
    row = ImportRow(
        line=line,
        pair=Pair(checks.text("premise"), checks.text("hypothesis")),
        predicted_label=checks.label("predicted_label"),
        predicted_confidence=checks.confidence("predicted_confidence"),
        correct_label=checks.label("correct_label"),
        reviewed_at=checks.time("reviewed_at"),
        sampling=checks.sampling("sampling"),
        **{name: checks.note(name) for name in MAX_NOTE_CHARS},
    )
    if checks.problems:
        raise BadRowError(*checks.problems)
    return row


def unknown_field(name: str) -> str:
    """Say that a field is unknown, and which one may be meant."""
    meant = get_close_matches(name, FIELDS, n=1, cutoff=0.5)
    return f"{name[:80]!r}: unknown field" + (f"; did you mean {meant[0]}?" if meant else "")


def fault(text: str, limit: int) -> str:
    """Tell why a text can't be stored; empty when it can."""
    if len(text) > limit:
        return f"has {len(text):,} characters; at most {limit:,} are allowed"
    if "\x00" in text:
        return f"holds a NUL character (at {text.index(chr(0))})"
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        return f"is not valid Unicode (at character {error.start})"
    return ""


def check_notes(**notes: str) -> None:
    """Check the free texts that come with a single review.

    Raises:
        InputError: naming every fault with its field.
    """
    faults = {name: fault(text, MAX_NOTE_CHARS[name]) for name, text in notes.items()}
    problems = [f"{name}: {words}" for name, words in faults.items() if words]
    if problems:
        raise InputError("the review can't be stored", problems=problems)


def _with_our_hypothesis(values: Mapping[str, object]) -> Mapping[str, object]:
    if _NEWER_HYPOTHESIS not in values or "hypothesis" in values:
        return values
    return {
        "hypothesis" if name == _NEWER_HYPOTHESIS else name: value for name, value in values.items()
    }


class _Checks:
    """Reads fields one by one and collects what is wrong with them."""

    def __init__(self, values: Mapping[str, object]) -> None:
        self.values = values
        self.problems = [unknown_field(name) for name in values if name not in FIELDS]

    def text(self, name: str) -> str:
        """Read a premise or a hypothesis."""
        value = self._string(name, MAX_TEXT_CHARS)
        if value is not None and not value.strip():
            self._wrong(name, "is empty")
        return value or ""

    def label(self, name: str) -> Label:
        """Read one of the three labels."""
        if self._missing(name):
            return "neutral"
        try:
            return parse_label(self.values[name])
        except InputError as error:
            self._wrong(name, error.message[:200])
            return "neutral"

    def confidence(self, name: str) -> float | None:
        """Read a number from 0 to 1; null or an empty cell is unknown."""
        if self._missing(name):
            return None
        value = self.values[name]
        if value is None or value == "":
            return None
        if isinstance(value, str) and _NUMBER.fullmatch(value.strip()):
            value = float(value)
        if isinstance(value, bool) or not isinstance(value, int | float):
            self._wrong(name, f"{str(value)[:40]!r} is no number")
        elif math.isnan(value) or not 0 <= value <= 1:
            self._wrong(name, f"{str(value)[:40]} is not between 0 and 1")
        else:
            return float(value)
        return None

    def time(self, name: str) -> str:
        """Read an optional point in time."""
        value = self._optional(name, 40)
        if value and not utc(value):
            self._wrong(name, f"{value!r} is no ISO-8601 time, such as 2026-01-31T12:00:00Z")
        return utc(value) if value else ""

    def sampling(self, name: str) -> Sampling:
        """Read why the pair was reviewed."""
        value = self._optional(name, 40) or "unknown"
        if value not in _SAMPLINGS:
            self._wrong(name, f"{value!r}: expected one of {', '.join(_SAMPLINGS)}")
        return cast("Sampling", value)

    def note(self, name: str) -> str:
        """Read an optional text."""
        return self._optional(name, MAX_NOTE_CHARS[name])

    def _optional(self, name: str, limit: int) -> str:
        if self.values.get(name) is None:
            return ""
        return self._string(name, limit) or ""

    def _string(self, name: str, limit: int) -> str | None:
        if self._missing(name):
            return None
        value = self.values[name]
        if not isinstance(value, str):
            self._wrong(name, f"expected text, found {type(value).__name__}")
            return None
        words = fault(value, limit)
        if words:
            self._wrong(name, words)
            return None
        return value

    def _missing(self, name: str) -> bool:
        if name in self.values:
            return False
        self._wrong(name, "is missing")
        return True

    def _wrong(self, name: str, words: str) -> None:
        self.problems.append(f"{name}: {words}")
