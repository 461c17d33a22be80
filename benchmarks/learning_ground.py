"""What the learning benchmarks share: a domain as the base sees it, and reviews of half of it."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from domains import read_domain, read_rows
from numpy.typing import NDArray

from lyra_nli.dataset.replay import load_replay
from lyra_nli.evaluation.metrics import brier, ece
from lyra_nli.labels import INDEX, LABELS, Label
from lyra_nli.models.base import Base, load_base
from lyra_nli.models.judge import Judge, softmax
from lyra_nli.records import Example, Review, Source
from lyra_nli.training.trainer import Trainer

HOLDOUT = 1000
"""Pairs that judge, at most."""

GENERAL = 2000
"""Pairs of general NLI that judge, the last of the file; at 0.9, what they say has a standard error
of 0.7 points."""


@dataclass(frozen=True)
class Ground:
    """What all jobs share; `said` and `general_said` are the base's probabilities [n, 3]."""

    base: Base
    examples: list[Example]
    said: NDArray[np.float64]
    general: list[Example]
    general_said: NDArray[np.float64]


@dataclass(frozen=True)
class Task:
    """What a job learns from, and the rows of the ground that judge it.

    Attributes:
        unreviewed: rows of the groups that were reviewed, with the base's own answers.
        turned: ids of rows whose label was made wrong.
    """

    reviewed: list[Example]
    unreviewed: list[Example]
    holdout: list[int]
    turned: frozenset[str]

    @property
    def slips(self) -> frozenset[str]:
        """The turned rows that are corrections still; the others agree with the base's error."""
        return self.turned & {e.id for e in self.reviewed if e.source == "correction"}


@cache
def prepare(data: Path | None, group: str, general: Path | None) -> Ground:
    """Read the domain and ask the base, once a process."""
    return ask_base(read_domain(data, group), general)


def ask_base(examples: list[Example], general: Path | None) -> Ground:
    """Ask the base about a domain and about general NLI."""
    base = load_base("starter")
    rows = read_rows(general)[-GENERAL:] if general else replay_rows()[1]
    said, general_said = (
        softmax(Judge(base).logits([example.pair for example in each])) for each in (examples, rows)
    )
    return Ground(base, examples, said, rows, general_said)


def replay_rows(seed: int = 0) -> tuple[list[Example], list[Example]]:
    """(to learn from, to judge by) of different groups of the shipped set.

    Args:
        seed: of the order in which they are learned from; who judges is always the same.
    """
    replay = load_replay()
    groups = sorted({example.group for example in replay})
    random.Random(0).shuffle(groups)
    held = set(groups[: len(groups) // 5])
    learned = [example for example in replay if example.group not in held]
    random.Random(seed).shuffle(learned)
    return learned, [example for example in replay if example.group in held][:GENERAL]


def make_task(ground: Ground, seed: int, reviews: int, turned: float = 0.0) -> Task:
    """Reviews of one half of the groups, a hold-out of the other.

    Args:
        turned: share of the corrections whose label is made wrong.
    """
    rng, pool, holdout = halves(ground.examples, seed)
    reviewed = [reviewed_row(ground, row) for row in pool[:reviews]]
    corrections = [example for example in reviewed if example.source == "correction"]
    wrong = rng.sample(corrections, int(turned * len(corrections)))
    labels = {e.id: rng.choice([label for label in LABELS if label != e.label]) for e in wrong}
    by_id = {f"row:{row}": row for row in pool}
    reviewed = [
        reviewed_row(ground, by_id[e.id], labels[e.id]) if e.id in labels else e for e in reviewed
    ]
    unreviewed = [unreviewed_row(ground, row) for row in pool[reviews:]]
    return Task(reviewed, unreviewed, holdout, frozenset(labels))


def halves(examples: Sequence[Example], seed: int) -> tuple[random.Random, list[int], list[int]]:
    """Positions to draw reviews from and, of other groups, those that judge; and what drew them."""
    rng = random.Random(seed)
    names = sorted({example.group for example in examples})
    rng.shuffle(names)
    place = {name: index for index, name in enumerate(names)}
    order = sorted(range(len(examples)), key=lambda row: place[examples[row].group])
    last = place[examples[order[len(order) // 2]].group]
    pool = [row for row in order if place[examples[row].group] <= last]
    held = [row for row in order if place[examples[row].group] > last]
    rng.shuffle(pool)
    return rng, pool, sorted(rng.sample(held, min(HOLDOUT, len(held))))


def reviewed_row(ground: Ground, row: int, label: Label | None = None) -> Example:
    """A row as people review it: the base's answer tells whether they correct it."""
    example, name = ground.examples[row], f"row:{row}"
    label = label or example.label
    said = LABELS[ground.said[row].argmax()]
    review = Review(name, example.pair, label, said, None, "")
    source: Source = "correction" if review.corrected else "agreed"
    return replace(example, id=name, label=label, source=source, review=review)


def unreviewed_row(ground: Ground, row: int) -> Example:
    """A row of which only the base's answer is known: it pulls there, and teaches nothing."""
    said = LABELS[ground.said[row].argmax()]
    return replace(
        ground.examples[row], id=f"row:{row}", label=said, source="replay", weight=0.0, review=None
    )


def say(trainer: Trainer, examples: Sequence[Example]) -> NDArray[np.float64]:
    """The student's probabilities [n, 3], columns in the order of ``LABELS``."""
    rows = trainer.lessons(examples)
    logits = trainer.student.logits(rows, range(len(rows)))
    return softmax(logits.numpy()[:, list(trainer.base.labels.order)])


def figures(
    ground: Ground,
    task: Task,
    held: NDArray[np.float64],
    general: NDArray[np.float64] | None = None,
) -> dict[str, Any]:
    """What the hold-out and general NLI say of these answers, and of the base's."""
    labels = labels_of([ground.examples[row] for row in task.holdout])
    before = ground.said[task.holdout]
    was, right = before.argmax(axis=1) == labels, held.argmax(axis=1) == labels
    found = {
        "accuracy": float(right.mean()),
        "base_accuracy": float(was.mean()),
        "fixed": float(right[~was].mean()),
        "broken": float((~right[was]).mean()),
        "brier": brier(held, labels),
        "base_brier": brier(before, labels),
        "ece": ece(held, labels),
        "base_ece": ece(before, labels),
        "hits": "".join(map(str, right.astype(int))),
    }
    if general is not None:
        truth = labels_of(ground.general)
        found["general"] = float((general.argmax(axis=1) == truth).mean())
        found["base_general"] = float((ground.general_said.argmax(axis=1) == truth).mean())
    return found


def labels_of(examples: Sequence[Example]) -> NDArray[np.int64]:
    """Class indices [n]."""
    return np.array([INDEX[example.label] for example in examples], dtype=np.int64)
