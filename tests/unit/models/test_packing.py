"""Packing: which token stands where, with padding and without."""

from __future__ import annotations

import pytest
import torch

from lyra_nli.models.packing import Packing

LENGTHS = (3, 5, 1)


def mask_of(lengths: tuple[int, ...]) -> torch.Tensor:
    return (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).long()


def states(mask: torch.Tensor) -> torch.Tensor:
    """Every place holds its own number."""
    return torch.arange(mask.numel()).view(*mask.shape, 1).float()


def test_tight_tokens_are_those_of_the_rows_in_their_order():
    mask = mask_of(LENGTHS)
    packing = Packing.tight(mask)
    packed = packing.pack(states(mask))
    assert packed[: sum(LENGTHS), 0].tolist() == [0, 1, 2, 5, 6, 7, 8, 9, 10]
    assert packed[packing.starts, 0].tolist() == [0, 5, 10]
    assert packing.blocked.tolist() == (mask == 0).tolist()


def test_every_token_finds_its_place_again():
    mask = mask_of(LENGTHS)
    packing = Packing.tight(mask)
    back = packing.pack(states(mask))[packing.places].view_as(states(mask))
    assert torch.equal(back[mask == 1], states(mask)[mask == 1])


@pytest.mark.parametrize("lengths", [LENGTHS, (1, 2), tuple(range(1, 40))])
def test_there_are_few_numbers_of_tokens(lengths):
    packing = Packing.tight(mask_of(lengths))
    assert packing.tokens % 128 == 0
    assert 0 <= packing.tokens - sum(lengths) < 128
    assert len(packing.pack(states(mask_of(lengths)))) == packing.tokens


def test_rows_of_one_length_have_nothing_to_leave_out():
    mask = mask_of((4, 4))
    packing = Packing.tight(mask)
    assert (packing.tokens, packing.real, packing.blocked) == (8, None, None)
    assert packing.pack(states(mask))[:, 0].tolist() == list(range(8))


def test_padded_keeps_every_place_a_token():
    mask = mask_of(LENGTHS)
    packing = Packing.padded(mask)
    assert packing.tokens == mask.numel()
    assert packing.pack(states(mask))[packing.starts, 0].tolist() == [0, 5, 10]
    assert packing.blocked.tolist() == (mask == 0).tolist()
