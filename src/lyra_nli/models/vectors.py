"""Vectors: what a base makes of a pair on the way to its answer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from lyra_nli.labels import LABELS
from lyra_nli.models.base import Base
from lyra_nli.models.encoding import by_length, collate, encode
from lyra_nli.records import Pair

_ROWS, _TOKENS = 32, 4096


def read_vectors(
    base: Base, pairs: Sequence[Pair], dtype: torch.dtype = torch.float32
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Read pairs by the base, and keep what lies behind its answers.

    Args:
        dtype: what products run in.

    Returns:
        Vectors [n, 2 * hidden]: the mean over the tokens after the middle layer, which knows the
        words, and the first token after the last, which is all that the answer is made of. Then
        the logits [n, 3], columns in the order of ``LABELS``.

    Raises:
        InputError: listing every pair that can't be read.
    """
    rows = encode(base, pairs)
    hidden: int = base.model.config.hidden_size  # type: ignore[union-attr,assignment]
    vectors = np.empty((len(rows), 2 * hidden), dtype=np.float32)
    logits = np.empty((len(rows), len(LABELS)), dtype=np.float32)
    device, order = next(base.model.parameters()).device, list(base.labels.order)
    with (
        torch.inference_mode(),
        torch.autocast(device.type, dtype, enabled=dtype != torch.float32),
    ):
        for positions in by_length([len(row) for row in rows], _ROWS, _TOKENS):
            batch = collate(base, [rows[i] for i in positions])
            batch = {key: value.to(device) for key, value in batch.items()}
            out = base.model(**batch, output_hidden_states=True)
            middle = out.hidden_states[len(out.hidden_states) // 2].float()
            real = batch["attention_mask"][:, :, None].float()
            mean = (middle * real).sum(dim=1) / real.sum(dim=1)
            both = torch.cat([mean, out.hidden_states[-1][:, 0].float()], dim=1)
            vectors[positions] = both.cpu().numpy()
            logits[positions] = out.logits[:, order].float().cpu().numpy()
    return vectors, logits
