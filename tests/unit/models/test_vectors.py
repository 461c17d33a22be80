"""Vectors: what a base makes of a pair, whatever stands beside it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lyra_nli.models.encoding import collate, encode
from lyra_nli.models.judge import Judge
from lyra_nli.records import Pair

PAIRS = [
    Pair("the drug lowers the risk of stroke in adults", "the drug works"),
    Pair("eating", "man"),
    Pair("the trial does not raise it", "the table is a dog"),
]


@pytest.mark.parametrize("name", ["deberta-v2", "bert", "roberta"])
def test_the_answers_are_those_of_the_base(bases, name):
    vectors, logits = Judge(bases[name]).vectors(PAIRS)
    assert vectors.shape == (3, 2 * bases[name].model.config.hidden_size)
    assert logits == pytest.approx(Judge(bases[name]).logits(PAIRS), abs=1e-5)


def test_padding_does_not_count(deberta):
    together, _ = Judge(deberta).vectors(PAIRS)
    alone = np.concatenate([Judge(deberta).vectors([pair])[0] for pair in PAIRS])
    assert together == pytest.approx(alone, abs=1e-5)


def test_the_middle_and_the_end(deberta):
    """By hand, of one pair: mean of the tokens in the middle, the first token at the end."""
    with torch.no_grad():
        batch = collate(deberta, encode(deberta, PAIRS[:1]))
        states = deberta.model(**batch, output_hidden_states=True).hidden_states
    middle = states[(len(states) - 1) // 2][0].mean(dim=0)
    expected = torch.cat([middle, states[-1][0, 0]]).numpy()
    assert Judge(deberta).vectors(PAIRS[:1])[0][0] == pytest.approx(expected, abs=1e-5)


def test_nothing_gives_nothing(deberta):
    vectors, logits = Judge(deberta).vectors([])
    assert (len(vectors), logits.shape) == (0, (0, 3))


def test_a_pass_holds_few_tokens(deberta, monkeypatch):
    """Where transformers reads, every layer's states of a pass are in memory together."""
    judge, passes = Judge(deberta), []
    read = judge._engine.vectors
    monkeypatch.setattr(
        judge._engine, "vectors", lambda rows: passes.append(len(rows)) or read(rows)
    )
    monkeypatch.setattr("lyra_nli.models.judge._VECTOR_TOKENS", 16)
    judge.vectors(PAIRS)
    assert passes == [1, 1, 1]
