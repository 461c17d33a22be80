"""A JSON list of any length, read element by element."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from lyra_nli.errors import InputError
from lyra_nli.feedback.fields import BadRowError

CHUNK_CHARS = 1 << 20
MAX_ELEMENT_CHARS = 32 * CHUNK_CHARS
"""Room for the longest texts with every character escaped."""

_SPACE = re.compile(r"[ \t\r\n]*")
_DECODER = json.JSONDecoder()


def read_list(file: Path) -> Iterator[tuple[int, object]]:
    """Read the elements of the list that a file holds, in memory for one (or a megabyte).

    Yields:
        Each element's number, from 1, and the element; at the place where the JSON is broken
        a `BadRowError`, and nothing after it.

    Raises:
        InputError: when the file does not begin as a list.
    """
    # Bytes that are no UTF-8 become lone surrogates, which `rows` reports field by field.
    with file.open(encoding="utf-8-sig", errors="surrogateescape") as text:
        window = _Window(text)
        if window.peek() != "[":
            raise InputError(f"{file} holds no JSON list")
        window.take("[")
        number = 0
        while window.peek() != "]":
            try:
                if number:
                    window.take(",")
                element = window.value()
            except (ValueError, RecursionError) as error:
                words = f"the JSON is broken here: {_words(error)}; nothing after was read"
                yield number + 1, BadRowError(words)
                return
            number += 1
            yield number, element


class _Window:
    """The part of a text that is in memory, and the place in it where reading stands."""

    def __init__(self, text: TextIO) -> None:
        self.text = text
        self.part = ""
        self.at = 0

    def peek(self) -> str:
        """Pass over white space; tell the next character, empty at the end of the text."""
        while True:
            self.at = _SPACE.match(self.part, self.at).end()  # type: ignore[union-attr]
            if self.at < len(self.part):
                return self.part[self.at]
            if not self._more():
                return ""

    def take(self, char: str) -> None:
        """Pass over one character.

        Raises:
            ValueError: when another stands there.
        """
        found = self.peek()
        if found != char:
            raise ValueError(f"expected {char!r}, found {found!r}" if found else "the file ends")
        self.at += 1

    def value(self) -> object:
        """Read one value.

        Raises:
            ValueError, RecursionError: when it is broken, or too long.
        """
        self.peek()
        while True:
            try:
                value, self.at = _DECODER.raw_decode(self.part, self.at)
                return value
            except json.JSONDecodeError:
                if len(self.part) - self.at > MAX_ELEMENT_CHARS:
                    raise ValueError(f"no end within {MAX_ELEMENT_CHARS:,} characters") from None
                if not self._more():
                    raise

    def _more(self) -> bool:
        """Read on, each time as much as there is, so that a long value is tried a few times."""
        rest = self.part[self.at :]
        read = self.text.read(max(CHUNK_CHARS, len(rest)))
        self.part, self.at = rest + read, 0
        return bool(read)


def _words(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    return error.msg if isinstance(error, json.JSONDecodeError) else str(error)
