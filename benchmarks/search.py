"""Whether the gate stays honest when a recipe was searched for, where the truth is known.

    python benchmarks/search.py               # half an hour
    python benchmarks/search.py --trials 20   # to see that it runs

The search is the real one (its halves, its estimator, its pruning), and so is the gate; only the
students are small: ridge regressions on random features, of which each recipe draws its own, so
that every recipe is a ticket in a lottery. They learn from the other parts' labels, as students of
folds do. Labels hang together in groups. In the null world they are random, base and students are
right by chance alone, and nothing should pass; in the other one some recipes see more of the truth
than the settings' own.

- ``search``: what the training goes by, each half answered by what the other half chose.
- ``believed``: the chosen recipe by its own answers, as if nothing had been chosen.
- ``no search``: the settings' own recipe.
"""

from __future__ import annotations

import argparse
import platform
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import gate
import numpy as np
import torch

from lyra_nli.labels import LABELS
from lyra_nli.models.judge import softmax
from lyra_nli.records import Example
from lyra_nli.settings import TrainingSettings
from lyra_nli.training.parts import PartAnswers, together
from lyra_nli.training.search import Found, Search
from lyra_nli.training.space import Space
from lyra_nli.training.trials import Trial

TRIALS = 400
PARTS = 5
FITS = 30
"""Budget of a search, each fit taking a second: a dozen recipes and more."""

FEATURES = 60
SETTINGS = TrainingSettings(strengths=(0.5, 1.0))
WAYS = ("search", "believed", "no search")


@dataclass(frozen=True)
class World:
    """Rows, and how much of the truth can be seen.

    Attributes:
        size: rows of a group, all of one label in `alike` of the cases.
        signal: of the labels in the features; 0: none.
    """

    rows: int = 300
    size: int = 3
    alike: float = 0.5
    signal: float = 0.0


WORLDS = {
    "labels at random": World(),
    "labels at random, few rows": World(rows=120),
    "labels at random, rows on their own": World(size=1),
    "something to learn": World(signal=0.12),
}


class Students:
    """Asked by a `Search`: ridge regressions on features that the recipe draws."""

    def __init__(self, world: World, seed: int) -> None:
        rng = np.random.default_rng(seed)
        groups = np.arange(world.rows) // world.size
        shared = rng.integers(0, 3, groups.max() + 1)[groups]
        own = rng.integers(0, 3, world.rows)
        alike = (rng.random(groups.max() + 1) < world.alike)[groups]
        self.labels = np.where(alike, shared, own)
        self.groups = groups
        self.parts = rng.permutation(groups.max() + 1)[groups] % PARTS
        truth = np.eye(3)[self.labels] @ rng.normal(size=(3, FEATURES))
        self.seen = world.signal * truth + rng.normal(size=(world.rows, FEATURES))
        self.base = gate.SCALE * rng.normal(size=(world.rows, 3))
        self.examples = [
            Example(str(row), gate.PAIR, LABELS[label], "agreed", str(groups[row]))
            for row, label in enumerate(self.labels)
        ]

    def __call__(self, trial: Trial, label: str) -> Callable[[int], PartAnswers]:  # noqa: ARG002
        """See `lyra_nli.training.search.Ask`."""
        recipe = trial.recipe
        rng = np.random.default_rng(zlib.crc32(repr(sorted(trial.changes.items())).encode()))
        drawn = rng.normal(size=(FEATURES, 3 * recipe.rank)) / np.sqrt(FEATURES)
        features = np.tanh(self.seen @ drawn)
        penalty = 5e-3 / recipe.learning_rate

        def answer(part: int) -> PartAnswers:
            held = self.parts == part
            known, wanted = features[~held], np.eye(3)[self.labels[~held]] - 1 / 3
            inner = known.T @ known + penalty * np.eye(known.shape[1])
            learned = features[held] @ np.linalg.solve(inner, known.T @ wanted)
            rows = np.flatnonzero(held)
            logits = {
                strength: torch.from_numpy(
                    (1 - strength / 2) * self.base[held]
                    + strength * gate.SCALE * recipe.epochs * learned
                )
                for strength in recipe.strengths
            }
            examples = tuple(self.examples[row] for row in rows)
            return PartAnswers(rows.tolist(), examples, logits, (), 1.0, 0)

        return answer

    def verdict(self, logits: torch.Tensor) -> str:
        """The gate's outcome for a candidate that answered so."""
        base, candidate = softmax(self.base), softmax(logits.numpy())
        return gate.judge(gate.Draw(base, candidate, self.labels, self.groups))


def main() -> None:
    """Print the table as Markdown."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--trials", type=int, default=TRIALS)
    parser.add_argument("--only", nargs="+", choices=WORLDS, default=list(WORLDS))
    options = parser.parse_args()
    started = time.monotonic()
    print(f"{platform.machine()}, numpy {np.__version__}, {options.trials} searches each\n")
    for line in table(options.trials, options.only):
        print(line, flush=True)
    print(f"\nIn {time.monotonic() - started:.0f} s.")


def table(trials: int, names: Sequence[str]) -> Iterator[str]:
    """How often each way passes, world by world."""
    yield f"| world | recipes tried | {' | '.join(f'{way} passed' for way in WAYS)} |"
    yield "|---" * (2 + len(WAYS)) + "|"
    for name in names:
        world, passed, tried = WORLDS[name], Counter[str](), 0
        for seed in range(trials):
            students, told = Students(world, seed), list[Trial]()
            found = Search(Space(SETTINGS, 12), students, PARTS, FITS / 60, told.append).run()
            tried += len(found.trials) - 1
            for way, logits in answers(found).items():
                passed[way] += students.verdict(logits) == "pass"
        shares = " | ".join(f"{passed[way] / trials:.1%}" for way in WAYS)
        yield f"| {name} | {tried / trials:.0f} | {shares} |"


def answers(found: Found) -> dict[str, torch.Tensor]:
    """What the gate would be shown, by way; logits [rows, 3] in the order of the rows."""
    chosen, own = (
        together([said for _, said in sorted(trial.answers.items())])
        for trial in (found.chosen, found.trials[0])
    )
    return {
        "search": found.unseen.honest(),
        "believed": chosen.logits[chosen.strength],
        "no search": own.honest(),
    }


if __name__ == "__main__":
    main()
