"""A student: a model that learns, the start it returns to, and the way to its logits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import nn

from lyra_nli.models.base import Base
from lyra_nli.models.encoding import by_length
from lyra_nli.models.lora import first_adapted_layer, low_rank_layers
from lyra_nli.models.machine import device
from lyra_nli.models.prefix import reader_of
from lyra_nli.settings import TrainingSettings
from lyra_nli.training.lessons import Lessons
from lyra_nli.training.repeating import deterministic, rounding

_EVAL_ROWS, _EVAL_TOKENS = 32, 4096

Weights = list[torch.Tensor]
"""The trained parameters, in the model's order."""


class Student:
    """One model for all fits of a training: folds and epochs share its frozen part.

    Args:
        make_model: gives a model whose adapters (or other parameters) learn.
        cache: folder for the hidden states below the adapters; None keeps none.

    Attributes:
        fresh: weights with which it answers as the base does.
        start: weights from which every fit starts; the fresh ones, unless told otherwise.
        rounding: what its products round by, see `repeating.rounding`.
    """

    def __init__(
        self,
        base: Base,
        make_model: Callable[[], nn.Module],
        recipe: TrainingSettings,
        cache: Path | None = None,
    ) -> None:
        self.device = device()
        with deterministic(recipe.seed, recipe.threads):
            self.model = make_model().to(self.device).eval()
        self.parameters = [p for p in self.model.parameters() if p.requires_grad]
        self.start = self.fresh = self.weights()
        self._scale = recipe.alpha / recipe.rank
        cache = cache if recipe.cache_mb else None
        self.rounding = rounding(recipe.threads)
        limit = recipe.cache_mb * 2**20
        self.read = reader_of(base, self.model, self.device, cache, limit, f"-{self.rounding}")

    @property
    def dtype(self) -> torch.dtype:
        """The float type that products run in."""
        return next(layer.weight.dtype for _, layer in low_rank_layers(self.model))

    @property
    def depth(self) -> int:
        """All encoder layers."""
        count: int = self.model.config.num_hidden_layers  # type: ignore[union-attr,assignment]
        return count

    @property
    def learning_layers(self) -> int:
        """Encoder layers that gradients run through."""
        return self.depth - first_adapted_layer(self.model)

    @property
    def strength(self) -> float:
        """How much the adapter counts: 1 as it learned, 0 not at all."""
        return next(layer.scale for _, layer in low_rank_layers(self.model)) / self._scale

    @strength.setter
    def strength(self, value: float) -> None:
        for _, layer in low_rank_layers(self.model):
            layer.scale = value * self._scale

    def weights(self) -> Weights:
        """A copy of what has been learned."""
        return [parameter.detach().clone() for parameter in self.parameters]

    def take(self, weights: Weights) -> None:
        """Go on from other weights."""
        with torch.no_grad():
            for parameter, value in zip(self.parameters, weights, strict=True):
                parameter.copy_(value)

    def study(self) -> None:
        """Dropout works in the adapters alone: the frozen base always answers the same."""
        self.model.eval()
        for module in self.model.modules():
            module.training = hasattr(module, "lora_A")

    def logits(self, lessons: Lessons, rows: Sequence[int]) -> torch.Tensor:
        """Logits [rows, classes] on the CPU, float32."""
        self.model.eval()
        out = torch.empty(len(rows), lessons.teacher.shape[1])
        encoded = [lessons.encoded[row] for row in rows]
        with torch.no_grad():  # not inference mode: tables made here take part in training
            lengths = [len(row) for row in encoded]
            for positions in by_length(lengths, _EVAL_ROWS, _EVAL_TOKENS):
                out[positions] = self.read([encoded[i] for i in positions]).cpu()
        return out
