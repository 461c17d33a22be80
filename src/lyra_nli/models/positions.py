"""Position tables: what a frozen layer's weights make of every distance between two tokens."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers.models.deberta_v2.modeling_deberta_v2 import make_log_bucket_position

from lyra_nli.models.adapter import Adapter

Correction = tuple[torch.Tensor, torch.Tensor]
"""A version's low-rank part of one layer's tables: [kinds, size, r] and [kinds, r, distances]."""


@dataclass(frozen=True)
class _Kind:
    """One of the two position terms: who projects the rows, times what, and in which order.

    Attributes:
        rows: the relative-position row of each distance, the order of the table's columns.
    """

    projection: nn.Linear
    name: str
    scale: float
    rows: torch.Tensor


class PositionTables:
    """The tables of one layer, a column for every distance of up to `reach` tokens.

    Query i meets column j - i of the content-to-position table, key j column i - j of the other.

    Args:
        attention: transformers' self-attention module.
        name: of that module in the model.
        positions: the encoder's relative-position rows [2 * span, size].
        scale: of a query.

    Attributes:
        kinds: which terms there are: ``c2p``, ``p2c``, or both, in this order.
        table: [kinds * heads, columns, head size].
    """

    def __init__(
        self,
        attention: Any,
        name: str,
        positions: torch.Tensor,
        reach: int,
        scale: float,
    ) -> None:
        self.kinds = tuple(kind for kind in ("c2p", "p2c") if kind in attention.pos_att_type)
        self._positions, self._reach = positions, reach
        self._heads: int = attention.num_attention_heads
        self._terms = list(_terms(self.kinds, attention, name, reach, scale))
        tables = [
            (term.scale * term.projection(positions))[term.rows].unflatten(1, (self._heads, -1))
            for term in self._terms
        ]
        # In this order what a row's length uses lies in one piece.
        self.table = torch.cat(tables, dim=1).transpose(0, 1).contiguous()

    @property
    def own_bytes(self) -> int:
        """Memory of the tables."""
        return self.table.numel() * self.table.element_size()

    def window(self, length: int, correction: Correction | None = None) -> torch.Tensor:
        """Columns that rows of a length use: [kinds * heads, head size, 2 * length - 1]."""
        used = slice(self._reach - length, self._reach + length - 1)
        table = self.table[:, used].transpose(1, 2)
        if correction is None:
            return table
        up, along = correction
        return table + torch.bmm(up, along[:, :, used]).view(table.shape)

    def correction(self, adapter: Adapter) -> Correction | None:
        """What an adapter adds to the tables; None where it leaves them as they are."""
        if not any(term.name in adapter.matrices for term in self._terms):
            return None
        rank = max(len(a) for a, _ in adapter.matrices.values())
        columns = self.table.shape[1]
        ups = self.table.new_zeros(len(self._terms), self._positions.shape[-1], rank)
        alongs = self.table.new_zeros(len(self._terms), rank, columns)
        for up, along, term in zip(ups, alongs, self._terms, strict=True):
            if term.name in adapter.matrices:
                a, b = adapter.matrices[term.name]
                up.copy_(adapter.scale * term.scale * b)
                along.copy_((self._positions @ a.T)[term.rows].T)
        return ups, alongs


def _terms(
    kinds: tuple[str, ...], attention: Any, name: str, reach: int, scale: float
) -> Iterator[_Kind]:
    span: int = attention.pos_ebd_size
    ahead = torch.arange(1 - reach, reach)  # j - i of each column
    prefix = "" if attention.share_att_key else "pos_"
    for kind in kinds:
        content, factor = ("key", 1.0) if kind == "c2p" else ("query", scale)
        behind = -ahead if kind == "c2p" else ahead  # i - j: what the rows are counted by
        if attention.position_buckets > 0 and attention.max_relative_positions > 0:
            behind = make_log_bucket_position(
                behind, attention.position_buckets, attention.max_relative_positions
            ).long()
        projection = f"{prefix}{content}_proj"
        module = getattr(attention, projection)
        rows = (behind + span).clamp(0, 2 * span - 1)
        yield _Kind(module, f"{name}.{projection}", factor, rows.to(module.weight.device))
