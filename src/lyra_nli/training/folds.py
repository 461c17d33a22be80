"""Folds: every reviewed row judged by a student that did not learn from it.

The reviewed rows are cut into K parts, groups whole; each part is judged by a student that
learned from the others. Their answers choose the strength of the adapter, and are what the gate
goes by while reviews are few.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from sklearn.model_selection import StratifiedGroupKFold
from torch.nn import functional

from lyra_nli.evaluation.arrays import Probabilities
from lyra_nli.evaluation.scoring import brier
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
        parts: the fold of each row, int64 [rows].
        logits: by strength of the students' adapters, float32 [rows, 3], columns in the order
            of ``LABELS``.
        history: `epoch_figures` after every epoch, at full strength and without averaging.
    """

    examples: tuple[Example, ...]
    targets: torch.Tensor
    parts: torch.Tensor
    logits: Mapping[float, torch.Tensor]
    history: list[dict[str, float]]

    @property
    def folds(self) -> int:
        """How many students."""
        return len(torch.unique(self.parts))

    @property
    def strength(self) -> float:
        """The strength at which the students answer best, by all rows."""
        return best_strength(self.logits, self.targets)

    def honest(self) -> torch.Tensor:
        """Logits [rows, 3] on which no choice was made that they then judge.

        Each fold answers at the strength that the other folds' rows ask for (nested choice:
        Cawley & Talbot 2010, On over-fitting in model selection).
        """
        answers = torch.empty_like(self.logits[self.strength])
        for part in torch.unique(self.parts):
            own = self.parts == part
            others = {strength: each[~own] for strength, each in self.logits.items()}
            answers[own] = self.logits[best_strength(others, self.targets[~own])][own]
        return answers

    def rows(self) -> list[AnswerRow]:
        """`answer_rows` of the honest answers."""
        return answer_rows("fold", self.examples, self.honest().double().softmax(dim=-1).numpy())


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


def best_strength(logits: Mapping[float, torch.Tensor], targets: torch.Tensor) -> float:
    """The strength whose answers have the lowest Brier score; of equals the weakest.

    A weaker adapter breaks less and fixes less (Wortsman et al. 2022, Robust fine-tuning of
    zero-shot models). The Brier score rather than the likelihood: a few certain errors must not
    decide.

    Args:
        logits: float32 [rows, classes] by strength.
        targets: int64 [rows].
    """

    def loss(strength: float) -> float:
        probabilities = logits[strength].double().softmax(dim=-1).numpy()
        return brier(probabilities, targets.numpy())

    return min(sorted(logits), key=loss)
