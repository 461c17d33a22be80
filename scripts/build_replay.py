"""Write the general NLI pairs that keep a model from forgetting (dataset/replay.jsonl).

    python scripts/build_replay.py

The sentences are this project's own. A frame (replay/*.yaml) is one premise with hypotheses
that it supports, refutes and leaves open, each in several wordings; its slots are filled from
a lexicon or from lists of the frame's own. The labels hold for every filling. Every draw from
a frame gives one pair of each label, so the labels are balanced. The same frames give the
same bytes.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from random import Random
from typing import Any

import yaml

from lyra_nli.demo.phrases import Writer
from lyra_nli.labels import LABELS

FRAMES = ("scenes", "logic", "quantity", "language", "prose")
SOURCE = Path(__file__).with_name("replay")
TARGET = Path(__file__).parents[1] / "src" / "lyra_nli" / "dataset" / "replay.jsonl"

Frame = Mapping[str, Any]


def main() -> None:
    """Write the file, or say where."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=TARGET)
    out: Path = parser.parse_args().out
    rows = list(build())
    out.write_text("".join(rows), "utf-8")
    print(f"{len(rows)} pairs written to {out}")


def build() -> Iterator[str]:
    """The lines of the file."""
    lexicon = _load("lexicon")
    number = 0
    for name in FRAMES:
        for frame in _load(name):
            for premise, hypotheses in draws(frame, lexicon):
                for label in LABELS:
                    number += 1
                    row = {
                        "id": f"replay:{number}",
                        "premise": premise,
                        "hypothesis": hypotheses[label],
                        "label": label,
                        "phenomenon": frame["id"],
                    }
                    yield json.dumps(row, ensure_ascii=False) + "\n"


def draws(frame: Frame, lexicon: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, str]]]:
    """As many different premises as the frame asks for, each with a hypothesis of each label.

    Raises:
        ValueError: when the frame has too few fillings for that.
    """
    rng = Random(f"replay:{frame['id']}")
    writer = Writer(rng, frame)
    used: Mapping[str, str] = frame.get("use", {})
    decks = {source: Deck(rng, lexicon[source]) for source in sorted(set(used.values()))}
    own = {name: Deck(rng, choices) for name, choices in frame.get("vary", {}).items()}
    seen: set[str] = set()
    for _ in range(100 * frame["draws"]):
        if len(seen) == frame["draws"]:
            return
        slots = {name: decks[source].draw() for name, source in used.items()}
        slots |= {name: deck.draw() for name, deck in own.items()}
        if any(slots[one] is slots[two] for one, two in combinations(used, 2)):
            continue
        premise = writer.write("premise", slots)
        if premise not in seen:
            seen.add(premise)
            yield premise, {label: writer.write(label, slots) for label in LABELS}
    if len(seen) < frame["draws"]:
        raise ValueError(f"the frame {frame['id']} has fewer than {frame['draws']} premises")


class Deck:
    """Hands out every card once before any comes again."""

    def __init__(self, rng: Random, cards: Sequence[Any]) -> None:
        self._rng, self._cards = rng, cards
        self._left: list[Any] = []

    def draw(self) -> Any:
        """The next card."""
        if not self._left:
            self._left = self._rng.sample(self._cards, len(self._cards))
        return self._left.pop()


def _load(name: str) -> Any:
    return yaml.safe_load((SOURCE / f"{name}.yaml").read_text("utf-8"))


if __name__ == "__main__":
    main()
