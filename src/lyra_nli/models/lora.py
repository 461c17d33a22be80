"""LoRA placement: which modules adapt, and a trainable copy of the base with them in place."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn

from lyra_nli.errors import ModelError
from lyra_nli.models.base import Base
from lyra_nli.models.encoder import is_disentangled
from lyra_nli.models.low_rank import LowRankLinear
from lyra_nli.settings import TrainingSettings

_ATTENTION_OUT = {
    "attention_output": "attention.output.dense",
    "intermediate": "intermediate.dense",
    "output": "output.dense",
}
_MODULES: Mapping[str, Mapping[str, str]] = {
    "deberta-v2": {
        "query": "attention.self.query_proj",
        "key": "attention.self.key_proj",
        "value": "attention.self.value_proj",
        **_ATTENTION_OUT,
    },
    "bert": {
        "query": "attention.self.query",
        "key": "attention.self.key",
        "value": "attention.self.value",
        **_ATTENTION_OUT,
    },
}
_MODULES = {**_MODULES, "roberta": _MODULES["bert"]}


def target_pattern(base: Base, recipe: TrainingSettings) -> str:
    """The regular expression that PEFT full-matches to find the modules to adapt.

    A pattern rather than a list: it says exactly which layers, and never reaches the pooler.

    Raises:
        ModelError: for an architecture or module name that is not known, with what exists.
    """
    config: Any = base.model.config
    known = _MODULES.get(str(config.model_type))
    if known is None:
        raise ModelError(
            f"LoRA placement is not known for the architecture {config.model_type!r}",
            hint=f"Known: {', '.join(sorted(_MODULES))}.",
        )
    names = list(known) if recipe.target_modules == ("all",) else list(recipe.target_modules)
    wrong = [name for name in names if name not in known]
    if wrong:
        raise ModelError(
            f"{config.model_type} has no module(s) {', '.join(wrong)}",
            hint=f"training.target_modules may hold: all, {', '.join(known)}.",
        )
    total = int(config.num_hidden_layers)
    lower = total - recipe.learning_layers(total)
    layers = "|".join(str(index) for index in range(lower, total))
    modules = "|".join(re.escape(known[name]) for name in names)
    return rf".*\.encoder\.layer\.(?:{layers})\.(?:{modules})"


def attach(base: Base, recipe: TrainingSettings, dtype: torch.dtype = torch.float32) -> nn.Module:
    """A trainable copy of the base with fresh adapters; the base is never changed.

    Args:
        dtype: of the frozen matrices that training multiplies with; adapters stay float32.
    """
    # DeBERTa's encoder runs in one type throughout; others get the types autocast wants.
    whole = is_disentangled(base.model)
    kinds = (nn.Linear, nn.LayerNorm, nn.Embedding) if whole else (nn.Linear,)
    narrowed = {
        f"{name}.{key}": nn.Parameter(parameter.detach().to(dtype), requires_grad=False)
        for name, module in base.model.named_modules()
        if isinstance(module, kinds) and ".encoder." in name
        for key, parameter in module.named_parameters(recurse=False)
        if key == "weight" or whole
    }
    model = with_weights(base.model, narrowed)
    pattern = target_pattern(base, recipe)
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.Linear) and re.fullmatch(pattern, name):
            scale = recipe.alpha / recipe.rank
            layer = LowRankLinear(module, recipe.rank, scale, recipe.dropout)
            model.set_submodule(name, layer)
    return model


def low_rank_layers(model: nn.Module) -> Iterator[tuple[str, LowRankLinear]]:
    """The layers that learn, by name."""
    for name, module in model.named_modules():
        if isinstance(module, LowRankLinear):
            yield name, module


def first_adapted_layer(model: nn.Module) -> int:
    """The lowest encoder layer that learns: below it nothing changes while training."""
    numbers = (re.search(r"\.layer\.(\d+)\.", name) for name, _ in low_rank_layers(model))
    return min(int(found[1]) for found in numbers if found)


def with_weights(model: nn.Module, weights: Mapping[str, nn.Parameter]) -> nn.Module:
    """A second module tree over the same tensors, but for those in `weights`.

    ``deepcopy`` asks its memo before it copies: naming every tensor there makes it copy the
    structure alone. Parameters are new objects over the old storage: ``Module.to`` moves a
    parameter in place, and must not take the other tree's with it.
    """
    memo: dict[int, Any] = {id(buffer): buffer for buffer in model.buffers()}
    for name, parameter in model.named_parameters():
        shared = nn.Parameter(parameter.detach(), requires_grad=False)
        memo[id(parameter)] = weights.get(name, shared)
    return copy.deepcopy(model, memo)
