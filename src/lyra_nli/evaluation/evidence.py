"""The rows that a candidate is judged on, and what every model said of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from lyra_nli.evaluation.arrays import Hits, Labels, Probabilities
from lyra_nli.labels import INDEX
from lyra_nli.records import Example


@dataclass(frozen=True)
class Evidence:
    """Rows and what every model said of them.

    Attributes:
        examples: n rows.
        answers: by model (``base``, ``candidate``, and ``active`` where there is a version to hold
            it against): float64 [n, 3]; NaN in the rows that a model learned from.
    """

    examples: tuple[Example, ...]
    answers: Mapping[str, Probabilities]

    @cached_property
    def labels(self) -> Labels:
        """What people said, [n]."""
        return np.array([INDEX[example.label] for example in self.examples], dtype=np.int64)

    @cached_property
    def groups(self) -> NDArray[np.str_]:
        """The group of each row, [n]."""
        return np.array([example.group for example in self.examples], dtype=np.str_)

    def asked(self, *models: str) -> Hits:
        """The rows that all of these models may be asked about, [n]."""
        known = [~np.isnan(self.answers[model]).any(axis=1) for model in models]
        return np.asarray(np.logical_and.reduce(known))
