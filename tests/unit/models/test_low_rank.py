"""The layer that learns: PEFT's LoRA, in one autograd step."""

from __future__ import annotations

import re

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from tiny_adapters import EVERYWHERE, PAIRS, trained
from torch import nn
from torch.nn import functional

from lyra_nli.models.base import Base, load_base
from lyra_nli.models.encoder import forward_of
from lyra_nli.models.encoding import collate, encode
from lyra_nli.models.lora import attach, low_rank_layers, target_pattern
from lyra_nli.models.low_rank import LowRankLinear
from lyra_nli.settings import TrainingSettings

TARGETS = torch.tensor([0, 1, 2])


def layer_of(
    *,
    bias: bool = True,
    dropout: float = 0.0,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
) -> LowRankLinear:
    """12 -> 7 numbers by rank 3, scale 2; A and B say something."""
    torch.manual_seed(seed)
    layer = LowRankLinear(
        nn.Linear(12, 7, bias=bias).to(dtype).requires_grad_(False), 3, 2.0, dropout
    )
    nn.init.normal_(layer.lora_B)
    return layer.eval()


def plain(layer: LowRankLinear, x: torch.Tensor, low: torch.Tensor) -> torch.Tensor:
    """The formula in the module's text, with autograd's own backward pass."""
    y = functional.linear(x, layer.weight, layer.bias)
    return y + layer.scale * (low @ layer.lora_A.T) @ layer.lora_B.T


def peft_twin(base: Base, model: nn.Module, recipe: TrainingSettings) -> PeftModel:
    """PEFT's own model with the same A and B."""
    config = LoraConfig(
        r=recipe.rank,
        lora_alpha=recipe.alpha,
        lora_dropout=recipe.dropout,
        target_modules=target_pattern(base, recipe),
        bias="none",
    )
    twin = get_peft_model(load_base(base.name).model, config).eval()
    with torch.no_grad():
        for name, layer in low_rank_layers(model):
            own = twin.base_model.model.get_submodule(name)
            own.lora_A["default"].weight.copy_(layer.lora_A)
            own.lora_B["default"].weight.copy_(layer.lora_B)
    return twin


def gradients(model: nn.Module, logits: torch.Tensor) -> dict[str, torch.Tensor]:
    """Of A and B, by our names."""
    functional.cross_entropy(logits.float(), TARGETS).backward()
    return {
        re.sub(r"^base_model\.model\.|\.default\.weight$", "", name): parameter.grad
        for name, parameter in model.named_parameters()
        if parameter.grad is not None
    }


def alike(one: torch.Tensor, other: torch.Tensor) -> float:
    """Cosine between two tensors."""
    return functional.cosine_similarity(one.flatten(), other.flatten(), dim=0).item()


class TestAgainstPeft:
    def test_logits_and_gradients_are_pefts(self, base):
        model = trained(base, EVERYWHERE)
        twin = peft_twin(base, model, EVERYWHERE)
        batch = collate(base, encode(base, PAIRS))
        own, theirs = model(**batch).logits, twin(**batch).logits
        torch.testing.assert_close(own, theirs, rtol=0, atol=1e-5)

        ours, expected = gradients(model, own), gradients(twin, theirs)
        assert ours.keys() == expected.keys()
        assert len(ours) == 2 * 12
        for name, gradient in expected.items():
            assert gradient.abs().max() > 1e-4, name
            torch.testing.assert_close(ours[name], gradient, rtol=1e-3, atol=1e-5, msg=name)

    def test_bfloat16_is_close_to_pefts_float32(self, base):
        recipe = EVERYWHERE.model_copy(update={"alpha": 1.0})
        model = trained(base, recipe, torch.bfloat16)
        twin = peft_twin(base, model, recipe)
        batch = collate(base, encode(base, PAIRS))
        own, theirs = forward_of(model)(**batch), twin(**batch).logits
        assert (own - theirs).abs().max() < 0.05 * theirs.abs().max()

        ours, expected = gradients(model, own), gradients(twin, theirs)
        assert ours.keys() == expected.keys()
        assert {gradient.dtype for gradient in ours.values()} == {torch.float32}
        whole = [torch.cat([g[name].flatten() for name in expected]) for g in (ours, expected)]
        assert alike(*whole) > 0.99

    def test_a_fresh_one_starts_as_pefts_does(self, deberta):
        """A is uniform of PEFT's width, B zero."""
        torch.manual_seed(0)
        model = attach(deberta, TrainingSettings(rank=64, layers="all"))
        twin = get_peft_model(
            load_base(deberta.name).model, LoraConfig(r=64, target_modules=["query_proj"])
        )
        name = "deberta.encoder.layer.0.attention.self.query_proj"
        a = model.get_submodule(name).lora_A
        theirs = twin.base_model.model.get_submodule(name).lora_A["default"].weight
        assert a.shape == theirs.shape
        assert a.abs().max().item() == pytest.approx(theirs.abs().max().item(), rel=0.01)
        assert a.std().item() == pytest.approx(theirs.std().item(), rel=0.05)
        assert not any(layer.lora_B.any() for _, layer in low_rank_layers(model))


class TestProduct:
    @pytest.mark.parametrize("shape", [(5, 12), (2, 3, 12), (2, 1, 3, 12)], ids=str)
    @pytest.mark.parametrize("bias", [True, False])
    @pytest.mark.parametrize("learns_below", [True, False])
    def test_every_gradient_is_the_formulas(self, shape, bias, learns_below):
        layer = layer_of(bias=bias)
        found = []
        for way in (layer, lambda x: plain(layer, x, x)):
            torch.manual_seed(1)
            x = torch.randn(shape, requires_grad=learns_below)
            y = way(x)
            layer.zero_grad()
            (y * torch.randn(y.shape)).sum().backward()
            found.append((y, layer.lora_A.grad, layer.lora_B.grad, x.grad))
        for own, expected in zip(*found, strict=True):
            if expected is not None:
                torch.testing.assert_close(own, expected, rtol=1e-4, atol=1e-5)
            else:
                assert own is None

    def test_dropout_reaches_the_adapter_alone(self):
        layer = layer_of(dropout=0.4).train()
        found = []
        for way in (
            layer,
            lambda x: plain(layer, x, functional.dropout(x, 0.4)),
        ):
            torch.manual_seed(1)
            x = torch.randn(6, 12, requires_grad=True)
            y = way(x)
            layer.zero_grad()
            y.square().sum().backward()
            found.append((y, layer.lora_A.grad, layer.lora_B.grad, x.grad))
        for own, expected in zip(*found, strict=True):
            torch.testing.assert_close(own, expected, rtol=1e-4, atol=1e-5)

    def test_dropout_works_in_training_only(self):
        layer, x = layer_of(dropout=0.5), torch.randn(8, 12)
        assert torch.equal(layer(x), layer(x))
        torch.testing.assert_close(layer(x), plain(layer, x, x))
        layer.train()
        assert not torch.equal(layer(x), layer(x))
        assert not torch.equal(layer.low_rank(x), layer.low_rank(x))
        assert torch.equal(layer.frozen(x), layer.frozen(x))

    def test_no_dropout_draws_no_random_number(self):
        layer = layer_of(dropout=0.0).train()
        before = torch.random.get_rng_state()
        layer(torch.randn(2, 12, generator=torch.Generator().manual_seed(0)))
        assert torch.equal(torch.random.get_rng_state(), before)

    def test_frozen_and_low_rank_make_the_whole(self):
        layer, x = layer_of(), torch.randn(2, 5, 12)
        torch.testing.assert_close(layer.frozen(x) + layer.low_rank(x), layer(x))
        torch.testing.assert_close(layer.frozen(x), functional.linear(x, layer.weight, layer.bias))
        assert layer.low_rank(x).abs().max() > 0.1

    def test_gradients_of_the_parts_are_those_of_the_whole(self):
        layer, x = layer_of(), torch.randn(4, 12)
        found = []
        for way in (layer, lambda x: layer.frozen(x) + layer.low_rank(x)):
            layer.zero_grad()
            way(x).square().sum().backward()
            found.append((layer.lora_A.grad, layer.lora_B.grad))
        torch.testing.assert_close(*found)

    def test_the_frozen_weight_gets_no_gradient_and_keeps_its_storage(self):
        linear = nn.Linear(12, 7)
        before = linear.weight.detach().clone()
        layer = LowRankLinear(linear, 3, 2.0, 0.0)
        assert layer.weight is linear.weight
        layer(torch.randn(4, 12)).square().sum().backward()
        assert linear.weight.grad is None
        assert linear.bias.grad is None
        assert torch.equal(linear.weight, before)

    def test_fresh_it_is_the_linear(self):
        linear, x = nn.Linear(12, 7), torch.randn(4, 12)
        assert torch.equal(LowRankLinear(linear, 3, 2.0, 0.0)(x), linear(x))

    def test_bfloat16_products_with_a_float32_adapter(self):
        x = torch.randn(9, 12)
        found = []
        for dtype in (torch.float32, torch.bfloat16):
            layer = layer_of(dtype=dtype)
            y = layer(x)
            assert y.dtype == dtype
            y.float().square().sum().backward()
            assert layer.lora_A.dtype == layer.lora_A.grad.dtype == torch.float32
            found.append((y.detach().float(), layer.lora_A.grad, layer.lora_B.grad))
        for own, narrow in zip(*found, strict=True):
            assert (own - narrow).abs().max() < 0.03 * own.abs().max()
