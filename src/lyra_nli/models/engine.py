"""The engine: frozen weights of one base, and any number of versions beside them.

For DeBERTa-v2/v3 sequence classifiers it gives transformers' logits, for rows of several versions
in one pass. What frozen weights allow:

- Query, key and value are one product, on weights that oneDNN laid out once. Rows lie end to end
  (`layout`): no product is spent on padding.
- Position tables are constants (`positions`), a column for every distance. Distances of a row's
  tokens form a Toeplitz matrix, so that scores by distance become scores by pairs of tokens in a
  skewed view (Huang et al. 2018, Music Transformer, section 3.4.1): nothing is gathered.
- The classifier reads the first token: the last layer computes no other beyond keys and values.
- A version is its low-rank matrices (`delta`), never merged: the base stays as it is, a version
  can answer once its file is read, and a batch may hold many of them.

Disentangled attention: He et al. (2021), DeBERTa, arXiv:2006.03654, eq. 4. LoRA: Hu et al. (2021),
arXiv:2106.09685. Other architectures run as transformers has them, their versions merged.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeGuard

import torch
from torch import nn
from transformers import DebertaV2ForSequenceClassification
from transformers.activations import ACT2FN

from lyra_nli.models.adapter import Adapter, merged_model
from lyra_nli.models.base import Base
from lyra_nli.models.delta import Delta, LowRank, low_rank
from lyra_nli.models.encoder import is_disentangled
from lyra_nli.models.encoding import EncodedPair, collate
from lyra_nli.models.layer import Layer
from lyra_nli.models.layout import Layout, in_order, lay_out
from lyra_nli.models.low_rank import LowRankLinear
from lyra_nli.models.pages import enlarge

_HEAD = -1

_PLAIN_TOKENS = 4096
"""Padded tokens of a pass of `PlainEngine`: a long row beside short ones pads them all."""


class Variant(Protocol):
    """A version's weights, as its engine wants them."""

    @property
    def own_bytes(self) -> int:
        """Memory beside the base."""


class Engine(Protocol):
    """Judges rows by a base and its versions.

    Attributes:
        dtype: of the products that may be narrow.
        base_bytes: memory of the base: its module, and what was made of it.
    """

    dtype: torch.dtype
    base_bytes: int

    def variant(self, adapter: Adapter) -> Variant:
        """Make a version ready to judge; the base is left alone."""

    def logits(self, rows: Sequence[EncodedPair], variants: Sequence[Any]) -> torch.Tensor:
        """Logits [rows, classes], float32, in the model's own order.

        Args:
            variants: who judges each row, of `variant`; None is the base.
        """

    def vectors(self, rows: Sequence[EncodedPair]) -> tuple[torch.Tensor, torch.Tensor]:
        """What the base makes of rows on the way to its answers, and these.

        Returns:
            Vectors [rows, 2 * hidden]: the mean over the tokens after the lower half of the
            layers, which knows the words, and the first token after all, which is all that the
            answer is made of. Then the base's `logits`.
        """


def engine_of(base: Base, dtype: torch.dtype = torch.float32, *, consume: bool = False) -> Engine:
    """The fastest exact engine for a base.

    Args:
        consume: nobody else uses the base's model: let go of the weights that the engine copied.
    """
    if _has_tables(base.model):
        return DebertaEngine(base.model, base.max_length, dtype, consume=consume)
    return PlainEngine(base, dtype)


def expected_bytes(model: nn.Module, reach: int, dtype: torch.dtype) -> int:
    """`base_bytes` of a base of which `base.blank_model` gave the shapes; the model is used up."""
    if _has_tables(model):
        return DebertaEngine(model, reach, dtype, consume=True).base_bytes
    return _bytes(model)


def _has_tables(model: nn.Module) -> TypeGuard[DebertaV2ForSequenceClassification]:
    # Without position terms there are none; no released model is like that. Nor are there any
    # constant ones where an adapter inside the model still learns.
    learns = any(isinstance(module, LowRankLinear) for module in model.modules())
    return is_disentangled(model) and bool(model.config.pos_att_type) and not learns


class DebertaEngine:
    """A DeBERTa-v2/v3 classifier whose weights don't change; see the module's text.

    The feed-forward products run in `dtype`, everything else in float32; see `layer.NARROW`.

    Args:
        model: transformers' module tree, which is read and never changed.
        reach: tokens of the longest row.
        dtype: float32, exact to rounding; or bfloat16, where the hardware multiplies it.
        consume: but take the weights that were copied out of the module tree; shapes stay.
    """

    def __init__(
        self,
        model: DebertaV2ForSequenceClassification,
        reach: int,
        dtype: torch.dtype,
        *,
        consume: bool = False,
    ) -> None:
        self.model, self.dtype = model, dtype
        encoder = model.deberta.encoder
        self.base_bytes = _bytes(model)
        self._layers = []
        with torch.inference_mode():
            positions = encoder.get_rel_embedding()
            for number, module in enumerate(encoder.layer):
                name = f"deberta.encoder.layer.{number}"
                layer = Layer(number, module, name, positions, reach, dtype)
                self._layers.append(layer)
                self.base_bytes += layer.own_bytes - (_let_go(module) if consume else 0)
        enlarge(weight for layer in self._layers for weight in layer.weights)

    def variant(self, adapter: Adapter) -> Delta:
        """See `Engine`."""
        adapter = adapter.to(self.model.classifier.weight.device)
        sites: dict[tuple[int, str], LowRank] = {}
        tables = {}
        with torch.inference_mode():
            for name in ("pooler.dense", "classifier"):
                if low := low_rank(adapter, [(name, 1.0)], torch.float32):
                    sites[_HEAD, name] = low
            for number, layer in enumerate(self._layers):
                sites |= layer.sites(adapter)
                if correction := layer.correction(adapter):
                    tables[number] = correction
        return Delta(sites, tables)

    def logits(self, rows: Sequence[EncodedPair], variants: Sequence[Delta | None]) -> torch.Tensor:
        """See `Engine`."""
        owners: dict[Delta | None, int] = {}
        layout = lay_out(
            rows,
            [owners.setdefault(delta, len(owners)) for delta in variants],
            self.model.classifier.weight.device,
        )
        deltas = list(owners)
        with torch.inference_mode():
            hidden = self._run(self._layers, self._embed(layout), layout, deltas)
            return in_order(self._answer(hidden, layout, deltas), layout)

    def vectors(self, rows: Sequence[EncodedPair]) -> tuple[torch.Tensor, torch.Tensor]:
        """See `Engine`."""
        layout = lay_out(rows, [0] * len(rows), self.model.classifier.weight.device)
        half = len(self._layers) // 2
        with torch.inference_mode():
            middle = self._run(self._layers[:half], self._embed(layout), layout, [None])
            first = self._run(self._layers[half:], middle, layout, [None])
            means = [each.mean(dim=0) for each in torch.split(middle, layout.lengths)]
            vectors = torch.cat([torch.stack(means), first], dim=1)
            logits = self._answer(first, layout, [None])
            return in_order(vectors, layout), in_order(logits, layout)

    def _embed(self, layout: Layout) -> torch.Tensor:
        hidden: torch.Tensor = self.model.deberta.embeddings(**layout.inputs)[0]
        return hidden

    def _run(
        self,
        layers: Sequence[Layer],
        hidden: torch.Tensor,
        layout: Layout,
        deltas: Sequence[Delta | None],
    ) -> torch.Tensor:
        for layer in layers:
            hidden = layer(hidden, layout, deltas, last=layer is self._layers[-1])
        return hidden

    def _answer(
        self, hidden: torch.Tensor, layout: Layout, deltas: Sequence[Delta | None]
    ) -> torch.Tensor:
        """First tokens [rows, hidden] -> logits [rows, classes]."""
        parts = [(segment.rows, deltas[segment.owner]) for segment in layout.segments]
        pooled = self._head("pooler.dense", hidden, parts)
        pooled = ACT2FN[self.model.config.pooler_hidden_act](pooled)
        return self._head("classifier", pooled, parts)

    def _head(
        self, name: str, x: torch.Tensor, parts: Sequence[tuple[slice, Delta | None]]
    ) -> torch.Tensor:
        y: torch.Tensor = self.model.get_submodule(name)(x)
        for part, delta in parts:
            if delta and (_HEAD, name) in delta.sites:
                delta.sites[_HEAD, name].add(y[part], x[part])
        return y


@dataclass(frozen=True, eq=False)
class Merged:
    """A base with an adapter merged in."""

    model: nn.Module
    own_bytes: int


class PlainEngine:
    """Any architecture, by transformers' own forward pass, version by version."""

    def __init__(self, base: Base, dtype: torch.dtype) -> None:
        self.base, self.dtype = base, dtype
        self.base_bytes = _bytes(base.model)

    def variant(self, adapter: Adapter) -> Merged:
        """See `Engine`."""
        touched = [self.base.model.get_parameter(f"{name}.weight") for name in adapter.matrices]
        size = sum(weight.numel() * weight.element_size() for weight in touched)
        adapter = adapter.to(touched[0].device)
        return Merged(merged_model(self.base, adapter), size)

    def logits(
        self, rows: Sequence[EncodedPair], variants: Sequence[Merged | None]
    ) -> torch.Tensor:
        """See `Engine`."""
        positions: dict[Merged | None, list[int]] = defaultdict(list)
        for position, variant in enumerate(variants):
            positions[variant].append(position)
        logits = torch.empty(len(rows), len(self.base.labels.order))
        for variant, own in positions.items():
            model = variant.model if variant else self.base.model
            lengths = [len(rows[i]) for i in own]
            for places in _passes(lengths, _PLAIN_TOKENS):
                some = [own[place] for place in places]
                logits[some] = self._judged(model, [rows[i] for i in some])
        return logits

    def _judged(self, model: Any, rows: Sequence[EncodedPair]) -> torch.Tensor:
        """One padded pass."""
        device = next(model.parameters()).device
        batch = {name: each.to(device) for name, each in collate(self.base, rows).items()}
        narrow = self.dtype != torch.float32
        with torch.inference_mode(), torch.autocast(device.type, self.dtype, enabled=narrow):
            said: torch.Tensor = model(**batch).logits
        return said.float().cpu()

    def vectors(self, rows: Sequence[EncodedPair]) -> tuple[torch.Tensor, torch.Tensor]:
        """See `Engine`."""
        model = self.base.model
        device = next(model.parameters()).device
        batch = {name: each.to(device) for name, each in collate(self.base, rows).items()}
        with torch.inference_mode():
            out = model(**batch, output_hidden_states=True)
            middle = out.hidden_states[(len(out.hidden_states) - 1) // 2]
            real = batch["attention_mask"][:, :, None].to(middle.dtype)
            mean = (middle * real).sum(dim=1) / real.sum(dim=1)
            vectors = torch.cat([mean, out.hidden_states[-1][:, 0]], dim=1)
        return vectors.float().cpu(), out.logits.float().cpu()


def _passes(lengths: Sequence[int], tokens: int) -> Iterator[list[int]]:
    """Positions in passes of so many padded tokens at most, or of one row; the longest first."""
    order = sorted(range(len(lengths)), key=lambda position: -lengths[position])
    while order:
        count = max(1, tokens // lengths[order[0]])
        yield order[:count]
        order = order[count:]


def _let_go(layer: nn.Module) -> int:
    """Free the weights of a layer's linear modules, of which their shapes stay; gives the bytes."""
    freed = 0
    for module in layer.modules():
        if isinstance(module, nn.Linear):
            freed += module.weight.numel() * module.weight.element_size()
            module.weight = nn.Parameter(module.weight.to("meta"), requires_grad=False)
    return freed


def _bytes(model: nn.Module) -> int:
    tensors = (*model.parameters(), *model.buffers())
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
