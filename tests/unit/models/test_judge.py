"""Judging: the right label for the right pair, whatever the batch and the class order."""

from __future__ import annotations

import itertools
import json
import random
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from tiny_adapters import EVERYWHERE, trained
from tiny_models import make_tiny_model

from lyra_nli.errors import InputError
from lyra_nli.labels import LABELS
from lyra_nli.models.adapter import read_adapter, save_adapter
from lyra_nli.models.base import load_base
from lyra_nli.models.judge import Judge, softmax
from lyra_nli.records import Pair

VOCABULARY = "the drug lowers risk of stroke in adults a man is eating and dog sleeps 12 % trial"


@pytest.fixture(scope="module")
def pairs() -> list[Pair]:
    """Pairs of many lengths, some longer than the window."""
    rng = random.Random(3)
    words = VOCABULARY.split()
    return [
        Pair(
            " ".join(rng.choices(words, k=rng.choice([1, 4, 9, 30, 70, 200]))),
            " ".join(rng.choices(words, k=rng.randint(1, 12))),
        )
        for _ in range(45)
    ]


def by_transformers(base, pairs: list[Pair]) -> np.ndarray:
    """Logits as transformers gives them, one pair at a time, columns in our order."""
    rows = []
    for pair in pairs:
        encoded = base.tokenizer(
            pair.premise,
            pair.hypothesis,
            truncation="only_first",
            max_length=base.max_length,
            return_tensors="pt",
        )
        with torch.inference_mode():
            rows.append(base.model(**encoded).logits[0, list(base.labels.order)].numpy())
    return np.stack(rows)


def test_logits_are_transformers_own_in_the_order_of_the_labels(base, pairs):
    np.testing.assert_allclose(
        Judge(base, batch_size=8).logits(pairs), by_transformers(base, pairs), atol=1e-5, rtol=1e-5
    )


def test_the_batch_size_does_not_matter(base, pairs):
    alone = Judge(base, batch_size=1).logits(pairs)
    for size in (2, 7, 64):
        np.testing.assert_allclose(Judge(base, batch_size=size).logits(pairs), alone, atol=1e-5)


def test_the_order_of_the_pairs_does_not_matter(base, pairs):
    forth = Judge(base).logits(pairs)
    back = Judge(base).logits(pairs[::-1])
    np.testing.assert_allclose(back[::-1], forth, atol=1e-5)


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_a_model_with_another_class_order_says_the_same(bases, pairs, tmp_path, order):
    base = bases["bert"]
    folder = shutil.copytree(base.name, tmp_path / "model")
    tensors = load_file(folder / "model.safetensors")
    for name in ("classifier.weight", "classifier.bias"):
        tensors[name] = tensors[name][list(order)].contiguous()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    names = [config["id2label"][str(index)].upper() for index in order]
    config["id2label"] = dict(enumerate(names))
    config["label2id"] = {name: index for index, name in enumerate(names)}
    (folder / "config.json").write_text(json.dumps(config))

    permuted, original = Judge(load_base(str(folder))).judge(pairs), Judge(base).judge(pairs)

    assert [one.label for one in permuted] == [one.label for one in original]
    assert [one.raw_label.lower() for one in permuted] == [one.raw_label for one in original]
    for one, other in zip(permuted, original, strict=True):
        assert one.probabilities == pytest.approx(other.probabilities, abs=1e-6)


def test_a_judgement_says_all_of_itself(base, pairs):
    judge = Judge(base, adapter="lora-lyra-v7")
    judgements = judge.judge(pairs)
    assert len({one.label for one in judgements}) > 1  # the pairs are no trivial case
    for one, logits in zip(judgements, judge.logits(pairs), strict=True):
        assert list(one.probabilities) == list(LABELS)
        assert sum(one.probabilities.values()) == pytest.approx(1)
        assert one.label == LABELS[int(logits.argmax())]
        assert one.confidence == one.probabilities[one.label] == max(one.probabilities.values())
        assert {"entailment": "supports", "contradiction": "refutes", "neutral": "neutral"}[
            one.raw_label
        ] == one.label
        assert one.adapter == "lora-lyra-v7"
    assert [one.truncated for one in judgements] == [
        len(base.tokenizer(pair.premise, pair.hypothesis)["input_ids"]) > base.max_length
        for pair in pairs
    ]
    assert any(one.truncated for one in judgements)


def test_another_model_is_judged_with_when_given(deberta, pairs, tmp_path):
    other = load_base(str(make_tiny_model(tmp_path, seed=5)))
    own, given = Judge(deberta).logits(pairs), Judge(deberta, other.model).logits(pairs)
    np.testing.assert_array_equal(given, Judge(other).logits(pairs))
    assert np.abs(given - own).max() > 0.1


def test_an_adapter_is_judged_with_beside_its_base(base, pairs, tmp_path):
    save_adapter(base, trained(base, EVERYWHERE), EVERYWHERE, tmp_path)
    plain = Judge(base)
    before = plain.logits(pairs)
    adapted = plain.adapted(read_adapter(base, tmp_path), "lora-lyra-v1")

    peer = PeftModel.from_pretrained(load_base(base.name).model, str(tmp_path)).eval()
    expected = by_transformers(replace(base, model=peer), pairs)
    np.testing.assert_allclose(adapted.logits(pairs), expected, atol=1e-4)
    assert adapted.judge(pairs[:1])[0].adapter == "lora-lyra-v1"
    assert np.abs(expected - before).max() > 0.05
    np.testing.assert_array_equal(plain.logits(pairs), before)


def test_a_model_that_still_learns_is_judged_with_as_it_is_by_now(deberta, pairs):
    student = trained(deberta, EVERYWHERE)
    expected = by_transformers(replace(deberta, model=student), pairs)
    np.testing.assert_allclose(Judge(deberta, student).logits(pairs), expected, atol=1e-4)
    assert np.abs(expected - Judge(deberta).logits(pairs)).max() > 0.05


def test_no_pairs_have_no_judgements(base):
    assert Judge(base).judge([]) == []
    assert Judge(base).logits([]).shape == (0, 3)


def test_progress_counts_every_pair_once(deberta, pairs):
    seen: list[int] = []
    Judge(deberta, batch_size=10).logits(pairs, progress=seen.append)
    assert seen == [8, 8, 8, 8, 8, 4, 1]


def test_one_bad_pair_is_named_and_nothing_is_guessed(base, pairs):
    with pytest.raises(InputError) as caught:
        Judge(base).judge([*pairs, Pair("", "a")])
    assert caught.value.problems == (f"pair {len(pairs)}: the premise is empty",)


def test_softmax_survives_large_logits():
    rows = softmax(np.array([[1e4, 0, -1e4], [-1e4, -1e4, -1e4]], dtype=np.float32))
    np.testing.assert_allclose(rows, [[1, 0, 0], [1 / 3, 1 / 3, 1 / 3]])
    assert rows.dtype == np.float64
