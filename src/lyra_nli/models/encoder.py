"""The forward pass of a DeBERTa-v2/v3 classifier with the work that changes nothing left out.

It runs transformers' own modules (adapters inside them included), and gives its logits:

- Position rows. Transformers projects all 512 relative-position rows in every layer; a pair of
  L tokens can meet 2L-1 of them at most. Only those are projected and scored, and with frozen
  weights they are projected once.
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
from typing import Any

import torch
from peft import PeftModel
from torch import nn
from transformers import DebertaV2ForSequenceClassification
from transformers.models.deberta_v2.modeling_deberta_v2 import make_log_bucket_position

Forward = Callable[..., torch.Tensor]
"""Takes what `encoding.collate` gives; returns logits [rows, classes], the model's own order."""


def forward_of(model: nn.Module, *, frozen: bool) -> Forward:
    """The fastest exact forward pass for this model.

    Args:
        frozen: the weights will not change any more, so that tables may be kept.
    """
    classifier = model.get_base_model() if isinstance(model, PeftModel) else model
    if isinstance(classifier, DebertaV2ForSequenceClassification) and _is_disentangled(classifier):
        return DebertaForward(classifier, frozen=frozen)

    def plain(**batch: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = model(**batch).logits
        return logits

    return plain


class DebertaForward:
    """A DeBERTa-v2/v3 sequence classifier's forward pass; see the module's text.

    Args:
        model: transformers' module tree; it is read, never changed.
        frozen: keep the projected position tables, a layer [heads, head size, rows].
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

    def __call__(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        token_type_ids: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Logits [rows, classes] of padded token ids [rows, length]."""
        deberta = self.model.deberta
        hidden = deberta.embeddings(input_ids, token_type_ids=token_type_ids, mask=attention_mask)
        positions = _positions(input_ids.shape[1], self._span, self._buckets, self._reach)
        positions = positions.to(hidden.device)
        blocked = attention_mask[:, None, None, :] == 0
        rows = deberta.encoder.get_rel_embedding()
        last = len(deberta.encoder.layer) - 1
        for number, layer in enumerate(deberta.encoder.layer):
            hidden = self._layer(
                number, layer, hidden, blocked, positions, rows, last=number == last
            )
        logits: torch.Tensor = self.model.classifier(self.model.pooler(hidden))
        return logits

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
        used = slice(positions.low, positions.high)
        if not self.frozen:
            return self._project(attention, kind, rows[used])
        if (number, kind) not in self._tables:
            self._tables[number, kind] = self._project(attention, kind, rows)
        return self._tables[number, kind][:, :, used]

    def _project(self, attention: Any, kind: str, rows: torch.Tensor) -> torch.Tensor:
        content = "key" if kind == "c2p" else "query"
        name = f"{content}_proj" if attention.share_att_key else f"pos_{content}_proj"
        return self._split(getattr(attention, name)(rows[None]))[0].transpose(-1, -2)

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


def _is_disentangled(model: DebertaV2ForSequenceClassification) -> bool:
    """The released DeBERTa-v2/v3 shapes: relative attention, no convolution."""
    encoder = model.deberta.encoder
    return bool(encoder.relative_attention) and encoder.conv is None
