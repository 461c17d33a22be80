"""LoRA placement: which modules adapt, attaching for training, merging for serving.

LoRA (Hu et al. 2021, arXiv:2106.09685): W' = W + (alpha / r) * B @ A, with A [r, in] and
B [out, r].
"""

from __future__ import annotations

import copy
import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from lyra_nli.errors import AdapterInvalidError, ModelError
from lyra_nli.models.base import Base
from lyra_nli.settings import TrainingSettings

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"

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

_PREFIX = "base_model.model."

_WANTED = {"peft_type": "LORA", "bias": "none"}
_UNSUPPORTED = (
    "alora_invocation_tokens",
    "alpha_pattern",
    "fan_in_fan_out",
    "lora_bias",
    "modules_to_save",
    "rank_pattern",
    "use_bdlora",
    "use_dora",
    "use_qalora",
    "use_rslora",
)
"""PEFT's variants whose result is not W + (alpha / r) * B @ A, or that carry more tensors."""

_PLAIN_STARTS = (True, False, "gaussian", "orthogonal", "eva")
"""Ways to start A and B that leave the base's weights alone; PiSSA, OLoRA and others don't."""


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
    upper = total if recipe.layers == "all" else min(int(recipe.layers), total)
    layers = "|".join(str(index) for index in range(total - upper, total))
    modules = "|".join(re.escape(known[name]) for name in names)
    return rf".*\.encoder\.layer\.(?:{layers})\.(?:{modules})"


def attach(base: Base, recipe: TrainingSettings, dtype: torch.dtype = torch.float32) -> PeftModel:
    """A trainable copy of the base with fresh adapters; the base is never changed.

    Args:
        dtype: of the frozen matrices that training multiplies with; adapters stay fp32.
    """
    frozen = {
        name: nn.Parameter(module.weight.detach().to(dtype), requires_grad=False)
        for name, module in base.model.named_modules()
        if isinstance(module, nn.Linear) and ".encoder." in name
    }
    model = _with_weights(base.model, {f"{name}.weight": value for name, value in frozen.items()})
    config = LoraConfig(
        r=recipe.rank,
        lora_alpha=recipe.alpha,
        lora_dropout=recipe.dropout,
        target_modules=target_pattern(base, recipe),
        bias="none",
        revision=base.revision,
    )
    # PEFT writes this into adapter_config.json: the base's name, not where its files lie.
    model.name_or_path = base.name  # type: ignore[assignment]
    peft_model: PeftModel = get_peft_model(model, config, autocast_adapter_dtype=True)
    for name, parameter in peft_model.named_parameters():
        if "lora_" in name:
            parameter.data = parameter.data.float()
    return peft_model


def save_adapter(model: PeftModel, folder: Path) -> None:
    """Write the adapter in PEFT's own format: loads with plain ``PeftModel.from_pretrained``."""
    config = copy.copy(model.peft_config["default"])
    config.inference_mode = True
    config.save_pretrained(str(folder))
    # "auto" would ask the Hub whether the base's vocabulary was resized; ours never is.
    tensors = get_peft_model_state_dict(model, save_embedding_layers=False)
    tensors = {name: value.detach().float().cpu().contiguous() for name, value in tensors.items()}
    save_file(tensors, folder / WEIGHTS_FILE, metadata={"format": "pt"})


def adapted_model(base: Base, adapter_dir: Path) -> nn.Module:
    """The base with an adapter merged in.

    Only touched matrices are new tensors, built in float32; all others are the base's own.

    Raises:
        AdapterInvalidError: naming everything that is wrong with the adapter's files.
    """
    adapter = read_adapter(base, adapter_dir)
    weights = {}
    for module, (a, b) in adapter.matrices.items():
        weight = base.model.get_parameter(f"{module}.weight")
        merged = torch.addmm(weight.detach(), b, a, alpha=adapter.scale)
        weights[f"{module}.weight"] = nn.Parameter(merged, requires_grad=False)
    return _with_weights(base.model, weights)


@dataclass(frozen=True)
class Adapter:
    """A checked adapter: module name -> (A [r, in], B [out, r]) in float32, and alpha / r."""

    matrices: Mapping[str, tuple[torch.Tensor, torch.Tensor]]
    scale: float


def read_adapter(base: Base, adapter_dir: Path) -> Adapter:
    """Read and check a PEFT LoRA adapter against the base it is for.

    Raises:
        AdapterInvalidError: naming everything that is wrong.
    """
    config = _read_config(adapter_dir)
    try:
        tensors = load_file(adapter_dir / WEIGHTS_FILE)
    except (OSError, SafetensorError) as error:
        raise AdapterInvalidError(
            f"{adapter_dir / WEIGHTS_FILE} can't be read: {error}",
            hint="Only safetensors are read; pickles never are.",
        ) from error
    rank = int(config["r"])
    modules = _targets(base.model, config["target_modules"])
    shapes: dict[str, tuple[int, int]] = {}
    for name in modules:
        rows, columns = base.model.get_parameter(f"{name}.weight").shape
        shapes[f"{_PREFIX}{name}.lora_A.weight"] = (rank, columns)
        shapes[f"{_PREFIX}{name}.lora_B.weight"] = (rows, rank)
    problems = [f"{key}: missing" for key in sorted(shapes.keys() - tensors.keys())]
    problems += [f"{key}: not expected" for key in sorted(tensors.keys() - shapes.keys())]
    for key in sorted(shapes.keys() & tensors.keys()):
        if tuple(tensors[key].shape) != shapes[key]:
            problems.append(f"{key}: shape {tuple(tensors[key].shape)}, expected {shapes[key]}")
        elif not torch.isfinite(tensors[key]).all():
            problems.append(f"{key}: holds NaN or infinite values")
    if not modules:
        problems.append("target_modules match nothing in the base model")
    if problems:
        raise AdapterInvalidError(
            f"the adapter in {adapter_dir} does not fit the base model {base.name}",
            problems=problems,
        )
    matrices = {
        name: (
            tensors[f"{_PREFIX}{name}.lora_A.weight"].float(),
            tensors[f"{_PREFIX}{name}.lora_B.weight"].float(),
        )
        for name in modules
    }
    return Adapter(matrices=matrices, scale=float(config["lora_alpha"]) / rank)


def _read_config(adapter_dir: Path) -> dict[str, Any]:
    file = adapter_dir / CONFIG_FILE
    try:
        config = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise AdapterInvalidError(f"{file} can't be read: {error}") from error
    if isinstance(config, dict):
        problems = [*_variant_problems(config), *_value_problems(config)]
    else:
        problems = ["it holds no JSON object"]
    if problems:
        raise AdapterInvalidError(f"{file} is not a LoRA adapter we serve", problems=problems)
    return dict(config)


def _variant_problems(config: Mapping[str, Any]) -> Iterator[str]:
    for key, value in _WANTED.items():
        if config.get(key) != value:
            yield f"{key} is {config.get(key)!r}, only {value!r} is served"
    for key in _UNSUPPORTED:
        if config.get(key):
            yield f"{key} is set, which is not served"
    if config.get("init_lora_weights", True) not in _PLAIN_STARTS:
        yield f"init_lora_weights is {config['init_lora_weights']!r}: it changed the base's weights"


def _value_problems(config: Mapping[str, Any]) -> Iterator[str]:
    for key, kinds in (("r", int), ("lora_alpha", (int, float)), ("target_modules", (str, list))):
        if not isinstance(config.get(key), kinds) or isinstance(config[key], bool):
            yield f"{key} is missing or of a wrong type: {config.get(key)!r}"
    if isinstance(config.get("r"), int) and config["r"] < 1:
        yield f"r is {config['r']}, must be at least 1"
    if isinstance(config.get("lora_alpha"), float) and not math.isfinite(config["lora_alpha"]):
        yield f"lora_alpha is {config['lora_alpha']}, must be finite"
    if isinstance(config.get("target_modules"), str):
        try:
            re.compile(config["target_modules"])
        except re.error as error:
            yield f"target_modules is no regular expression: {error}"


def _targets(model: nn.Module, wanted: str | list[str]) -> list[str]:
    """Linear modules that PEFT's rule selects: a full match, or one of the names or suffixes."""

    def chosen(name: str) -> bool:
        if isinstance(wanted, str):
            return re.fullmatch(wanted, name) is not None
        return any(name == item or name.endswith(f".{item}") for item in wanted)

    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and chosen(name)
    ]


def _with_weights(model: nn.Module, weights: Mapping[str, nn.Parameter]) -> nn.Module:
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
