"""Parts: what a student said of the rows of one fold, and all folds put together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from lyra_nli.labels import INDEX
from lyra_nli.records import Example
from lyra_nli.training.folds import OutOfFold, epoch_figures


@dataclass(frozen=True)
class PartAnswers:
    """What one student said of n rows that it had not learned from.

    Attributes:
        rows: their positions in the lessons.
        examples: the rows.
        logits: by strength of the student's adapter, float32 [n, 3], columns in the order of
            ``LABELS``.
        epochs: the same after every epoch, at full strength and without averaging.
        seconds: that its fit took, before a restart included.
        peak_memory: largest resident size seen, bytes.
    """

    rows: Sequence[int]
    examples: tuple[Example, ...]
    logits: Mapping[float, torch.Tensor]
    epochs: Sequence[torch.Tensor]
    seconds: float
    peak_memory: int

    @property
    def targets(self) -> torch.Tensor:
        """Class indices in the order of ``LABELS``, int64 [n]."""
        return torch.tensor([INDEX[example.label] for example in self.examples])


def together(answers: Sequence[PartAnswers]) -> OutOfFold:
    """All parts as one, rows in the order of the lessons."""
    order = torch.tensor([row for each in answers for row in each.rows]).argsort()
    examples = [example for each in answers for example in each.examples]
    targets = torch.cat([each.targets for each in answers])[order]
    numbers = [torch.full((len(each.rows),), number) for number, each in enumerate(answers, 1)]
    epochs = zip(*(each.epochs for each in answers), strict=True)
    return OutOfFold(
        tuple(examples[row] for row in order.tolist()),
        targets,
        torch.cat(numbers)[order],
        {
            strength: torch.cat([each.logits[strength] for each in answers])[order]
            for strength in answers[0].logits
        },
        [epoch_figures(torch.cat(every)[order], targets) for every in epochs],
    )
