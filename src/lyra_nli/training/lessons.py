"""Lessons: examples made ready for a model, once for all folds and epochs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from lyra_nli.labels import INDEX
from lyra_nli.models.base import Base
from lyra_nli.models.encoding import EncodedPair, encode
from lyra_nli.records import Example


@dataclass(frozen=True)
class Lessons:
    """Token ids, targets and weights of n examples.

    Attributes:
        labels: class indices in the model's own order, int64 [n].
        weights: factor on each row's loss, float32 [n].
        teacher: the base's log-probabilities, float32 [n, classes]; NaN where a row is not to
            be pulled towards the base.
    """

    examples: tuple[Example, ...]
    encoded: tuple[EncodedPair, ...]
    labels: torch.Tensor
    weights: torch.Tensor
    teacher: torch.Tensor

    def __len__(self) -> int:
        return len(self.examples)

    @property
    def lengths(self) -> list[int]:
        """Tokens of each row."""
        return [len(row) for row in self.encoded]

    @property
    def uncorrected(self) -> list[int]:
        """Rows on which the base may be a teacher: no human found it wrong there."""
        return [i for i, example in enumerate(self.examples) if example.source != "correction"]

    def with_teacher(self, rows: list[int], log_probabilities: torch.Tensor) -> Lessons:
        """Pull towards the base's answers on those of the rows whose label it gave.

        Args:
            log_probabilities: the base's on these rows, float32 [rows, classes].
        """
        wrong = log_probabilities.argmax(dim=1) != self.labels[rows]
        teacher = self.teacher.clone()
        teacher[rows] = log_probabilities.masked_fill(wrong[:, None], float("nan"))
        return Lessons(self.examples, self.encoded, self.labels, self.weights, teacher)


def make_lessons(base: Base, examples: Sequence[Example]) -> Lessons:
    """Encode examples; nothing is pulled towards the base yet.

    Raises:
        InputError: naming every pair that can't be encoded.
    """
    order = base.labels.order
    return Lessons(
        examples=tuple(examples),
        encoded=tuple(encode(base, [example.pair for example in examples])),
        labels=torch.tensor([order[INDEX[e.label]] for e in examples], dtype=torch.long),
        weights=torch.tensor([e.weight for e in examples], dtype=torch.float32),
        teacher=torch.full((len(examples), len(order)), float("nan")),
    )
