"""What topics about laws and about programmes have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from random import Random
from typing import Any

from lyra_nli.demo.drafts import Names, Statement
from lyra_nli.demo.facts import (
    Fact,
)
from lyra_nli.demo.phrases import Writer, in_words, load_text

Found = tuple[str, tuple[Fact, ...]]


class Policy:
    """What laws and programmes have in common."""

    family = ""
    findings: Mapping[str, Callable[[], Found]]

    def __init__(self, rng: Random, names: Names, mix: Mapping[str, Any]) -> None:
        self.rng, self.mix = rng, mix
        self.kinds: Mapping[str, float] = mix[self.family]
        self.book = load_text("policy")
        self.writer = Writer(rng, self.book)
        for _ in range(1000):
            self.subject: Mapping[str, Any] = rng.choice(self.book[f"{self.family}s"])
            self.place = names.pick("place")
            self.slug = f"{self.place}-{self.subject['name']}".lower().replace(" ", "-")
            if names.once(self.slug):
                return
        raise ValueError(f"no {self.family} is left in any place: ask for fewer pairs")

    def slots(self) -> dict[str, Any]:
        """What every sentence may name."""
        return {
            "place": self.place,
            "k": in_words(self.rng.randint(2, 6)),
            "x": self.rng.randint(21, 84),
            "year": self.rng.randint(2028, 2032),
        }

    def write(self, phrase: str, **slots: object) -> str:
        """One wording of a phrase."""
        return self.writer.write(phrase, self.slots() | slots)

    def titles(self) -> tuple[str, ...]:
        """A title for each page."""
        return tuple(self.write(f"title_{self.family}") for _ in range(3))

    def framed(self, text: str) -> str:
        """With or without sentences around the finding."""
        if self.rng.random() < self.mix["lead_share"]:
            text = f"{self.write(f'{self.family}_lead')} {text}"
        if self.rng.random() < self.mix["tail_share"]:
            text = f"{text} {self.write(f'{self.family}_tail')}"
        return text

    def statements(self) -> tuple[Statement, ...]:
        """The claims of the topic."""
        raise NotImplementedError
