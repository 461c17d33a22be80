"""One frozen encoder layer of a DeBERTa-v2/v3 model, over rows that lie end to end."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from transformers.activations import GELUActivation

from lyra_nli.models.adapter import Adapter
from lyra_nli.models.delta import Delta, LowRank, low_rank
from lyra_nli.models.layout import Chunk, Layout
from lyra_nli.models.linear import FrozenLinear
from lyra_nli.models.positions import Correction, PositionTables

NARROW = ("merge", "widen", "narrow")
"""The products that may run in bfloat16. Queries and keys may not: rounded, they move the scores
of every pair of tokens."""


class Layer:
    """A layer's weights and position tables, ready to be asked; see `engine`.

    Args:
        number: of the layer, from 0.
        layer: transformers' own module.
        name: of that module in the model.
        positions: the encoder's relative-position rows [2 * span, size].
        reach: tokens of the longest row.
        dtype: of the products in `NARROW`; everything else is float32.
    """

    def __init__(
        self,
        number: int,
        layer: Any,
        name: str,
        positions: torch.Tensor,
        reach: int,
        dtype: torch.dtype,
    ) -> None:
        self._number = number
        attention = layer.attention.self
        self._heads: int = attention.num_attention_heads
        size = layer.attention.output.dense.out_features
        # The scores' scale goes with the query, wherever it is a factor.
        terms = 1 + len({"c2p", "p2c"} & set(attention.pos_att_type))
        self._scale = 1 / math.sqrt(size // self._heads * terms)
        self._modules = {
            "states": [
                (f"{name}.attention.self.query_proj", self._scale),
                (f"{name}.attention.self.key_proj", 1.0),
                (f"{name}.attention.self.value_proj", 1.0),
            ],
            "merge": [(f"{name}.attention.output.dense", 1.0)],
            "widen": [(f"{name}.intermediate.dense", 1.0)],
            "narrow": [(f"{name}.output.dense", 1.0)],
        }
        self._dtypes = {site: dtype if site in NARROW else torch.float32 for site in self._modules}
        self._products = {
            site: FrozenLinear.of(
                [(layer.get_submodule(full.removeprefix(f"{name}.")), by) for full, by in modules],
                self._dtypes[site],
            )
            for site, modules in self._modules.items()
        }
        self._activation = layer.intermediate.intermediate_act_fn
        self._norms: tuple[nn.LayerNorm, nn.LayerNorm] = (
            layer.attention.output.LayerNorm,
            layer.output.LayerNorm,
        )
        within = f"{name}.attention.self"
        self._tables = PositionTables(attention, within, positions, reach, self._scale)

    @property
    def own_bytes(self) -> int:
        """Memory of the products and tables, beside that of the module."""
        return self._tables.own_bytes + sum(one.own_bytes for one in self._products.values())

    @property
    def weights(self) -> tuple[torch.Tensor, ...]:
        """What every row is multiplied with."""
        return (self._tables.table, *(one.weight for one in self._products.values()))

    def sites(self, adapter: Adapter) -> dict[tuple[int, str], LowRank]:
        """What an adapter adds to this layer's products."""
        found = {
            (self._number, site): low_rank(adapter, modules, self._dtypes[site])
            for site, modules in self._modules.items()
        }
        return {key: low for key, low in found.items() if low is not None}

    def correction(self, adapter: Adapter) -> Correction | None:
        """What an adapter adds to this layer's position tables."""
        return self._tables.correction(adapter)

    def __call__(
        self,
        hidden: torch.Tensor,
        layout: Layout,
        deltas: Sequence[Delta | None],
        *,
        last: bool,
    ) -> torch.Tensor:
        """Hidden states [tokens, size] -> [tokens, size]; of the last layer [rows, size].

        Args:
            deltas: of each owner in the layout.
            last: only the first token of each row is wanted.
        """
        adapted = any(deltas)
        parts = [(s.tokens, deltas[s.owner]) for s in layout.segments] if adapted else []
        states = self._product("states", hidden, parts)
        pieces = [
            self._attended(states, chunk, deltas[segment.owner], last)
            for segment in layout.segments
            for chunk in segment.chunks
        ]
        context = pieces[0] if len(pieces) == 1 else torch.cat(pieces)
        if last:
            hidden = hidden[layout.starts]
            parts = [(s.rows, deltas[s.owner]) for s in layout.segments] if adapted else []
        after_attention, after_all = self._norms
        hidden = after_attention(self._product("merge", context, parts) + hidden)
        wide = self._product("widen", hidden, parts)
        output: torch.Tensor = after_all(self._product("narrow", wide, parts) + hidden)
        return output

    def _product(
        self, site: str, x: torch.Tensor, parts: Sequence[tuple[slice, Delta | None]]
    ) -> torch.Tensor:
        """The frozen product, and what each part's version adds; after `widen` the activation."""
        x = x.to(self._dtypes[site])
        added = [
            (part, delta.sites[self._number, site])
            for part, delta in parts
            if delta and (self._number, site) in delta.sites
        ]
        activation = self._activation if site == "widen" else None
        fused = isinstance(activation, GELUActivation) and not added
        y = self._products[site](x, gelu=fused)
        for part, low in added:
            low.add(y[part], x[part])
        return y if fused or activation is None else activation(y)

    def _attended(
        self, states: torch.Tensor, chunk: Chunk, delta: Delta | None, last: bool
    ) -> torch.Tensor:
        """Context [tokens, size] of a chunk's tokens, or [rows, size] of their first ones."""
        states = states[chunk.tokens]
        if chunk.padded is not None:
            states = states[chunk.padded]
        rows, length, heads = chunk.count, chunk.length, self._heads
        asked = 1 if last else length
        states = states.view(rows * length, 3 * heads, -1).transpose(0, 1)
        # A batch of matrices, one a head and row.
        query, key, value = states.reshape(3, heads * rows, length, -1)
        correction = delta.tables.get(self._number) if delta else None
        scores = self._position_scores(states, chunk, correction)[:, :, :asked]
        scores = scores.reshape(heads * rows, asked, length)
        scores = torch.baddbmm(scores, query[:, :asked], key.transpose(1, 2))
        if chunk.blocked is not None:
            by_row = scores.view(heads, rows, asked, length)
            by_row.masked_fill_(chunk.blocked, -math.inf)
        context = torch.bmm(scores.softmax(dim=-1), value)
        if rows == 1:
            context = context.transpose(0, 1)
        else:
            context = context.view(heads, rows, asked, -1).permute(1, 2, 0, 3)
        context = context.reshape(rows * asked, -1)
        return context if last or chunk.real is None else context[chunk.real]

    def _position_scores(
        self, states: torch.Tensor, chunk: Chunk, correction: Correction | None
    ) -> torch.Tensor:
        """Content-to-position and position-to-content scores [heads, rows, length, length]."""
        heads, rows, length = self._heads, chunk.count, chunk.length
        kinds, columns = self._tables.kinds, 2 * length - 1
        asking = slice(0 if "c2p" in kinds else heads, 2 * heads if "p2c" in kinds else heads)
        seen = torch.bmm(states[asking], self._tables.window(length, correction))
        # [.., token, distance] -> [.., query, key]: one step to the next query is a whole row
        # less one column, one step to the next key a column; for keys that look back, swapped.
        shape, step = (heads, rows, length, length), rows * length * columns
        views = [
            seen.as_strided(
                shape,
                (
                    step,
                    length * columns,
                    *((columns - 1, 1) if kind == "c2p" else (1, columns - 1)),
                ),
                number * heads * step + length - 1,
            )
            for number, kind in enumerate(kinds)
        ]
        return views[0] + views[1] if len(views) == 2 else views[0]
