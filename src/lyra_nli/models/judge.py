"""Judging: pairs -> logits -> judgements."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from lyra_nli.labels import LABELS
from lyra_nli.models.base import Base
from lyra_nli.models.encoder import forward_of
from lyra_nli.models.encoding import EncodedPair, by_length, collate, encode
from lyra_nli.records import Judgement, Pair


class Judge:
    """One model version that judges pairs.

    Args:
        base: gives tokenizer and label order.
        model: the weights to judge with; the base's own when None.
        adapter: the name that answers carry.
        batch_size: pairs per forward pass.
    """

    def __init__(
        self,
        base: Base,
        model: nn.Module | None = None,
        adapter: str = "base",
        batch_size: int = 32,
    ) -> None:
        self.base = base
        self.model = model if model is not None else base.model
        self.adapter = adapter
        self.batch_size = batch_size
        self._logits_of = forward_of(self.model)

    def judge(self, pairs: Sequence[Pair]) -> list[Judgement]:
        """Judge pairs, answers in the same order.

        Raises:
            InputError: listing every pair that can't be judged.
        """
        rows = encode(self.base, pairs)
        probabilities = softmax(self._forward(rows))
        return [
            judgement(self.base, p, self.adapter, truncated=row.truncated)
            for p, row in zip(probabilities, rows, strict=True)
        ]

    def logits(
        self, pairs: Sequence[Pair], progress: Callable[[int], None] | None = None
    ) -> NDArray[np.float32]:
        """Logits of shape [pairs, 3], columns in the order of ``LABELS``.

        Args:
            progress: called after every batch with the number of pairs it held.
        """
        return self._forward(encode(self.base, pairs), progress)

    def _forward(
        self, rows: Sequence[EncodedPair], progress: Callable[[int], None] | None = None
    ) -> NDArray[np.float32]:
        out = np.empty((len(rows), len(LABELS)), dtype=np.float32)
        order = list(self.base.labels.order)
        device = next(self.model.parameters()).device
        with torch.inference_mode():
            for positions in by_length([len(row) for row in rows], self.batch_size):
                batch = collate(self.base, [rows[i] for i in positions])
                logits = self._logits_of(**{key: value.to(device) for key, value in batch.items()})
                out[positions] = logits[:, order].float().cpu().numpy()
                if progress:
                    progress(len(positions))
        return out


def judgement(
    base: Base, probabilities: NDArray[np.float64], adapter: str, *, truncated: bool
) -> Judgement:
    """What probabilities [3], in the order of ``LABELS``, say.

    Args:
        adapter: the version behind them, or ``base``.
    """
    best = int(probabilities.argmax())
    return Judgement(
        label=LABELS[best],
        confidence=float(probabilities[best]),
        probabilities=dict(zip(LABELS, probabilities.tolist(), strict=True)),
        raw_label=base.labels.raw_names[best],
        truncated=truncated,
        adapter=adapter,
    )


def softmax(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    """Row-wise softmax in double precision: [n, k] -> [n, k]."""
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    exp = np.exp(shifted)
    result: NDArray[np.float64] = exp / exp.sum(axis=1, keepdims=True)
    return result
