"""Other devices: nothing of the engine stays on the CPU, and a GPU says the same."""

from __future__ import annotations

import copy

import pytest
import torch
from test_encoder import make_model
from test_engine import encoded
from tiny_adapters import EVERYWHERE, PAIRS, trained

from lyra_nli.models.adapter import read_adapter, save_adapter
from lyra_nli.models.base import Base, blank_model, load_base, reach_of
from lyra_nli.models.encoding import encode
from lyra_nli.models.engine import DebertaEngine, engine_of, expected_bytes

gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU here")


@pytest.fixture
def version(base: Base, tmp_path):
    save_adapter(base, trained(base, EVERYWHERE), EVERYWHERE, tmp_path)
    return read_adapter(base, tmp_path)


def test_every_tensor_follows_the_model_to_its_device(deberta, tmp_path):
    """On the meta device there is no data, and no tensor of another device may meet its own."""
    save_adapter(deberta, trained(deberta, EVERYWHERE), EVERYWHERE, tmp_path)
    adapter = read_adapter(deberta, tmp_path)
    model = copy.deepcopy(deberta.model).to("meta")
    rows = encode(deberta, PAIRS)
    for dtype in (torch.float32, torch.bfloat16):
        engine = DebertaEngine(model, 128, dtype)
        variant = engine.variant(adapter)
        tensors = [t for low in variant.sites.values() for t in (low.down, low.up)]
        tensors += [t for table in variant.tables.values() for t in table]
        assert {t.device.type for t in tensors} == {"meta"}
        # All is computed; what fails is to read the logits, which are nowhere.
        with pytest.raises(NotImplementedError, match="Cannot copy out of meta tensor"):
            engine.logits(rows, [None, variant, variant])


def test_a_tensor_that_stays_behind_is_noticed(deberta):
    """The test above can fail."""
    engine = DebertaEngine(copy.deepcopy(deberta.model).to("meta"), 128, torch.float32)
    here = DebertaEngine(deberta.model, 128, torch.float32)
    engine._layers[1] = here._layers[1]
    with pytest.raises(RuntimeError, match="CPU tensor"):
        engine.logits(encode(deberta, PAIRS), [None] * 3)


def test_a_consumed_model_answers_the_same_and_is_smaller():
    model, rows = make_model(), encoded([5, 9, 64])
    expected = DebertaEngine(model, 128, torch.float32).logits(rows, [None] * 3)
    whole = DebertaEngine(model, 128, torch.float32).base_bytes
    engine = DebertaEngine(model, 128, torch.float32, consume=True)
    assert torch.equal(engine.logits(rows, [None] * 3), expected)
    linear = model.deberta.encoder.layer[0].intermediate.dense
    assert linear.weight.device.type == "meta"
    assert linear.weight.shape == (linear.out_features, linear.in_features)
    freed = sum(
        module.weight.numel() * 4
        for layer in model.deberta.encoder.layer
        for module in layer.modules()
        if isinstance(module, torch.nn.Linear)
    )
    assert whole - engine.base_bytes == freed > 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_a_base_will_take_is_known_from_its_configuration(base, dtype):
    blank = blank_model(base.name)
    assert all(parameter.device.type == "meta" for parameter in blank.parameters())
    expected = expected_bytes(blank, reach_of(blank.config, 512), dtype)
    fresh = load_base(base.name)
    assert engine_of(fresh, dtype, consume=True).base_bytes == expected


def test_a_consumed_base_takes_versions(base, version):
    fresh, rows = load_base(base.name), encode(base, PAIRS)
    expected = engine_of(base).logits(rows, [engine_of(base).variant(version)] * 3)
    engine = engine_of(fresh, consume=True)
    assert torch.equal(engine.logits(rows, [engine.variant(version)] * 3), expected)


@gpu
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-3), (torch.bfloat16, 0.05), (torch.float16, 0.02)]
)
def test_a_gpu_gives_the_probabilities_of_the_cpu(base, version, dtype, tolerance):
    rows = encode(base, PAIRS)
    here, there = engine_of(base), load_base(base.name)
    there.model.to("cuda")
    engine = engine_of(there, dtype, consume=True)
    for one, other in ((None, None), (here.variant(version), engine.variant(version))):
        expected, got = here.logits(rows, [one] * 3), engine.logits(rows, [other] * 3)
        assert got.device.type == "cpu"
        torch.testing.assert_close(got.softmax(-1), expected.softmax(-1), atol=tolerance, rtol=0)
