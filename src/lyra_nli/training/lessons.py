"""Lessons: examples made ready for a model, once for all folds and epochs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch.nn import functional

from lyra_nli.labels import INDEX
from lyra_nli.models.base import Base
from lyra_nli.models.encoding import EncodedPair, encode
from lyra_nli.records import Example

REVIEWED = ("correction", "agreed")
"""Sources of rows that a person judged."""


@dataclass(frozen=True)
class Lessons:
    """Token ids, targets and weights of n examples.

    Attributes:
        labels: class indices in the model's own order, int64 [n].
        targets: what to answer, float32 [n, classes]: mostly the label, see `make_lessons`.
        weights: factor on each row's cross-entropy, float32 [n].
        pulls: factor on each row's pull towards the base, float32 [n]: the recipe's for its source,
            times what a reviewed row of an origin that has too many weighs.
        teacher: the base's log-probabilities, float32 [n, classes]; NaN where a row is not to
            be pulled towards the base.
    """

    examples: tuple[Example, ...]
    encoded: tuple[EncodedPair, ...]
    labels: torch.Tensor
    targets: torch.Tensor
    weights: torch.Tensor
    pulls: torch.Tensor
    teacher: torch.Tensor

    def __len__(self) -> int:
        return len(self.examples)

    @property
    def lengths(self) -> list[int]:
        """Tokens of each row."""
        return [len(row) for row in self.encoded]

    @property
    def reviewed(self) -> list[int]:
        """Rows that a person judged."""
        return [i for i, example in enumerate(self.examples) if example.source in REVIEWED]

    @property
    def uncorrected(self) -> list[int]:
        """Rows on which the base may be a teacher: no human found it wrong, and they are pulled."""
        return [
            i
            for i, (example, pull) in enumerate(zip(self.examples, self.pulls, strict=True))
            if example.source != "correction" and pull > 0
        ]

    def with_teacher(self, rows: list[int], log_probabilities: torch.Tensor) -> Lessons:
        """Pull towards the base's answers on those of the rows whose label it gave.

        Args:
            log_probabilities: the base's on these rows, float32 [rows, classes].
        """
        wrong = log_probabilities.argmax(dim=1) != self.labels[rows]
        teacher = self.teacher.clone()
        teacher[rows] = log_probabilities.masked_fill(wrong[:, None], float("nan"))
        return replace(self, teacher=teacher)


def make_lessons(
    base: Base,
    examples: Sequence[Example],
    *,
    smoothing: float = 0.0,
    pull: float = 0.0,
    replay_pull: float = 0.0,
) -> Lessons:
    """Encode examples; nothing is pulled towards the base yet.

    Args:
        smoothing: share of a reviewed row's target that is spread over all labels: people err,
            and whoever learns to be certain of them errs with certainty (Szegedy et al. 2016,
            Rethinking the inception architecture, 7; against label noise: Lukasik et al. 2020).
            Of a label that several people gave, each without seeing the other's, it is that
            share divided by their number. Other rows are no person's word.
        pull: towards the base on a row that people agreed with, or a foreign one.
        replay_pull: the same on a replayed row.

    Raises:
        InputError: naming every pair that can't be encoded.
    """
    order = base.labels.order
    labels = torch.tensor([order[INDEX[e.label]] for e in examples], dtype=torch.long)
    doubts = [smoothing / e.people if e.source in REVIEWED else 0.0 for e in examples]
    doubt = torch.tensor(doubts)[:, None]
    pulls = {"replay": replay_pull, "foreign": pull}
    certain = functional.one_hot(labels, len(order)).float()
    return Lessons(
        examples=tuple(examples),
        encoded=tuple(encode(base, [example.pair for example in examples])),
        labels=labels,
        targets=(1 - doubt) * certain + doubt / len(order),
        weights=torch.tensor([e.weight for e in examples], dtype=torch.float32),
        pulls=torch.tensor(
            [pulls.get(e.source, pull * e.weight) for e in examples], dtype=torch.float32
        ),
        teacher=torch.full((len(examples), len(order)), float("nan")),
    )
