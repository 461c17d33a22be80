"""Judging: pairs -> logits -> judgements."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from torch import nn

from lyra_nli.labels import LABELS
from lyra_nli.models.adapter import Adapter
from lyra_nli.models.base import Base
from lyra_nli.models.encoding import EncodedPair, by_length, encode
from lyra_nli.models.engine import Variant, engine_of
from lyra_nli.models.windows import Windows, cut
from lyra_nli.records import Judgement, Pair

_VECTOR_TOKENS = 4096
"""Padded tokens a pass may hold whose hidden states are kept: transformers keeps every layer's."""


class Judge:
    """One model version that judges pairs.

    Args:
        base: gives tokenizer and label order.
        model: the weights to judge with; the base's own when None.
        adapter: the name that answers carry.
        batch_size: rows per forward pass.
        overlap: of the windows of a long premise, see `windows.cut`; None: it is truncated.
    """

    def __init__(
        self,
        base: Base,
        model: nn.Module | None = None,
        adapter: str = "base",
        batch_size: int = 32,
        overlap: int | None = None,
    ) -> None:
        self.base = base
        self.adapter = adapter
        self.batch_size = batch_size
        self.overlap = overlap
        self._engine = engine_of(base if model is None else replace(base, model=model))
        self._variant: Variant | None = None

    def adapted(self, adapter: Adapter, name: str) -> Judge:
        """The same judge with an adapter of its base, which stays as it is.

        Args:
            name: that answers carry.
        """
        other = copy.copy(self)
        other.adapter, other._variant = name, self._engine.variant(adapter)
        return other

    def judge(self, pairs: Sequence[Pair]) -> list[Judgement]:
        """Judge pairs, answers in the same order.

        Raises:
            InputError: listing every pair that can't be judged.
        """
        windows = cut(self.base, pairs, self.overlap)
        probabilities = softmax(self._forward(windows.rows))
        return judgements(self.base, windows, probabilities, [self.adapter] * len(pairs))

    def logits(
        self, pairs: Sequence[Pair], progress: Callable[[int], None] | None = None
    ) -> NDArray[np.float32]:
        """Logits of shape [pairs, 3], columns in the order of ``LABELS``; never by windows.

        Args:
            progress: called after every batch with the number of pairs it held.
        """
        return self._forward(encode(self.base, pairs), progress)

    def vectors(self, pairs: Sequence[Pair]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """What the base makes of pairs, whatever adapter judges here, on the way to its answers.

        Returns:
            Vectors [pairs, 2 * hidden], see `Engine.vectors`, and `logits`.

        Raises:
            InputError: listing every pair that can't be read.
        """
        rows = encode(self.base, pairs)
        hidden: int = self.base.model.config.hidden_size  # type: ignore[union-attr,assignment]
        vectors = np.empty((len(rows), 2 * hidden), dtype=np.float32)
        logits = np.empty((len(rows), len(LABELS)), dtype=np.float32)
        order = list(self.base.labels.order)
        for positions in by_length([len(row) for row in rows], self.batch_size, _VECTOR_TOKENS):
            read, said = self._engine.vectors([rows[i] for i in positions])
            vectors[positions], logits[positions] = read.numpy(), said[:, order].numpy()
        return vectors, logits

    def _forward(
        self, rows: Sequence[EncodedPair], progress: Callable[[int], None] | None = None
    ) -> NDArray[np.float32]:
        out = np.empty((len(rows), len(LABELS)), dtype=np.float32)
        order = list(self.base.labels.order)
        for positions in by_length([len(row) for row in rows], self.batch_size):
            owners = [self._variant] * len(positions)
            logits = self._engine.logits([rows[i] for i in positions], owners)
            out[positions] = logits[:, order].numpy()
            if progress:
                progress(len(positions))
        return out


def judgements(
    base: Base, windows: Windows, probabilities: NDArray[np.float64], adapters: Sequence[str]
) -> list[Judgement]:
    """What probabilities [rows, 3], columns in the order of ``LABELS``, say of each pair.

    Args:
        windows: the rows that were judged.
        adapters: the version that judged each pair, or ``base``.
    """
    deciding, counts = windows.deciding(probabilities), Counter(windows.owners)
    return [
        _judgement(base, windows, row, counts[pair], probabilities[row], adapter)
        for pair, (row, adapter) in enumerate(zip(deciding, adapters, strict=True))
    ]


def _judgement(
    base: Base,
    windows: Windows,
    row: int,
    count: int,
    probabilities: NDArray[np.float64],
    adapter: str,
) -> Judgement:
    best = int(probabilities.argmax())
    return Judgement(
        label=LABELS[best],
        confidence=float(probabilities[best]),
        probabilities=dict(zip(LABELS, probabilities.tolist(), strict=True)),
        raw_label=base.labels.raw_names[best],
        truncated=windows.rows[row].truncated,
        adapter=adapter,
        windows=count,
        evidence=windows.spans[row],
    )


def softmax(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    """Row-wise softmax in double precision: [n, k] -> [n, k]."""
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    exp = np.exp(shifted)
    result: NDArray[np.float64] = exp / exp.sum(axis=1, keepdims=True)
    return result
