"""The frozen prefix: hidden states below the adapted layers, computed once a pair.

Layers below the lowest adapter never change while training, so what they make of a pair is the
same in every epoch, fold, seed and later training. It is kept on a `Shelf`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from lyra_nli.models.base import Base
from lyra_nli.models.encoder import DebertaForward, forward_of, is_disentangled
from lyra_nli.models.encoding import EncodedPair, collate, padded_length
from lyra_nli.models.lora import first_adapted_layer
from lyra_nli.models.shelf import Shelf

_TOKENS = 1024
_ROUNDING = 2
"""Raise it when the forward pass rounds otherwise than before: kept states are of no use then."""


class Reader(Protocol):
    """The way from encoded pairs to a trainable model's logits."""

    @property
    def token_bytes(self) -> int:
        """What a token takes while it is read `ahead`."""

    def __call__(self, rows: Sequence[EncodedPair]) -> torch.Tensor:
        """Logits [rows, classes], float32, in the model's own order."""

    def fill(self, rows: Sequence[EncodedPair], progress: Callable[[int], None]) -> None:
        """Compute beforehand what can be kept; tell how many rows are ready, piece by piece."""

    def ahead(self, rows: Sequence[EncodedPair]) -> None:
        """Compute together what the next calls will ask for and was not kept."""


def reader_of(
    base: Base,
    model: nn.Module,
    device: torch.device,
    cache: Path | None,
    limit: int,
    rounding: str = "",
) -> Reader:
    """The fastest reader for a model.

    Args:
        model: what `lora.attach` gave.
        cache: folder for hidden states; None: what would be there is computed every time.
        limit: bytes the folder may take.
        rounding: what else products round by; states of another rounding are of no use.
    """
    layer = first_adapted_layer(model)
    if is_disentangled(model) and cache is not None and layer > 0:
        return Prefix(base, DebertaForward(model), layer, device, cache, limit, rounding)
    return Whole(base, model, device)


class Whole:
    """Runs every layer every time."""

    def __init__(self, base: Base, model: nn.Module, device: torch.device) -> None:
        self.base, self.device = base, device
        self.forward = forward_of(model)
        self.token_bytes = 0

    def __call__(self, rows: Sequence[EncodedPair]) -> torch.Tensor:
        """See `Reader`."""
        batch = collate(self.base, rows, padded_length(max(map(len, rows)), self.base.max_length))
        return self.forward(**{key: value.to(self.device) for key, value in batch.items()}).float()

    def fill(self, rows: Sequence[EncodedPair], progress: Callable[[int], None]) -> None:
        """Nothing can be computed beforehand."""

    def ahead(self, rows: Sequence[EncodedPair]) -> None:
        """See `fill`."""


class Prefix:
    """Runs the frozen layers once a pair, and the others every time.

    A pair's states must not depend on who else was in the batch, or a version could not be made
    again byte for byte from a cache that other trainings filled. Matrix products round
    differently in different shapes, so there is one shape a length, and short batches are
    filled up.
    """

    def __init__(
        self,
        base: Base,
        forward: DebertaForward,
        layer: int,
        device: torch.device,
        cache: Path,
        limit: int,
        rounding: str = "",
    ) -> None:
        self.base, self.forward, self.layer, self.device = base, forward, layer, device
        weight = forward.model.deberta.encoder.layer[0].output.LayerNorm.weight
        # numpy has no bfloat16; its bits travel as integers.
        self._bits = weight.dtype == torch.bfloat16
        dtype = np.dtype(np.uint16 if self._bits else np.float32)
        kind = str(weight.dtype).removeprefix("torch.")
        kind = f"{base.fingerprint[:16]}-{layer}-{kind}-{device.type}-{_ROUNDING}{rounding}"
        self.shelf = Shelf(cache, kind, width=len(weight), dtype=dtype, limit=limit)
        self._near: dict[EncodedPair, NDArray[Any]] = {}

    @property
    def token_bytes(self) -> int:
        """See `Reader`: where everything is kept, nothing is read ahead."""
        return self.shelf.width * self.shelf.dtype.itemsize if self.shelf.full else 0

    def __call__(self, rows: Sequence[EncodedPair]) -> torch.Tensor:
        """See `Reader`; gradients reach the adapters."""
        states = self._states(rows)
        lengths = torch.tensor([len(row) for row in rows])
        length, _ = self._shape(int(lengths.max()))
        hidden = states[0].new_zeros(len(rows), length, states[0].shape[1])
        for place, state in zip(hidden, states, strict=True):
            place[: len(state)] = state
        mask = (torch.arange(length) < lengths[:, None]).long()
        return self.forward.upper(self.layer, hidden.to(self.device), mask.to(self.device)).float()

    def fill(self, rows: Sequence[EncodedPair], progress: Callable[[int], None]) -> None:
        """Compute what is not there yet, in full batches."""
        missing = dict.fromkeys(row for row in rows if _key(row) not in self.shelf)
        progress(len(set(rows)) - len(missing))
        for part in self._same_shape(list(missing)):
            if self.shelf.full:
                break
            self._compute(part)
            progress(len(part))
        self.shelf.flush()

    def ahead(self, rows: Sequence[EncodedPair]) -> None:
        """See `Reader`: a few rows by themselves would fill whole batches up."""
        missing = dict.fromkeys(row for row in rows if _key(row) not in self.shelf)
        self._near = {}  # before the next states are made: never both in memory
        self._near = self._computed(list(missing))

    def _states(self, rows: Sequence[EncodedPair]) -> list[torch.Tensor]:
        """Hidden states [tokens, size] of each row, on the CPU."""
        found = {
            row: self._near[row] if row in self._near else self.shelf.get(_key(row)) for row in rows
        }
        found |= self._computed([row for row, array in found.items() if array is None])
        return [self._tensor(found[row]) for row in rows]

    def _computed(self, rows: Sequence[EncodedPair]) -> dict[EncodedPair, NDArray[Any]]:
        found: dict[EncodedPair, NDArray[Any]] = {}
        for part in self._same_shape(rows):
            found |= zip(part, self._compute(part), strict=True)
        return found

    def _compute(self, rows: Sequence[EncodedPair]) -> list[NDArray[Any]]:
        """States of rows that share a shape; kept while there is room."""
        length, count = self._shape(len(rows[0]))
        filled = [*rows, *[rows[0]] * (count - len(rows))]
        batch = collate(self.base, filled, length=length)
        with torch.no_grad():
            inputs = {key: value.to(self.device) for key, value in batch.items()}
            states = self.forward.lower(self.layer, **inputs).cpu()
        plain = (states.view(torch.uint16) if self._bits else states).numpy()
        arrays = [plain[i, : len(row)].copy() for i, row in enumerate(rows)]
        for row, array in zip(rows, arrays, strict=True):
            self.shelf.put(_key(row), array)
        return arrays

    def _shape(self, length: int) -> tuple[int, int]:
        """Tokens a row and rows a batch for pairs of this length."""
        window: int = self.forward.model.config.max_position_embeddings
        padded = padded_length(length, window)
        return padded, max(1, _TOKENS // padded)

    def _same_shape(self, rows: Sequence[EncodedPair]) -> Iterator[list[EncodedPair]]:
        shapes: dict[tuple[int, int], list[EncodedPair]] = {}
        for row in rows:
            shapes.setdefault(self._shape(len(row)), []).append(row)
        for (_, count), members in sorted(shapes.items()):
            for start in range(0, len(members), count):
                yield members[start : start + count]

    def _tensor(self, array: NDArray[Any] | None) -> torch.Tensor:
        tensor = torch.from_numpy(array)
        return tensor.view(torch.bfloat16) if self._bits else tensor


def _key(row: EncodedPair) -> str:
    """What the encoder reads is the pair's identity, whatever tokenizer made it of which text."""
    read = np.array([row.input_ids, row.token_type_ids], dtype=np.int32)
    return hashlib.sha256(read.tobytes()).hexdigest()[:32]
