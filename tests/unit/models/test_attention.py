"""Attention in one step: against the formula written out, and its gradients against differences."""

import math

import pytest
import torch

from lyra_nli.models.attention import attend
from lyra_nli.models.packing import Packing

ROWS, LENGTH, HEADS, SIZE = 2, 5, 2, 6


def written_out(query, key, value, c2p, p2c, blocked, scale):
    """He et al. (2021), eq. 4, a pair of tokens at a time."""
    asked = query.shape[1]
    query, key, value = (x.unflatten(2, (HEADS, -1)) for x in (query, key, value))
    context = torch.empty_like(query)
    for row in range(len(query)):
        for head in range(HEADS):
            for i in range(asked):
                scores = []
                for j in range(LENGTH):
                    q, k = query[row, i, head], key[row, j, head]
                    score = q @ k
                    if c2p is not None:
                        score = score + q @ c2p[head, :, j - i + asked - 1]
                    if p2c is not None:
                        score = score + k @ p2c[head, :, i - j + LENGTH - 1]
                    hidden = blocked is not None and blocked[row, j]
                    scores.append(-math.inf * torch.ones(()) if hidden else scale * score)
                chances = torch.stack(scores).softmax(0)
                context[row, i, head] = chances @ value[row, :, head]
    return context.flatten(2)


def inputs(asked, kinds):
    torch.manual_seed(asked)
    states = [torch.randn(ROWS, n, HEADS * SIZE).double() for n in (asked, LENGTH, LENGTH)]
    columns = LENGTH + asked - 1
    tables = [
        torch.randn(HEADS, SIZE, columns).double() if kind in kinds else None
        for kind in ("c2p", "p2c")
    ]
    return [None if x is None else x.requires_grad_() for x in (*states, *tables)]


MASKS = {
    "equally long": torch.ones(ROWS, LENGTH),
    "one shorter": torch.tensor([[1] * LENGTH, [1] * 3 + [0] * 2]),
}


def attended(given, packing, **options):
    """Padded states in, and out: [rows, asked, size]; 0 where no token stands."""
    query, key, value, *tables = given
    asked = query.shape[1]
    query = query.flatten(0, 1) if asked < LENGTH else packing.pack(query)
    context = attend(query, packing.pack(key), packing.pack(value), *tables, packing, **options)
    if asked == LENGTH and packing.real is not None:
        empty = context.new_zeros(ROWS * LENGTH, HEADS * SIZE)
        assert not context[len(packing.real) :].any()
        context = empty.index_add(0, packing.real, context[: len(packing.real)])
    return context.view(ROWS, asked, -1)


@pytest.mark.parametrize("kinds", [("c2p", "p2c"), ("c2p",), ("p2c",), ()], ids=str)
@pytest.mark.parametrize("asked", [LENGTH, 1])
@pytest.mark.parametrize("pack", [Packing.padded, Packing.tight])
@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
def test_it_is_the_formula(asked, kinds, pack, mask):
    given, packing = inputs(asked, kinds), pack(mask)
    expected = written_out(*given, mask == 0, 0.3)
    if packing.real is not None:
        expected = expected * mask[:, :asked, None]
    torch.testing.assert_close(attended(given, packing, heads=HEADS, scale=0.3), expected)


@pytest.mark.parametrize("asked", [LENGTH, 1])
@pytest.mark.parametrize("pack", [Packing.padded, Packing.tight])
@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
def test_gradients_are_what_small_differences_say(asked, pack, mask):
    given, packing = inputs(asked, ("c2p", "p2c")), pack(mask)
    options = {"heads": HEADS, "scale": 0.3}
    assert torch.autograd.gradcheck(lambda *x: attended(x, packing, **options), given)


def test_frozen_tables_get_no_gradient():
    query, key, value, c2p, p2c = inputs(LENGTH, ("c2p", "p2c"))
    packing = Packing.tight(MASKS["one shorter"])
    context = attended((query, key, value, c2p.detach(), p2c), packing, heads=HEADS, scale=0.3)
    context.sum().backward()
    assert c2p.grad is None
    assert p2c.grad.abs().max() > 0
