"""Opinions: what the labels of all other rows say of one.

What tells most about a label is how people labelled the pairs most like it, of the same claim
first of all. So a ridge regression leads from the base's own vectors to what people said *beyond*
the base's answer, and every row is asked of one that left it out. Leaving out each of n rows takes
no n fits: the residuals of one tell it (Allen 1974, The relationship between variable selection
and data augmentation).

Whoever corrects says two things: that the model's label is wrong, and what is right. That the
base thinks otherwise speaks against the first and not against the second, so of a correction it
is only asked which of the *other* labels it would be.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lyra_nli.evaluation.arrays import Probabilities
from lyra_nli.labels import INDEX, LABELS
from lyra_nli.models.judge import Judge, softmax
from lyra_nli.records import Example
from lyra_nli.training.lessons import REVIEWED

FEWEST = 2
"""Rows from which on one can be held against the others."""

_RIDGE = 0.3
"""Pull of the regression towards the base's answer; rows have a mean square length of 1."""

_SQUARED_BIAS = 0.1
_LEAST = 1e-3
"""No label is impossible, whatever a regression says."""


@dataclass(frozen=True)
class Opinions:
    """Reviewed rows as the base sees them; columns of labels in the order of ``LABELS``.

    Attributes:
        ids: of the rows.
        labels: class indices, int64 [n].
        ruled_out: the label that a person said is wrong, bool [n, 3].
        vectors: float32 [n, d], see `Judge.vectors`.
        said: the base's probabilities, float64 [n, 3].
    """

    ids: tuple[str, ...]
    labels: NDArray[np.int64]
    ruled_out: NDArray[np.bool_]
    vectors: NDArray[np.float32]
    said: Probabilities

    def of(self, rows: Sequence[int]) -> Opinions:
        """The same of some rows, as if there were no others."""
        index = list(rows)
        return Opinions(
            tuple(self.ids[row] for row in index),
            self.labels[index],
            self.ruled_out[index],
            self.vectors[index],
            self.said[index],
        )

    def answers(self) -> dict[str, list[float]]:
        """Row id -> the base's probabilities, in the order of ``LABELS``."""
        return dict(zip(self.ids, self.said.tolist(), strict=True))

    def expected(self) -> Probabilities:
        """Each row's label, by the base and by the labels of all others, float64 [n, 3]."""
        beyond = np.eye(len(LABELS))[self.labels] - self.said
        likely = np.maximum(self.said + left_out(self.vectors, beyond), _LEAST)
        return _shares(likely)

    def likely(self) -> Probabilities:
        """`expected`, where the label that was ruled out is out of the question."""
        return _shares(np.where(self.ruled_out, 0.0, self.expected()))

    def suspicion(self) -> NDArray[np.float64]:
        """How likely each label is wrong, 0 to 1, float64 [n]."""
        own: NDArray[np.float64] = self.likely()[np.arange(len(self.labels)), self.labels]
        return 1 - own


def read_opinions(judge: Judge, examples: Sequence[Example]) -> Opinions:
    """Read what people reviewed, by the base of a judge.

    Raises:
        InputError: listing every pair that can't be read.
    """
    reviewed = [example for example in examples if example.source in REVIEWED]
    vectors, logits = judge.vectors([example.pair for example in reviewed])
    return Opinions(
        tuple(example.id for example in reviewed),
        np.array([INDEX[example.label] for example in reviewed], dtype=np.int64),
        _ruled_out(reviewed),
        vectors,
        softmax(logits),
    )


def left_out(vectors: NDArray[np.float32], wanted: Probabilities) -> Probabilities:
    """What a ridge regression tells of each row that it did not learn from, float64 [n, k].

    With ``H`` the matrix that turns what is wanted into what is fitted, the row that is left out
    gets ``(fitted - H_ii * wanted) / (1 - H_ii)``.

    Args:
        vectors: [n, d], standardised here.
        wanted: [n, k].
    """
    spread = vectors.std(axis=0, dtype=np.float64)
    rows = (vectors - vectors.mean(axis=0, dtype=np.float64)) / np.where(spread > 0, spread, 1.0)
    rows /= max(np.sqrt((rows**2).sum(axis=1).mean()), np.finfo(float).tiny)
    rows = np.column_stack([rows, np.full(len(rows), np.sqrt(_SQUARED_BIAS))])
    within = rows.T @ rows + _RIDGE * np.eye(rows.shape[1])
    solved = np.linalg.solve(within, rows.T)
    fitted = rows @ (solved @ wanted)
    share = np.einsum("ij,ji->i", rows, solved)[:, None]
    told: Probabilities = (fitted - share * wanted) / (1 - share)
    return told


def _ruled_out(reviewed: Sequence[Example]) -> NDArray[np.bool_]:
    found = np.zeros((len(reviewed), len(LABELS)), dtype=bool)
    for row, example in enumerate(reviewed):
        if example.review and example.review.corrected and example.review.predicted_label:
            found[row, INDEX[example.review.predicted_label]] = True
    return found


def _shares(values: Probabilities) -> Probabilities:
    shares: Probabilities = values / values.sum(axis=1, keepdims=True)
    return shares
