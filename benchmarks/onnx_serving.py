"""ONNX Runtime with the base's own weights, in float32 or int8: the peer of `serving`."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from onnxruntime.quantization import QuantType, quantize_dynamic
from torch import nn

from lyra_nli.models.base import Base


class _Logits(nn.Module):
    """Takes and gives plain tensors, as the exporter wants them."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.model(input_ids=input_ids, attention_mask=attention_mask).logits
        return logits


def exported(
    base: Base, threads: int, *, int8: bool = False
) -> Callable[[Mapping[str, torch.Tensor]], NDArray[Any]]:
    """Export to ONNX, and give what judges a padded batch: logits [rows, classes].

    Args:
        int8: weights quantised, and activations as they come (dynamic quantisation).
    """
    ids = torch.ones(2, 16, dtype=torch.long)
    axes = {0: "rows", 1: "length"}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.onnx"
        torch.onnx.export(
            _Logits(base.model).eval(),  # else the exporter leaves the base in training mode
            (ids, ids),
            file,
            input_names=["input_ids", "attention_mask"],
            output_names=["logits"],
            dynamic_axes={"input_ids": axes, "attention_mask": axes},
            dynamo=False,
        )
        if int8:
            whole, file = file, Path(folder) / "int8.onnx"
            quantize_dynamic(whole, file, weight_type=QuantType.QInt8)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        # Its threads wait in a loop for the next call, on the cores that the others need.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        session = onnxruntime.InferenceSession(str(file), options, ["CPUExecutionProvider"])

    def judge(batch: Mapping[str, torch.Tensor]) -> NDArray[Any]:
        names = ("input_ids", "attention_mask")
        inputs = {name: batch[name].numpy().astype(np.int64) for name in names}
        logits: NDArray[Any] = session.run(None, inputs)[0]
        return logits

    return judge
