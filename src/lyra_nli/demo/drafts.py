"""What the writers of topics hand over: passages, statements, and names nobody bears."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from lyra_nli.demo.facts import (
    Fact,
    Proposition,
)
from lyra_nli.demo.phrases import load_text


@dataclass(frozen=True, slots=True)
class Passage:
    """A text of one page and what it says.

    Attributes:
        kind: the kind of finding, a key of the mix.
        page: which page of the topic it stands on, from 0.
    """

    kind: str
    page: int
    text: str
    facts: tuple[Fact, ...]


@dataclass(frozen=True, slots=True)
class Statement:
    """The text of a claim and what it says."""

    text: str
    proposition: Proposition


@dataclass(frozen=True, slots=True)
class Topic:
    """Everything that one corner of the project is about."""

    slug: str
    titles: tuple[str, ...]
    passages: tuple[Passage, ...]
    statements: tuple[Statement, ...]


class Names:
    """Invented names; a name is given out once."""

    def __init__(self, rng: Random) -> None:
        self._rng = rng
        self._parts = load_text("names")
        self._taken: set[str] = set()

    def drug(self) -> str:
        """A drug, such as ``velotrazel``."""
        return self._fresh("drug_start", "drug_end")

    def programme(self) -> str:
        """A brand, such as ``Stepwell``."""
        return self._fresh("programme_start", "programme_end")

    def pick(self, what: str) -> str:
        """Any of the names of a kind, which may come again."""
        return str(self._rng.choice(self._parts[what]))

    def sample(self, what: str, count: int) -> list[str]:
        """Different names of a kind."""
        return self._rng.sample(self._parts[what], count)

    def once(self, name: str) -> bool:
        """Take a name made elsewhere; False when it is already taken."""
        if name in self._taken:
            return False
        self._taken.add(name)
        return True

    def _fresh(self, start: str, end: str) -> str:
        for _ in range(1000):
            name = self.pick(start) + self.pick(end)
            if self.once(name):
                return name
        raise ValueError(f"no name is left that starts with one of {start!r}: ask for fewer pairs")
