"""Suspicion: which human labels look wrong beside all the others.

A student of another fold is no judge of them: it errs on most corrections, rightly labelled or
not, for it has seen nothing of their page and claim. What tells most about a label is how people
labelled the pairs most like it, of the same claim first of all. So every label is held against a
ridge regression from the base's own vectors to what people said *beyond* the base's answer, which
left that one row out. Leaving out each of n rows takes no n fits: the residuals of one tell it
(Allen 1974, The relationship between variable selection and data augmentation).

Whoever corrects says two things: that the model's label is wrong, and what is right. That the
base thinks otherwise speaks against the first and not against the second, so a correction is
asked only which of the *other* labels it would be.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lyra_nli.evaluation.arrays import Probabilities
from lyra_nli.labels import INDEX, LABELS
from lyra_nli.models.base import Base
from lyra_nli.models.judge import softmax
from lyra_nli.models.vectors import read_vectors
from lyra_nli.records import Example
from lyra_nli.training.lessons import REVIEWED
from lyra_nli.training.machine import compute_dtype

SUSPECT = 0.5
"""From here on a label is rather wrong than right."""

_FEWEST = 2

_RIDGE = 0.3
"""Pull of the regression towards the base's answer; rows have a mean square length of 1."""

_SQUARED_BIAS = 0.1
_LEAST = 1e-3
"""No label is impossible, whatever a regression says."""


def suspicions(base: Base, examples: Sequence[Example]) -> dict[str, float]:
    """Review id -> how likely its label is wrong, by all labels but itself, 0 to 1.

    Of one row nothing can be told, and of none.
    """
    reviewed = [example for example in examples if example.source in REVIEWED]
    if len(reviewed) < _FEWEST:
        return {}
    found = suspicion_of(base, reviewed)
    return dict(zip((example.id for example in reviewed), found.tolist(), strict=True))


def suspicion_of(base: Base, reviewed: Sequence[Example]) -> NDArray[np.float64]:
    """`suspicions` of reviewed rows, float64 [n]."""
    likely = np.where(ruled_out(reviewed), 0.0, expected(base, reviewed))
    own: NDArray[np.float64] = likely[np.arange(len(reviewed)), labels_of(reviewed)]
    return 1 - own / likely.sum(axis=1)


def expected(base: Base, reviewed: Sequence[Example]) -> Probabilities:
    """Each row's label by the base and by what people said of all the others, float64 [n, 3]."""
    vectors, logits = read_vectors(base, [e.pair for e in reviewed], compute_dtype("auto"))
    said = softmax(logits)
    beyond = np.eye(len(LABELS))[labels_of(reviewed)] - said
    found = np.maximum(said + left_out(vectors, beyond), _LEAST)
    likely: Probabilities = found / found.sum(axis=1, keepdims=True)
    return likely


def labels_of(reviewed: Sequence[Example]) -> NDArray[np.int64]:
    """Class indices in the order of ``LABELS``, int64 [n]."""
    return np.array([INDEX[example.label] for example in reviewed], dtype=np.int64)


def ruled_out(reviewed: Sequence[Example]) -> NDArray[np.bool_]:
    """The label that a person said is wrong, bool [n, 3]: what was predicted, of corrections."""
    found = np.zeros((len(reviewed), len(LABELS)), dtype=bool)
    for row, example in enumerate(reviewed):
        if example.review and example.review.corrected and example.review.predicted_label:
            found[row, INDEX[example.review.predicted_label]] = True
    return found


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
