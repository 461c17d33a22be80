"""One row of a file, checked: every fault of every field at once."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import date
from typing import cast

from lyra_nli.errors import InputError
from lyra_nli.feedback.fields import (
    FIELDS,
    GROUP,
    MAX_ANCHOR_CHARS,
    MAX_ANCHORS,
    MAX_NOTE_CHARS,
    UNKNOWN,
    BadRowError,
    ImportRow,
    fault,
    unknown_field,
)
from lyra_nli.labels import Label, parse_label
from lyra_nli.records import MAX_TEXT_CHARS, Pair, Sampling
from lyra_nli.storage.engine import utc

_SAMPLINGS = ("random", "queue", "unknown")
_NEWER_HYPOTHESIS = "nli_hypothesis"
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


def parse_row(line: int, values: Mapping[str, object]) -> ImportRow:
    """Check one row, all fields at once.

    Args:
        line: where the row begins.
        values: field -> value as JSON has it; the confidence may be a number in text and
            the anchors a JSON list in text, as in a CSV file. None and "" mean that an
            optional value is absent.

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
        anchors=checks.anchors("anchors", group=checks.note("group")),
        **{name: checks.note(name) for name in MAX_NOTE_CHARS if name != "group"},
    )
    if checks.problems:
        raise BadRowError(*checks.problems)
    return row


def _json_or_none(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


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
        elif not 0 <= value <= 1:  # nor is NaN
            self._wrong(name, f"{str(value)[:40]} is not between 0 and 1")
        else:
            return float(value)
        return None

    def time(self, name: str) -> str | None:
        """Read an optional point in time; Parquet has a type for it."""
        if isinstance(self.values.get(name), date):
            return utc(self.values[name])
        value = self._optional(name, 40)
        if not value or value == UNKNOWN:
            return "" if value else None
        if not utc(value):
            self._wrong(name, f"{value!r} is no ISO-8601 time, such as 2026-01-31T12:00:00Z")
        return utc(value)

    def anchors(self, name: str, group: str) -> tuple[str, ...]:
        """Read an optional list of texts, and add the group to it."""
        value = self.values.get(name)
        if isinstance(value, str) and value:
            value = _json_or_none(value)
        elif value in (None, ""):
            value = []
        if not isinstance(value, list) or not all(isinstance(anchor, str) for anchor in value):
            self._wrong(name, 'expected a list of texts, such as ["page:7"]')
            return ()
        if len(value) > MAX_ANCHORS:
            self._wrong(name, f"has {len(value):,} of them; at most {MAX_ANCHORS:,} are allowed")
        for words in sorted({fault(anchor, MAX_ANCHOR_CHARS) for anchor in value} - {""}):
            self._wrong(name, f"one {words}")
        return tuple(sorted({*value, f"{GROUP}{group}"} if group else set(value)))

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
