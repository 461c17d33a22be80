"""The forward pass of a DeBERTa-v2/v3 classifier with the work that changes nothing left out.

It runs transformers' own modules (adapters inside them included), and gives its logits:

- Position rows. Transformers projects all 512 relative-position rows in every layer; a pair of
  L tokens can meet 2L-1 of them at most. Only those are scored, and what frozen weights make of
  them is kept; an adapter that still learns adds its low-rank part anew.
- The last layer. The classifier reads the first token alone: its query, its output and its
  feed-forward part are computed for that token only.
- One relative-position index per length, no copies of the tables per batch row.

Disentangled attention: He et al. (2021), DeBERTa, arXiv:2006.03654, eq. 4; log buckets: DeBERTa
v2. Other architectures run as transformers has them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, TypeGuard

import torch
from torch import nn
from transformers import DebertaV2ForSequenceClassification
from transformers.models.deberta_v2.modeling_deberta_v2 import make_log_bucket_position

from lyra_nli.models.low_rank import LowRankLinear

Forward = Callable[..., torch.Tensor]
"""Takes what `encoding.collate` gives; returns logits [rows, classes], the model's own order."""


def forward_of(model: nn.Module, *, frozen: bool) -> Forward:
    """The fastest exact forward pass for this model.

    Args:
        frozen: no weight changes any more but those of a `LowRankLinear`'s adapter, so that
            tables may be kept.
    """
    if is_disentangled(model):
        return DebertaForward(model, frozen=frozen)

    def plain(**batch: torch.Tensor) -> torch.Tensor:
        dtype = _narrowest(model)
        with torch.autocast(
            batch["input_ids"].device.type, dtype=dtype, enabled=dtype != torch.float32
        ):
            logits: torch.Tensor = model(**batch).logits
        return logits

    return plain


def is_disentangled(model: nn.Module) -> TypeGuard[DebertaV2ForSequenceClassification]:
    """The released DeBERTa-v2/v3 shapes: relative attention, no convolution."""
    if not isinstance(model, DebertaV2ForSequenceClassification):
        return False
    encoder = model.deberta.encoder
    return bool(encoder.relative_attention) and encoder.conv is None


class DebertaForward:
    """A DeBERTa-v2/v3 sequence classifier's forward pass; see the module's text.

    The encoder may be of another float type than embeddings and classifier.

    Args:
        model: transformers' module tree; it is read, never changed.
        frozen: keep what the frozen weights make of the position rows, a layer
            [heads, head size, rows].
    """

    def __init__(self, model: DebertaV2ForSequenceClassification, *, frozen: bool) -> None:
        self.model = model
        self.frozen = frozen
        attention = model.deberta.encoder.layer[0].attention.self
        self._heads: int = attention.num_attention_heads
        self._span: int = attention.pos_ebd_size
        self._buckets: int = attention.position_buckets
        self._reach: int = attention.max_relative_positions
        self._kinds = tuple(kind for kind in ("c2p", "p2c") if kind in attention.pos_att_type)
        self._tables: dict[tuple[int, str], torch.Tensor] = {}

    @property
    def layers(self) -> int:
        """How many there are."""
        return len(self.model.deberta.encoder.layer)

    def __call__(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        token_type_ids: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Logits [rows, classes] of padded token ids [rows, length]."""
        hidden = self.lower(0, input_ids, attention_mask, token_type_ids)
        return self.upper(0, hidden, attention_mask)

    def lower(
        self,
        stop: int,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        token_type_ids: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Hidden states [rows, length, size] below layer `stop`, which is not the last one's end.

        In the float type of the encoder's weights.
        """
        deberta = self.model.deberta
        hidden = deberta.embeddings(input_ids, token_type_ids=token_type_ids, mask=attention_mask)
        hidden = hidden.to(deberta.encoder.layer[0].output.LayerNorm.weight.dtype)
        return self._run(range(stop), hidden, attention_mask)

    def upper(self, start: int, hidden: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Logits [rows, classes] from the hidden states below layer `start`."""
        hidden = self._run(range(start, self.layers), hidden, attention_mask)
        first = hidden[:, :1].to(self.model.classifier.weight.dtype)
        logits: torch.Tensor = self.model.classifier(self.model.pooler(first))
        return logits

    def _run(
        self, numbers: range, hidden: torch.Tensor, attention_mask: torch.Tensor
    ) -> torch.Tensor:
        encoder = self.model.deberta.encoder
        positions = _positions(hidden.shape[1], self._span, self._buckets, self._reach)
        positions = positions.to(hidden.device)
        blocked = attention_mask[:, None, None, :] == 0
        rows = encoder.get_rel_embedding()
        for number in numbers:
            layer, last = encoder.layer[number], number == self.layers - 1
            hidden = self._layer(number, layer, hidden, blocked, positions, rows, last=last)
        return hidden

    def _layer(
        self,
        number: int,
        layer: Any,
        hidden: torch.Tensor,
        blocked: torch.Tensor,
        positions: _Positions,
        rows: torch.Tensor,
        *,
        last: bool,
    ) -> torch.Tensor:
        """One layer; the last one for the first token only: [rows, 1, size]."""
        attention = layer.attention.self
        asking = hidden[:, :1] if last else hidden
        query = self._split(attention.query_proj(asking))
        key = self._split(attention.key_proj(hidden))
        value = self._split(attention.value_proj(hidden))
        scale = math.sqrt(query.shape[-1] * (1 + len(self._kinds)))
        query, scaled_key = query / scale, key / scale
        scores = query @ key.transpose(-1, -2)
        place = positions.index[: query.shape[2]]
        if "c2p" in self._kinds:
            seen = query @ self._table(number, attention, "c2p", rows, positions)
            scores = scores + seen.gather(-1, place.expand(*seen.shape[:2], -1, -1))
        if "p2c" in self._kinds:
            seen = scaled_key @ self._table(number, attention, "p2c", rows, positions)
            # The bucket of i - j is minus that of j - i, so one index serves both directions.
            back = place.transpose(0, 1).expand(*seen.shape[:2], -1, -1)
            scores = scores + seen.gather(-1, back).transpose(-1, -2)
        scores = scores.masked_fill(blocked, torch.finfo(scores.dtype).min)
        context = scores.softmax(dim=-1).to(value.dtype) @ value
        merged = context.transpose(1, 2).flatten(2)
        attended = layer.attention.output(merged, asking)
        output: torch.Tensor = layer.output(layer.intermediate(attended), attended)
        return output

    def _table(
        self, number: int, attention: Any, kind: str, rows: torch.Tensor, positions: _Positions
    ) -> torch.Tensor:
        """Projected position rows in use, one layer: [heads, head size, rows]."""
        content = "key" if kind == "c2p" else "query"
        name = f"{content}_proj" if attention.share_att_key else f"pos_{content}_proj"
        projection = getattr(attention, name)
        used = slice(positions.low, positions.high)
        if not self.frozen:
            return self._turn(projection(rows[used]))
        learns = isinstance(projection, LowRankLinear)
        if (number, kind) not in self._tables:
            project = projection.frozen if learns else projection
            self._tables[number, kind] = self._turn(project(rows))
        table = self._tables[number, kind][:, :, used]
        return table + self._turn(projection.low_rank(rows[used])) if learns else table

    def _turn(self, rows: torch.Tensor) -> torch.Tensor:
        """[rows, size] -> [heads, head size, rows]."""
        return self._split(rows[None])[0].transpose(-1, -2)

    def _split(self, states: torch.Tensor) -> torch.Tensor:
        """[rows, length, size] -> [rows, heads, length, head size]."""
        rows, length, _ = states.shape
        return states.view(rows, length, self._heads, -1).transpose(1, 2)


@dataclass(frozen=True)
class _Positions:
    """Which position rows pairs of one length use.

    Attributes:
        index: row for query i and key j, counted from `low`; int64 [length, length].
        low, high: the range of rows in use.
    """

    index: torch.Tensor
    low: int
    high: int

    def to(self, device: torch.device) -> _Positions:
        return self if device.type == "cpu" else replace(self, index=self.index.to(device))


@lru_cache(maxsize=512)
def _positions(length: int, span: int, buckets: int, reach: int) -> _Positions:
    # A tensor made in inference mode could not take part in training later.
    with torch.inference_mode(mode=False):
        steps = torch.arange(length)
        relative = steps[:, None] - steps[None, :]
        if buckets > 0 and reach > 0:
            relative = make_log_bucket_position(relative, buckets, reach).to(torch.long)
        index = (relative + span).clamp(0, 2 * span - 1)
        low, high = int(index.min()), int(index.max()) + 1
        return _Positions(index - low, low, high)


def _narrowest(model: nn.Module) -> torch.dtype:
    """bfloat16 where any weight is: then products are meant to run in it."""
    narrow = any(parameter.dtype == torch.bfloat16 for parameter in model.parameters())
    return torch.bfloat16 if narrow else torch.float32
