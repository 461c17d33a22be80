"""A small grammar for writing many wordings of one content.

A template is a sentence with three marks:

- ``[a|b|c]`` is a choice, which may nest and may hold an empty side;
- ``{slot}`` is a value of the content; a slot with several values is a choice among
  synonyms, made anew at every place; ``{slot.form}`` takes one form of a mapping;
- ``<name>`` is another template of the phrase book, chosen among those under that name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from random import Random
from typing import Any

import yaml

_CHOICE = re.compile(r"\[([^\[\]]*)\]")
_SLOT = re.compile(r"\{(\w+)(?:\.(\w+))?\}")
_PHRASE = re.compile(r"<(\w+)>")
_SENTENCE_START = re.compile(r"(^|(?<=[.!?] ))([a-z])")


@cache
def load_text(name: str) -> Any:
    """One of the text files beside this module (``text/<name>.yaml``), parsed."""
    return yaml.safe_load((files(__package__) / "text" / f"{name}.yaml").read_text("utf-8"))


class Writer:
    """Writes sentences from templates, with every choice drawn from one generator.

    Args:
        rng: the source of every choice.
        phrases: the phrase book: templates by name.
    """

    def __init__(self, rng: Random, phrases: Mapping[str, Sequence[str]]) -> None:
        self._rng = rng
        self._phrases = phrases

    def write(self, name: str, slots: Mapping[str, Any]) -> str:
        """One wording of the phrase ``name``, as whole sentences.

        Raises:
            KeyError: for a phrase or a slot that does not exist: a fault of the templates.
        """
        return tidy(self._fill(self._expand(self._rng.choice(self._phrases[name])), slots))

    def fill(self, template: str, slots: Mapping[str, Any]) -> str:
        """One wording of a template that stands in no phrase book."""
        return tidy(self._fill(self._expand(template), slots))

    def _expand(self, template: str) -> str:
        while match := _CHOICE.search(template) or _PHRASE.search(template):
            options = match[1].split("|") if match.re is _CHOICE else self._phrases[match[1]]
            template = (
                template[: match.start()] + self._rng.choice(options) + (template[match.end() :])
            )
        return template

    def _fill(self, template: str, slots: Mapping[str, Any]) -> str:
        def value(match: re.Match[str]) -> str:
            found = slots[match[1]]
            if match[2]:
                found = found[match[2]]
            if isinstance(found, (list, tuple)):
                found = self._rng.choice(found)
            # A synonym may itself be a template ("[low|poor] mood").
            return self._fill(self._expand(str(found)), slots)

        return _SLOT.sub(value, template)


def tidy(text: str) -> str:
    """Single spaces, none before punctuation, and capitals at the start of sentences."""
    text = re.sub(r"\s+([,.;:!?)])", r"\1", " ".join(text.split()))
    return _SENTENCE_START.sub(lambda match: match[1] + match[2].upper(), text)


_SMALL = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


def in_words(number: int) -> str:
    """Counts as a careful author writes them: ``four``, ``12``, ``1,480``."""
    return _SMALL[number] if 0 <= number < len(_SMALL) else f"{number:,}"
