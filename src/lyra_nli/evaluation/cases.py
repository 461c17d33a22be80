"""Cases: single rows that show what changed, and the labels that a person should look at again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lyra_nli.evaluation.arrays import Labels, Probabilities
from lyra_nli.evaluation.evidence import Evidence
from lyra_nli.labels import LABELS, Label
from lyra_nli.records import Example

SHOWN = 12
"""Cases of a kind that a report shows."""


@dataclass(frozen=True, slots=True)
class Said:
    """A model's answer, and how sure it was of it, 0 to 1."""

    label: Label
    confidence: float


@dataclass(frozen=True, slots=True)
class Case:
    """A reviewed row, and what was said of it before and after."""

    example: Example
    before: Said
    after: Said


@dataclass(frozen=True)
class Cases:
    """The clearest cases of each kind, `SHOWN` at most.

    Attributes:
        fixed: the base was wrong, the candidate is right; the largest changes first.
        broken: the reverse.
        suspects: rows to which the candidate, which did not learn from them, gives another label
            than people did; those of which it is surest first.
        counts: how many there are of each, by the attribute's name.
    """

    fixed: Sequence[Case]
    broken: Sequence[Case]
    suspects: Sequence[Case]
    counts: dict[str, int]


def cases(reviewed: Evidence) -> Cases:
    """Sort the rows that base and candidate both answered."""
    labels, asked = reviewed.labels, reviewed.asked("base", "candidate")
    before, after = (reviewed.answers[model] for model in ("base", "candidate"))
    was, now = before.argmax(axis=1) == labels, after.argmax(axis=1) == labels
    rise = _of_label(after, labels) - _of_label(before, labels)
    kinds: dict[str, tuple[NDArray[np.bool_], NDArray[np.float64]]] = {
        "fixed": (asked & ~was & now, rise),
        "broken": (asked & was & ~now, -rise),
        "suspects": (asked & ~now, -_of_label(after, labels)),
    }
    chosen = {
        kind: [
            Case(reviewed.examples[row], _said(before[row]), _said(after[row]))
            for row in _first(mask, worth)
        ]
        for kind, (mask, worth) in kinds.items()
    }
    return Cases(**chosen, counts={kind: int(mask.sum()) for kind, (mask, _) in kinds.items()})


def _first(mask: NDArray[np.bool_], worth: NDArray[np.float64]) -> NDArray[np.intp]:
    rows = np.flatnonzero(mask)
    return rows[np.argsort(-worth[rows], kind="stable")][:SHOWN]


def _of_label(probabilities: Probabilities, labels: Labels) -> NDArray[np.float64]:
    """What each row's own label got, [n]."""
    return np.asarray(probabilities[np.arange(len(labels)), labels])


def _said(answer: NDArray[np.float64]) -> Said:
    best = int(answer.argmax())
    return Said(LABELS[best], float(answer[best]))
