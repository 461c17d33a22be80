"""An adapter's files, in PEFT's own format: written, and read back with every check."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from lyra_nli.errors import AdapterInvalidError
from lyra_nli.models.base import Base
from lyra_nli.models.lora import low_rank_layers, target_pattern, with_weights
from lyra_nli.settings import TrainingSettings

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"

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


def save_adapter(
    base: Base, model: nn.Module, recipe: TrainingSettings, folder: Path, strength: float = 1.0
) -> None:
    """Write what `model` learned: loads with plain ``PeftModel.from_pretrained``.

    Args:
        strength: factor on what the adapter adds; it becomes part of ``lora_alpha``.
    """
    config = LoraConfig(
        r=recipe.rank,
        lora_alpha=recipe.alpha * strength,
        lora_dropout=recipe.dropout,
        target_modules=target_pattern(base, recipe),
        bias="none",
        revision=base.revision,
        # The base's name, not where its files lie.
        base_model_name_or_path=base.name,
        inference_mode=True,
    )
    config.save_pretrained(str(folder))
    tensors = {
        f"{_PREFIX}{name}.lora_{side}.weight": getattr(layer, f"lora_{side}").detach()
        for name, layer in low_rank_layers(model)
        for side in ("A", "B")
    }
    tensors = {name: value.float().cpu().contiguous() for name, value in tensors.items()}
    save_file(tensors, folder / WEIGHTS_FILE, metadata={"format": "pt"})


def merged_model(base: Base, adapter: Adapter) -> nn.Module:
    """The base with an adapter merged in.

    Only touched matrices are new tensors, built in float32; all others are the base's own.
    """
    weights = {}
    for module, (a, b) in adapter.matrices.items():
        weight = base.model.get_parameter(f"{module}.weight")
        merged = torch.addmm(weight.detach(), b, a, alpha=adapter.scale)
        weights[f"{module}.weight"] = nn.Parameter(merged, requires_grad=False)
    return with_weights(base.model, weights)


@dataclass(frozen=True)
class Adapter:
    """A checked adapter: module name -> (A [r, in], B [out, r]) in float32, and alpha / r."""

    matrices: Mapping[str, tuple[torch.Tensor, torch.Tensor]]
    scale: float

    def to(self, device: torch.device) -> Adapter:
        """The same on another device."""
        moved = {name: (a.to(device), b.to(device)) for name, (a, b) in self.matrices.items()}
        return Adapter(moved, self.scale)


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
