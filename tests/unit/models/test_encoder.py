"""The fast forward pass: transformers' own logits and gradients, with less work."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from tiny_adapters import EVERYWHERE, trained
from torch import nn
from transformers import DebertaV2Config, DebertaV2ForSequenceClassification

from lyra_nli.models.encoder import DebertaForward, forward_of
from lyra_nli.models.lora import attach, low_rank_layers
from lyra_nli.settings import TrainingSettings

SHAPES = {
    "v3": {},
    "wide buckets": {"position_buckets": 256},
    "no buckets": {"position_buckets": -1, "max_relative_positions": 24},
    "own position matrices": {"share_att_key": False},
    "c2p alone": {"pos_att_type": ["c2p"]},
    "p2c alone": {"pos_att_type": ["p2c"]},
    "content alone": {"pos_att_type": []},
    "no norm of positions": {"norm_rel_ebd": "none"},
    "absolute positions too": {"position_biased_input": True},
    "segments": {"type_vocab_size": 2},
    "one layer": {"num_hidden_layers": 1},
}


def make_model(**shape: object) -> DebertaV2ForSequenceClassification:
    torch.manual_seed(0)
    config = {
        "vocab_size": 50,
        "hidden_size": 32,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "intermediate_size": 48,
        "max_position_embeddings": 128,
        "type_vocab_size": 0,
        "relative_attention": True,
        "position_buckets": 16,
        "norm_rel_ebd": "layer_norm",
        "share_att_key": True,
        "pos_att_type": ["p2c", "c2p"],
        "position_biased_input": False,
        "pooler_hidden_size": 32,
        "num_labels": 3,
        "initializer_range": 0.3,
        **shape,
    }
    return DebertaV2ForSequenceClassification(DebertaV2Config(**config)).eval()


def make_batch(lengths: Sequence[int], *, segments: bool = False) -> dict[str, torch.Tensor]:
    """Random tokens of these lengths, padded to the longest."""
    torch.manual_seed(sum(lengths))
    longest = max(lengths)
    mask = torch.tensor([[1] * n + [0] * (longest - n) for n in lengths])
    batch = {
        "input_ids": torch.randint(5, 50, (len(lengths), longest)) * mask,
        "attention_mask": mask,
    }
    if segments:
        batch["token_type_ids"] = (torch.arange(longest) > longest // 2).long() * mask
    return batch


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_logits_are_transformers_own(shape):
    model = make_model(**shape)
    forward = forward_of(model)
    assert isinstance(forward, DebertaForward)
    # Short after long: a table made for one length must serve the next.
    for lengths in ([3, 3], [128, 5, 60], [1], [17, 33, 2, 40], [70]):
        batch = make_batch(lengths, segments="type_vocab_size" in shape)
        with torch.inference_mode():
            torch.testing.assert_close(forward(**batch), model(**batch).logits, rtol=0, atol=2e-5)


def test_gradients_are_transformers_own(deberta):
    gradients = []
    for fast in (True, False):
        model = trained(deberta, EVERYWHERE)
        forward = forward_of(model)
        for lengths in ([40, 3], [9, 30, 4]):  # the second one meets tables made by the first
            batch = make_batch(lengths)
            logits = forward(**batch) if fast else model(**batch).logits
            nn.functional.cross_entropy(logits, torch.arange(len(lengths))).backward()
        gradients.append({n: p.grad for n, p in model.named_parameters() if p.requires_grad})
    fast_ones, own = gradients
    assert fast_ones.keys() == own.keys()
    for name, gradient in own.items():
        assert gradient.abs().max() > 1e-3, name
        torch.testing.assert_close(fast_ones[name], gradient, rtol=1e-3, atol=2e-5, msg=name)


def test_adapters_that_learn_are_read_anew_at_every_call(deberta):
    """The tables kept are of the frozen weights alone."""
    model = trained(deberta, EVERYWHERE)
    forward = forward_of(model)
    batch = make_batch([12, 20])
    with torch.no_grad():
        before = forward(**batch)
        for _, layer in low_rank_layers(model):
            layer.lora_B.mul_(1.5)
        torch.testing.assert_close(forward(**batch), model(**batch).logits, rtol=0, atol=2e-5)
        assert (forward(**batch) - before).abs().max() > 1e-3


@pytest.mark.parametrize("shape", [{}, {"norm_rel_ebd": "none"}, {"pos_att_type": ["c2p"]}])
def test_the_lower_and_the_upper_layers_make_the_whole(shape):
    model = make_model(**shape)
    batch = make_batch([3, 40, 17])
    mask = batch["attention_mask"]
    with torch.inference_mode():
        forward = DebertaForward(model)
        whole = forward(**batch)
        for layer in range(forward.layers):
            lower = DebertaForward(model).lower(layer, **batch)
            assert lower.shape == (3, 40, 32)
            torch.testing.assert_close(forward.upper(layer, lower, mask), whole)


def test_the_layers_below_are_transformers_own():
    model = make_model()
    batch = make_batch([3, 40, 17])
    with torch.inference_mode():
        states = model(**batch, output_hidden_states=True).hidden_states
        real = batch["attention_mask"].bool()
        for layer in range(3):
            own = DebertaForward(model).lower(layer, **batch)
            torch.testing.assert_close(own[real], states[layer][real], rtol=0, atol=2e-5)


def test_training_may_follow_judging(deberta):
    """What inference mode made must not stand in the way of gradients."""
    with torch.inference_mode():
        forward_of(deberta.model)(**make_batch([23, 29]))
    model = attach(deberta, TrainingSettings(layers="all"))
    forward = forward_of(model)
    with torch.no_grad():
        forward(**make_batch([23, 29]))
    forward(**make_batch([23, 29])).sum().backward()


def test_the_model_is_not_changed(deberta):
    before = {name: tensor.clone() for name, tensor in deberta.model.state_dict().items()}
    with torch.inference_mode():
        forward_of(deberta.model)(**make_batch([11, 40]))
    after = deberta.model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("architecture", ["bert", "roberta"])
def test_other_architectures_run_as_they_are(bases, architecture):
    model = bases[architecture].model
    batch = make_batch([7, 12])
    with torch.inference_mode():
        assert torch.equal(forward_of(model)(**batch), model(**batch).logits)


@pytest.mark.parametrize(
    "shape",
    [{"relative_attention": False, "position_biased_input": True}, {"conv_kernel_size": 3}],
    ids=["absolute", "convolution"],
)
def test_other_kinds_of_deberta_run_as_they_are(shape):
    model = make_model(**shape)
    forward = forward_of(model)
    assert not isinstance(forward, DebertaForward)
    batch = make_batch([7, 12])
    with torch.inference_mode():
        assert torch.equal(forward(**batch), model(**batch).logits)
