"""The engine: transformers' logits from frozen weights, and versions of any kind in one batch."""

from __future__ import annotations

import copy
import random

import pytest
import torch
from peft import PeftModel
from test_encoder import SHAPES, make_batch, make_model
from tiny_adapters import EVERYWHERE, PAIRS, trained

from lyra_nli.models import engine as engine_module
from lyra_nli.models.adapter import read_adapter, save_adapter
from lyra_nli.models.base import fingerprint, load_base
from lyra_nli.models.encoding import EncodedPair, collate, encode
from lyra_nli.models.engine import DebertaEngine, engine_of
from lyra_nli.records import Pair
from lyra_nli.settings import TrainingSettings

TABLES = {name: shape for name, shape in SHAPES.items() if name != "content alone"}
LENGTHS = [1, 2, 3, 17, 17, 64, 100, 128]


def encoded(lengths, *, segments=False) -> list[EncodedPair]:
    batch = make_batch(lengths, segments=segments)
    kinds = batch.get("token_type_ids", torch.zeros_like(batch["input_ids"]))
    return [
        EncodedPair(tuple(ids[:n].tolist()), tuple(kind[:n].tolist()), truncated=False)
        for ids, kind, n in zip(batch["input_ids"], kinds, lengths, strict=True)
    ]


@pytest.mark.parametrize("shape", TABLES.values(), ids=TABLES)
@pytest.mark.parametrize("lengths", [*([n] for n in LENGTHS), LENGTHS], ids=str)
def test_it_gives_the_logits_of_transformers(shape, lengths):
    model = make_model(**shape)
    segments = "type_vocab_size" in shape
    with torch.inference_mode():
        expected = model(**make_batch(lengths, segments=segments)).logits
    engine = DebertaEngine(model, 128, torch.float32)
    got = engine.logits(encoded(lengths, segments=segments), [None] * len(lengths))
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)


def test_another_activation_is_taken_as_it_is():
    model = make_model(hidden_act="relu")
    with torch.inference_mode():
        expected = model(**make_batch([5, 9])).logits
    got = DebertaEngine(model, 128, torch.float32).logits(encoded([5, 9]), [None, None])
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)


def test_narrow_products_stay_near():
    model, rows = make_model(), encoded(LENGTHS)
    exact, narrow = (
        DebertaEngine(model, 128, dtype).logits(rows, [None] * len(rows))
        for dtype in (torch.float32, torch.bfloat16)
    )
    assert not torch.equal(exact, narrow)
    torch.testing.assert_close(narrow.softmax(-1), exact.softmax(-1), atol=0.05, rtol=0)


def test_a_row_does_not_hang_on_its_company():
    engine, rows = DebertaEngine(make_model(), 128, torch.float32), encoded(LENGTHS)
    together = engine.logits(rows, [None] * len(rows))
    alone = torch.cat([engine.logits([row], [None]) for row in rows])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)


@pytest.fixture
def versions(base, tmp_path):
    """Folders of adapters in different places of the base."""
    recipes = [
        EVERYWHERE,
        EVERYWHERE.model_copy(update={"target_modules": ("key",), "rank": 3}),
        EVERYWHERE.model_copy(update={"target_modules": ("query", "output"), "layers": 1}),
    ]
    folders = []
    for number, recipe in enumerate(recipes):
        folder = tmp_path / str(number)
        folder.mkdir()
        save_adapter(base, trained(base, recipe), recipe, folder)
        folders.append(folder)
    return folders


def by_peft(base, folder, rows) -> torch.Tensor:
    model = copy.deepcopy(base.model)
    if folder is not None:
        model = PeftModel.from_pretrained(model, str(folder)).eval()
    with torch.inference_mode():
        return torch.cat([model(**collate(base, [row])).logits for row in rows])


class TestVersions:
    def test_a_mixed_batch_gives_what_each_version_gives_by_peft(self, base, versions):
        pairs = [*PAIRS, *(Pair(pair.hypothesis, pair.premise) for pair in PAIRS)]
        rows = [row for row in encode(base, pairs) for _ in range(4)]
        random.Random(0).shuffle(rows)
        owners = [None, *versions]
        engine = engine_of(base)
        ready = {folder: folder and engine.variant(read_adapter(base, folder)) for folder in owners}
        chosen = [owners[i % 4] for i in range(len(rows))]
        got = engine.logits(rows, [ready[folder] for folder in chosen])
        for folder in owners:
            own = [i for i, other in enumerate(chosen) if other is folder]
            expected = by_peft(base, folder, [rows[i] for i in own])
            torch.testing.assert_close(got[own], expected, atol=1e-4, rtol=1e-4)
            if folder is not None:
                plain = by_peft(base, None, [rows[i] for i in own])
                assert (expected - plain).abs().max() > 0.01

    @pytest.mark.parametrize("base", ["bert", "roberta"], indirect=True)
    def test_a_long_row_pads_few_others(self, base, versions, monkeypatch):
        """A server fills batches by tokens, and other architectures pad."""
        rows = encode(base, [Pair("the drug lowers the risk of stroke " * 30, "it works"), *PAIRS])
        engine = engine_of(base)
        variant = engine.variant(read_adapter(base, versions[0]))
        expected = engine.logits(rows, [variant, *[None] * len(PAIRS)])
        passes = []
        whole = engine._judged

        def judged(model, some):
            passes.append([len(row) for row in some])
            return whole(model, some)

        monkeypatch.setattr(engine, "_judged", judged)
        monkeypatch.setattr(engine_module, "_PLAIN_TOKENS", 2 * max(map(len, rows[1:])))
        got = engine.logits(rows, [variant, *[None] * len(PAIRS)])
        torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)
        assert passes[0] == [len(rows[0])]
        assert all(len(some) * max(some) <= engine_module._PLAIN_TOKENS for some in passes[1:])
        assert sorted(n for some in passes[1:] for n in some) == sorted(map(len, rows[1:]))
        assert max(map(len, passes)) > 1

    def test_the_base_is_left_alone(self, base, versions):
        before, rows = fingerprint(base.model), encode(base, PAIRS)
        engine = engine_of(base)
        plain = engine.logits(rows, [None] * len(rows))
        for folder in versions:
            variant = engine.variant(read_adapter(base, folder))
            engine.logits(rows, [variant] * len(rows))
        assert torch.equal(engine.logits(rows, [None] * len(rows)), plain)
        assert fingerprint(base.model) == before

    def test_a_head_may_adapt_too(self, deberta, tmp_path):
        from peft import LoraConfig, get_peft_model

        torch.manual_seed(1)
        config = LoraConfig(
            r=2,
            target_modules=["pooler.dense", "classifier"],
            init_lora_weights=False,
            bias="none",
        )
        get_peft_model(load_base(deberta.name).model, config).save_pretrained(str(tmp_path))
        rows, engine = encode(deberta, PAIRS), engine_of(deberta)
        got = engine.logits(
            rows, [engine.variant(read_adapter(deberta, tmp_path)), *[None] * (len(rows) - 1)]
        )
        torch.testing.assert_close(
            got[:1], by_peft(deberta, tmp_path, rows[:1]), atol=1e-4, rtol=1e-4
        )
        torch.testing.assert_close(got[1:], by_peft(deberta, None, rows[1:]), atol=1e-4, rtol=1e-4)

    def test_a_version_of_deberta_takes_little_memory(self, deberta, tmp_path):
        recipe = TrainingSettings(rank=2, target_modules=("value",), layers="all")
        save_adapter(deberta, trained(deberta, recipe), recipe, tmp_path)
        variant = engine_of(deberta).variant(read_adapter(deberta, tmp_path))
        # Two layers; A is [2, 32]; B lies in the 96 outputs of query, key and value.
        assert variant.own_bytes == 2 * (2 * 32 + 2 * 96) * 4
