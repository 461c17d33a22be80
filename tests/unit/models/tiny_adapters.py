"""Adapters of tiny models, with weights as if they had been trained."""

from __future__ import annotations

import re

import numpy as np
import torch
from torch import nn

from lyra_nli.models.base import Base
from lyra_nli.models.encoding import collate, encode
from lyra_nli.models.lora import attach, low_rank_layers, target_pattern
from lyra_nli.records import Pair
from lyra_nli.settings import TrainingSettings

PAIRS = [
    Pair("the drug lowers the risk of stroke", "the drug works"),
    Pair("no significant difference was found", "it lowers mortality"),
    Pair("a man is eating", "the dog sleeps " * 5),
]
EVERYWHERE = TrainingSettings(rank=3, alpha=5, dropout=0.0, target_modules=("all",), layers="all")


def matched(base: Base, recipe: TrainingSettings) -> set[str]:
    """Names of the modules that the recipe adapts."""
    pattern = target_pattern(base, recipe)
    return {name for name, _ in base.model.named_modules() if re.fullmatch(pattern, name)}


def trained(
    base: Base, recipe: TrainingSettings, dtype: torch.dtype = torch.float32, seed: int = 0
) -> nn.Module:
    """The base with adapters that say something: B is not zero any more."""
    model = attach(base, recipe, dtype).eval()
    torch.manual_seed(seed)
    with torch.no_grad():
        for _, layer in low_rank_layers(model):
            layer.lora_A.normal_(std=0.3)
            layer.lora_B.normal_(std=0.3)
    return model


def logits(base: Base, model: nn.Module) -> np.ndarray:
    """What transformers' own forward pass makes of the pairs."""
    with torch.inference_mode():
        return model(**collate(base, encode(base, PAIRS))).logits.numpy()
