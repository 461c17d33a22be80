"""The cache: answers to rows that were judged before, by exactly the same weights."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch

from lyra_nli.ml_server.served import Served
from lyra_nli.models.encoding import EncodedPair

_Key = tuple[str, tuple[int, ...], tuple[int, ...]]


class Cache:
    """Logits by model version and token ids; the longest unused go first.

    Args:
        limit: rows it may hold; 0: it keeps nothing.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._kept: OrderedDict[_Key, torch.Tensor] = OrderedDict()

    def get(self, served: Served, row: EncodedPair) -> torch.Tensor | None:
        """Logits [classes], if they are known."""
        key = _key(served, row)
        if key not in self._kept:
            return None
        self._kept.move_to_end(key)
        return self._kept[key]

    def put(
        self, chosen: Sequence[Served], rows: Sequence[EncodedPair], logits: torch.Tensor
    ) -> None:
        """Keep answers."""
        if not self._limit:
            return
        for served, row, said in zip(chosen, rows, logits, strict=True):
            self._kept[_key(served, row)] = said.clone()
        while len(self._kept) > self._limit:
            self._kept.popitem(last=False)


def _key(served: Served, row: EncodedPair) -> _Key:
    return served.model_version, row.input_ids, row.token_type_ids
