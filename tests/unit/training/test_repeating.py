"""Repeating: one seed draws alike, and everything is put back after a training."""

from __future__ import annotations

import pytest
import torch

from lyra_nli.training.repeating import deterministic, rounding


def test_everything_is_put_back_afterwards():
    threads, state = torch.get_num_threads(), torch.random.get_rng_state()

    def fail() -> None:
        with deterministic(3, threads + 1):
            assert torch.get_num_threads() == threads + 1
            assert torch.are_deterministic_algorithms_enabled()
            torch.rand(5)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert torch.get_num_threads() == threads
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.equal(torch.random.get_rng_state(), state)


def test_the_seed_decides_what_is_drawn():
    drawn = []
    for seed in (3, 3, 4):
        with deterministic(seed, None):
            drawn.append(torch.rand(5))
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_what_products_round_by_has_a_name(monkeypatch):
    here = rounding(2)
    assert rounding(2) == here
    assert rounding(3) != here
    assert rounding(None) == rounding(torch.get_num_threads())
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_f": "another"})
    assert rounding(2) != here
    monkeypatch.undo()
    monkeypatch.setattr(torch, "__version__", "9.9")
    assert rounding(2) != here
