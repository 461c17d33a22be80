"""LoRA placement, and a trainable copy of the base that shares its weights."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from tiny_adapters import EVERYWHERE, logits, matched, trained
from torch import nn

from lyra_nli.errors import ModelError
from lyra_nli.models.base import fingerprint, load_base
from lyra_nli.models.lora import attach, first_adapted_layer, low_rank_layers, target_pattern
from lyra_nli.models.low_rank import LowRankLinear
from lyra_nli.settings import TrainingSettings

ATTENTION = ("query", "key", "value", "attention_output")
LAYER = {
    "deberta-v2": "deberta.encoder.layer.{}.attention.self.query_proj",
    "bert": "bert.encoder.layer.{}.attention.self.query",
    "roberta": "roberta.encoder.layer.{}.attention.self.query",
}


class TestPlacement:
    def test_the_proposals_modules(self, bases):
        recipe = TrainingSettings(target_modules=("query", "value"), layers="all")
        found = matched(bases["deberta-v2"], recipe)
        assert found == {
            f"deberta.encoder.layer.{layer}.attention.self.{name}_proj"
            for layer in (0, 1)
            for name in ("query", "value")
        }

    @pytest.mark.parametrize("architecture", ["bert", "roberta"])
    def test_bert_and_roberta_have_their_own_names(self, bases, architecture):
        recipe = TrainingSettings(target_modules=(*ATTENTION, "intermediate", "output"), layers=1)
        assert matched(bases[architecture], recipe) == {
            f"{architecture}.encoder.layer.1.{name}"
            for name in (
                "attention.self.query",
                "attention.self.key",
                "attention.self.value",
                "attention.output.dense",
                "intermediate.dense",
                "output.dense",
            )
        }

    def test_all_means_every_linear_of_the_encoder_and_no_other(self, base):
        linears = {
            name
            for name, module in base.model.named_modules()
            if isinstance(module, torch.nn.Linear)
        }
        found = matched(base, EVERYWHERE)
        assert found == {name for name in linears if ".encoder.layer." in name}
        assert {name for name in linears - found if "pooler" in name or "classifier" in name}

    @pytest.mark.parametrize(
        ("layers", "places"), [("half", [1]), (1, [1]), (2, [0, 1]), (99, [0, 1])]
    )
    def test_layers_counts_from_the_top(self, bases, layers, places):
        for architecture, base in bases.items():
            recipe = TrainingSettings(target_modules=("query",), layers=layers)
            assert matched(base, recipe) == {LAYER[architecture].format(i) for i in places}

    def test_unknown_names_are_listed_with_what_exists(self, base):
        recipe = TrainingSettings(target_modules=("query", "query_proj", "dense"))
        with pytest.raises(ModelError) as caught:
            target_pattern(base, recipe)
        assert "query_proj, dense" in caught.value.message
        for name in (*ATTENTION, "intermediate", "output"):
            assert name in caught.value.hint

    def test_an_unknown_architecture_is_refused(self, deberta, tmp_path):
        other = load_base(str(shutil.copytree(deberta.name, tmp_path / "m")))
        other.model.config.model_type = "albert"
        with pytest.raises(ModelError, match="albert") as caught:
            target_pattern(other, TrainingSettings())
        assert "bert, deberta-v2, roberta" in caught.value.hint

    @pytest.mark.parametrize("wrong", [{"layers": 0}, {"target_modules": ()}])
    def test_a_recipe_that_adapts_nothing_is_refused(self, wrong):
        with pytest.raises(ValidationError):
            TrainingSettings(**wrong)


class TestAttach:
    def test_only_the_adapters_learn(self, base):
        model = attach(base, EVERYWHERE)
        open_ = {name for name, p in model.named_parameters() if p.requires_grad}
        assert open_ == {
            f"{name}.lora_{side}" for name in matched(base, EVERYWHERE) for side in "AB"
        }

    def test_the_modules_of_the_recipe_are_replaced_and_no_other(self, base):
        recipe = TrainingSettings(
            rank=3, alpha=5, dropout=0.1, target_modules=("query", "output"), layers=1
        )
        model = attach(base, recipe)
        found = dict(low_rank_layers(model))
        assert set(found) == matched(base, recipe)
        for name, module in base.model.named_modules():
            kind = LowRankLinear if name in found else type(module)
            assert type(model.get_submodule(name)) is kind, name
        for layer in found.values():
            assert (layer.lora_A.shape[0], layer.scale, layer.dropout) == (3, 5 / 3, 0.1)

    @pytest.mark.parametrize(("layers", "first"), [("all", 0), (2, 0), (1, 1)])
    def test_the_first_layer_that_learns_is_known(self, base, layers, first):
        assert first_adapted_layer(attach(base, TrainingSettings(layers=layers))) == first

    def test_a_fresh_adapter_changes_no_answer(self, base):
        np.testing.assert_array_equal(
            logits(base, attach(base, EVERYWHERE).eval()), logits(base, base.model)
        )

    def test_the_base_stays_as_it_is_whatever_happens_to_the_copy(self, base):
        before = logits(base, base.model)
        model = trained(base, EVERYWHERE)
        assert np.abs(logits(base, model) - before).max() > 0.05
        model.train()
        model.to(torch.float64)  # as `.to("cuda")`: moves parameters in place
        np.testing.assert_array_equal(logits(base, base.model), before)
        assert fingerprint(base.model) == base.fingerprint
        assert {p.dtype for p in base.model.parameters()} == {torch.float32}
        assert not any(module.training for module in base.model.modules())
        assert not any(isinstance(module, LowRankLinear) for module in base.model.modules())

    def test_frozen_weights_take_no_memory_of_their_own(self, base):
        own = {p.data_ptr() for p in base.model.parameters()}
        model = attach(base, EVERYWHERE)
        frozen = {p.data_ptr() for p in model.parameters() if not p.requires_grad}
        assert frozen == own

    def test_debertas_encoder_takes_the_wanted_type_and_nothing_else_does(self, deberta):
        model = attach(deberta, EVERYWHERE, torch.bfloat16)
        for name, parameter in model.named_parameters():
            narrow = ".encoder." in name and "lora_" not in name
            assert parameter.dtype == (torch.bfloat16 if narrow else torch.float32), name

    @pytest.mark.parametrize("architecture", ["bert", "roberta"])
    def test_elsewhere_only_matrices_do(self, bases, architecture):
        model = attach(bases[architecture], EVERYWHERE, torch.bfloat16)
        linears = (nn.Linear, LowRankLinear)
        matrices = {
            f"{name}.weight"
            for name, module in model.named_modules()
            if isinstance(module, linears) and ".encoder." in name
        }
        narrow = {n for n, p in model.named_parameters() if p.dtype == torch.bfloat16}
        assert narrow == matrices
