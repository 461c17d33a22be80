"""The forward pass of a DeBERTa-v2/v3 classifier with the work that changes nothing left out.

It runs transformers' own modules (adapters inside them included), and gives its logits:

- Position rows. Transformers projects all 512 relative-position rows in every layer. What frozen
  weights make of them is kept; an adapter that still learns adds its low-rank part anew. Tokens
  are scored against the distances that occur in their row, 2L-1 at most, and no others.
- The last layer. The classifier reads the first token alone: its query, its output and its
  feed-forward part are computed for that token only.
- Padding. Above the frozen layers tokens lie end to end, see `packing`.
- Attention is one step, forward and backward, see `attention`.

Disentangled attention: He et al. (2021), DeBERTa, arXiv:2006.03654, eq. 4; log buckets: DeBERTa
v2. Other architectures run as transformers has them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any, TypeGuard

import torch
from torch import nn
from transformers import DebertaV2ForSequenceClassification
from transformers.models.deberta_v2.modeling_deberta_v2 import make_log_bucket_position

from lyra_nli.models.attention import attend
from lyra_nli.models.low_rank import LowRankLinear
from lyra_nli.models.packing import Packing

Forward = Callable[..., torch.Tensor]
"""Takes what `encoding.collate` gives; returns logits [rows, classes], the model's own order."""


def forward_of(model: nn.Module) -> Forward:
    """The fastest exact forward pass for a model in which nothing learns but adapters."""
    if is_disentangled(model):
        return DebertaForward(model)

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
        model: transformers' module tree; it is read, never changed. No weight may change later
            but those of a `LowRankLinear`'s adapter: what the others make of the position rows
            is kept.
    """

    def __init__(self, model: DebertaV2ForSequenceClassification) -> None:
        self.model = model
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

        In the float type of the encoder's weights. Padding is computed, too: what a row gives must
        not depend on the lengths of others.
        """
        deberta = self.model.deberta
        hidden = deberta.embeddings(input_ids, token_type_ids=token_type_ids, mask=attention_mask)
        hidden = hidden.to(deberta.encoder.layer[0].output.LayerNorm.weight.dtype)
        packing = Packing.padded(attention_mask)
        return self._run(range(stop), packing.pack(hidden), packing).view_as(hidden)

    def upper(self, start: int, hidden: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Logits [rows, classes] from the hidden states [rows, length, size] below a layer."""
        packing = Packing.tight(attention_mask)
        first = self._run(range(start, self.layers), packing.pack(hidden), packing)
        first = first[:, None].to(self.model.classifier.weight.dtype)
        logits: torch.Tensor = self.model.classifier(self.model.pooler(first))
        return logits

    def _run(self, numbers: range, hidden: torch.Tensor, packing: Packing) -> torch.Tensor:
        """Hidden states [tokens, size] -> the same; after the last layer [rows, size]."""
        encoder = self.model.deberta.encoder
        rows = encoder.get_rel_embedding()
        for number in numbers:
            last = number == self.layers - 1
            hidden = self._layer(number, encoder.layer[number], hidden, packing, rows, last=last)
        return hidden

    def _layer(
        self,
        number: int,
        layer: Any,
        hidden: torch.Tensor,
        packing: Packing,
        rows: torch.Tensor,
        *,
        last: bool,
    ) -> torch.Tensor:
        """One layer; the last one for the first tokens only."""
        attention = layer.attention.self
        asking = hidden.index_select(0, packing.starts) if last else hidden
        asked = 1 if last else packing.length
        size = hidden.shape[-1] // self._heads
        context = attend(
            attention.query_proj(asking),
            attention.key_proj(hidden),
            attention.value_proj(hidden),
            self._table(number, attention, "c2p", rows, packing.length, asked),
            self._table(number, attention, "p2c", rows, packing.length, asked),
            packing,
            heads=self._heads,
            scale=1 / math.sqrt(size * (1 + len(self._kinds))),
        )
        attended = layer.attention.output(context, asking)
        output: torch.Tensor = layer.output(layer.intermediate(attended), attended)
        return output

    def _table(
        self,
        number: int,
        attention: Any,
        kind: str,
        rows: torch.Tensor,
        length: int,
        asked: int,
    ) -> torch.Tensor | None:
        """What one layer makes of every distance there is: [heads, head size, columns]."""
        if kind not in self._kinds:
            return None
        content = "key" if kind == "c2p" else "query"
        name = f"{content}_proj" if attention.share_att_key else f"pos_{content}_proj"
        projection = getattr(attention, name)
        learns = isinstance(projection, LowRankLinear)
        if (number, kind) not in self._tables:
            project = projection.frozen if learns else projection
            self._tables[number, kind] = self._turn(project(rows))
        reach = (self._span, self._buckets, self._reach)
        columns = _columns(kind, length, asked, *reach).to(rows.device)
        table = self._tables[number, kind].index_select(-1, columns)
        return table + self._turn(projection.low_rank(rows[columns])) if learns else table

    def _turn(self, rows: torch.Tensor) -> torch.Tensor:
        """[rows, size] -> [heads, head size, rows]."""
        return rows.view(len(rows), self._heads, -1).permute(1, 2, 0)


@lru_cache(maxsize=1024)
def _columns(
    kind: str, length: int, asked: int, span: int, buckets: int, reach: int
) -> torch.Tensor:
    """The position row of each of a table's columns, see `attention.attend`; int64 [columns]."""
    # A tensor made in inference mode could not take part in training later.
    with torch.inference_mode(mode=False):
        if kind == "c2p":
            behind = torch.arange(asked - 1, -length, -1)
        else:
            behind = torch.arange(1 - length, asked)
        if buckets > 0 and reach > 0:
            behind = make_log_bucket_position(behind, buckets, reach).to(torch.long)
        return (behind + span).clamp(0, 2 * span - 1)


def _narrowest(model: nn.Module) -> torch.dtype:
    """bfloat16 where any weight is: then products are meant to run in it."""
    narrow = any(parameter.dtype == torch.bfloat16 for parameter in model.parameters())
    return torch.bfloat16 if narrow else torch.float32
