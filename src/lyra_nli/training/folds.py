"""Folds: every reviewed row judged by a student that did not learn from it.

The reviewed rows are cut into K parts, groups whole; each part is judged by a student that
learned from the others. Their answers choose the number of epochs (early stopping, on all rows
instead of a small dev split) and tell which labels look wrong.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from sklearn.model_selection import StratifiedGroupKFold
from torch.nn import functional

from lyra_nli.evaluation.metrics import Probabilities
from lyra_nli.labels import INDEX, LABELS
from lyra_nli.records import Example
from lyra_nli.training.lessons import Lessons

AnswerRow: TypeAlias = dict[str, Any]


@dataclass(frozen=True)
class OutOfFold:
    """Answers for reviewed rows from students that did not learn from them.

    Attributes:
        examples: the reviewed rows.
        targets: class indices in the order of ``LABELS``, int64 [rows].
        logits: after each epoch, float32 [rows, 3], columns in the order of ``LABELS``.
        folds: how many students.
    """

    examples: tuple[Example, ...]
    targets: torch.Tensor
    logits: list[torch.Tensor]
    folds: int

    def history(self) -> list[dict[str, float]]:
        """`epoch_figures` of every epoch."""
        return [epoch_figures(each, self.targets) for each in self.logits]

    def losses(self, epoch: int) -> list[float]:
        """What each row's label cost after an epoch, nats; high where a label looks wrong."""
        losses = functional.cross_entropy(self.logits[epoch - 1], self.targets, reduction="none")
        return [float(loss) for loss in losses]

    def suspects(self, epoch: int) -> dict[str, float]:
        """Review id -> loss, of the rows to which their students give another label."""
        wrong = self.logits[epoch - 1].argmax(dim=1) != self.targets
        losses = self.losses(epoch)
        return {e.id: losses[i] for i, e in enumerate(self.examples) if wrong[i]}

    def rows(self, epoch: int) -> list[AnswerRow]:
        """`answer_rows` of the answers after an epoch."""
        probabilities = self.logits[epoch - 1].double().softmax(dim=-1).numpy()
        return answer_rows("fold", self.examples, probabilities)


def answer_rows(
    part: Literal["fold", "holdout"], examples: Sequence[Example], probabilities: Probabilities
) -> list[AnswerRow]:
    """Say how each row was judged by a model that had not learned from it.

    Args:
        part: why it had not: another fold's student judged, or the row was held out.
        probabilities: float [n, 3], columns in the order of ``LABELS``.

    Returns:
        A row each: id, part, label, probabilities by label, and the label's loss in nats.
    """
    losses = -np.log(np.maximum(probabilities, 1e-12))
    return [
        {
            "id": example.id,
            "part": part,
            "label": example.label,
            "probabilities": dict(zip(LABELS, answer.tolist(), strict=True)),
            "loss": float(loss[INDEX[example.label]]),
        }
        for example, answer, loss in zip(examples, probabilities, losses, strict=True)
    ]


def write_rows(file: Path, rows: Iterable[AnswerRow]) -> None:
    """Write JSON lines."""
    with file.open("w", encoding="utf-8") as lines:
        lines.writelines(json.dumps(row) + "\n" for row in rows)


def cut(lessons: Lessons, rows: Sequence[int], folds: int, seed: int) -> list[list[int]]:
    """Cut rows into folds: groups stay whole, labels are spread evenly.

    Returns:
        Positions in the lessons, a list a fold; one fold or none where groups are too few.
    """
    groups = [lessons.examples[row].group for row in rows]
    labels = lessons.labels[list(rows)].numpy()
    folds = min(folds, len(set(groups)), *np.bincount(labels, minlength=1).max(keepdims=True))
    if folds < 2:
        return [list(rows)] if rows else []
    splitter = StratifiedGroupKFold(int(folds), shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a label too rare for every fold is none of its faults
        parts = list(splitter.split(np.zeros(len(rows)), labels, groups))
    return [[rows[i] for i in held] for _, held in parts if len(held)]


def epoch_figures(logits: torch.Tensor, labels: torch.Tensor) -> dict[str, float]:
    """Mean NLL (nats), its standard error, and accuracy on n rows.

    Args:
        logits: float32 [n, classes].
        labels: int64 [n].
    """
    losses = functional.cross_entropy(logits, labels, reduction="none")
    return {
        "nll": losses.mean().item(),
        "nll_error": losses.std(correction=0).item() / math.sqrt(len(labels)),
        "accuracy": (logits.argmax(dim=1) == labels).float().mean().item(),
    }


def best_epoch(history: Sequence[Mapping[str, float]]) -> int:
    """The last epoch whose NLL is within one standard error of the lowest; counted from 1.

    The one-standard-error rule (Breiman et al. 1984, Classification and Regression Trees,
    3.4.3), towards more training: a hundred rows can't tell smaller differences, and stopping
    on them would end training after the first epoch, long before it has learned what it can.
    """
    lowest = min(history, key=lambda epoch: epoch["nll"])
    bound = lowest["nll"] + lowest["nll_error"]
    return max(number for number, epoch in enumerate(history, 1) if epoch["nll"] <= bound)
