"""Pair encoding: nothing injected, the hypothesis whole, all problems at once."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lyra_nli.errors import InputError
from lyra_nli.models import encoding
from lyra_nli.models.base import Base, load_base
from lyra_nli.models.encoding import (
    EncodedPair,
    by_length,
    collate,
    encode,
    misfits,
    padded_length,
)
from lyra_nli.records import Example, Pair

SPELT = ["[SEP]", "[CLS]", "[PAD]", "[MASK]", "[UNK]", "</s>", "<s>", "<pad>", "<mask>", "<unk>"]
WORDS = [
    "drug",
    "risk",
    ".",
    "\u202e\u05e9\u05dc\u05d5\u05dd",
    "مرحبا",
    "😀",
    "👩‍👩‍👧",
    "\x00",
    "\u0301",
    "薬",
    "\ufeff",
]

texts = st.lists(st.sampled_from(SPELT + WORDS), min_size=1, max_size=12).flatmap(
    lambda words: st.sampled_from(["", " ", "\n"]).map(lambda gap: gap.join(words))
)


def special_places(base, row: EncodedPair) -> list[tuple[int, int]]:
    """Where special tokens stand, but for the unknown word's."""
    special = set(base.tokenizer.all_special_ids) - {base.tokenizer.unk_token_id}
    return [(place, token) for place, token in enumerate(row.input_ids) if token in special]


def hypothesis_ids(base, text: str) -> tuple[int, ...]:
    return tuple(base.tokenizer(text, add_special_tokens=False)["input_ids"])


@settings(deadline=None, max_examples=60)
@given(premise=texts, hypothesis=texts, architecture=st.sampled_from(["deberta-v2", "roberta"]))
def test_no_text_injects_a_special_token(bases, premise, hypothesis, architecture):
    base = bases[architecture]
    if not (premise.strip() and hypothesis.strip()):
        return
    tokenizer = base.tokenizer

    (row,) = encode(base, [Pair(premise, hypothesis)])

    places = special_places(base, row)
    start, end = tokenizer.cls_token_id, tokenizer.sep_token_id
    assert [token for _, token in places] == [start, end, end]
    assert places[0][0] == 0
    assert places[2][0] == len(row) - 1
    assert row.token_type_ids == (0,) * (places[1][0] + 1) + (1,) * (len(row) - places[1][0] - 1)


def test_a_spelt_separator_does_not_move_words_into_the_hypothesis(base):
    joined = f"the drug {base.tokenizer.sep_token} lowers the risk"
    injected, honest = encode(base, [Pair(joined, "a man"), Pair("the drug", "lowers the risk")])
    assert injected.input_ids[-len(honest.input_ids) :] != honest.input_ids
    assert injected.input_ids.count(base.tokenizer.unk_token_id) == 1


def test_a_short_pair_stays_as_it_is(base):
    tokenizer = base.tokenizer
    (row,) = encode(base, [Pair("the drug lowers the risk", "a man is eating")])
    expected = tokenizer("the drug lowers the risk", "a man is eating", return_token_type_ids=True)
    assert row == EncodedPair(
        tuple(expected["input_ids"]), tuple(expected["token_type_ids"]), truncated=False
    )


class TestLength:
    def test_of_100_kb_the_premise_is_cut_and_the_hypothesis_is_whole(self, base):
        claim = "no significant difference between groups was found in this trial"
        long = "the drug lowers the risk of stroke " * 3000
        assert len(long) > 100_000

        row, short = encode(base, [Pair(long, claim), Pair("the drug", claim)])

        whole = hypothesis_ids(base, claim)
        assert row.truncated
        assert not short.truncated
        assert len(row) == base.max_length
        assert row.input_ids[-1 - len(whole) : -1] == whole
        assert row.input_ids[1:8] == hypothesis_ids(base, "the drug lowers the risk of stroke")

    @pytest.mark.parametrize(("more", "truncated"), [(0, False), (1, True)])
    def test_the_cut_begins_one_token_past_the_window(self, base, more, truncated):
        room = base.max_length - 3 - 2
        (row,) = encode(base, [Pair("drug " * (room + more), "a man")])
        assert row.truncated is truncated
        assert len(row) == base.max_length

    def test_hypotheses_that_leave_no_room_are_all_listed(self, base):
        room = base.max_length - 3 - 1
        pairs = [
            Pair("the drug", "risk " * (room + 1)),
            Pair("the drug", "the risk"),
            Pair("drug " * 500, "risk " * 500),
        ]
        with pytest.raises(InputError) as caught:
            encode(base, pairs)
        assert caught.value.problems == (
            f"pair 0: the hypothesis has {room + 1} tokens, at most {room} fit",
            f"pair 2: the hypothesis has 500 tokens, at most {room} fit",
        )

    def test_a_hypothesis_that_leaves_one_token_is_judged(self, base):
        room = base.max_length - 3 - 1
        (row,) = encode(base, [Pair("the drug lowers", "risk " * room)])
        assert row.truncated
        assert len(row) == base.max_length
        assert row.input_ids[1:3] == (
            hypothesis_ids(base, "the")[0],
            base.tokenizer.sep_token_id,
        )

    def test_truncation_and_padding_kept_in_the_tokenizers_file_are_ignored(
        self, deberta, tmp_path
    ):
        folder = shutil.copytree(deberta.name, tmp_path / "model")
        file = folder / "tokenizer.json"
        stored = json.loads(file.read_text("utf-8"))
        stored["truncation"] = {
            "max_length": 8,
            "strategy": "LongestFirst",
            "stride": 0,
            "direction": "Right",
        }
        stored["padding"] = {
            "strategy": {"Fixed": 100},
            "direction": "Right",
            "pad_to_multiple_of": None,
            "pad_id": 0,
            "pad_type_id": 0,
            "pad_token": "[PAD]",
        }
        file.write_text(json.dumps(stored), "utf-8")
        pairs = [Pair("drug " * 300, "the risk of stroke"), Pair("the drug", "a man")]
        assert encode(load_base(str(folder)), pairs) == encode(deberta, pairs)


class TestRefusals:
    def test_empty_and_broken_texts_are_all_listed(self, base):
        pairs = [
            Pair("", "a"),
            Pair("a", "b"),
            Pair(" \n\t\u00a0", ""),
            Pair("half \ud83d of it", "a"),
            Pair("a", "\udc00"),
        ]
        with pytest.raises(InputError) as caught:
            encode(base, pairs)
        assert caught.value.problems == (
            "pair 0: the premise is empty",
            "pair 2: the premise is empty",
            "pair 2: the hypothesis is empty",
            "pair 3: the premise holds half a surrogate pair (not valid Unicode)",
            "pair 4: the hypothesis holds half a surrogate pair (not valid Unicode)",
        )

    @pytest.mark.parametrize(
        "text", ["\x00", "\x00\x00", "😀", "\u200f\u05e9\u05dc\u05d5\u05dd", "\u0301", "…"]
    )
    def test_odd_but_valid_texts_are_encoded(self, base, text):
        row, mirrored = encode(base, [Pair(text, "the risk"), Pair("the risk", text)])
        assert len(row) >= 5
        assert len(mirrored) >= 5


def test_order_is_kept_whatever_the_lengths(base):
    pairs = [Pair("drug " * count, "the risk") for count in (3, 400, 1, 130, 2, 500)]
    assert encode(base, pairs) == [encode(base, [pair])[0] for pair in pairs]
    assert [row.truncated for row in encode(base, pairs)] == [
        False, True, False, True, False, True,
    ]  # fmt: skip


@pytest.mark.parametrize("piece", [1, 4, 6])
def test_many_pairs_are_read_piece_by_piece(base, monkeypatch, piece):
    pairs = [Pair("drug " * count, f"the risk {count}") for count in (3, 400, 1, 130, 2, 500)]
    expected = encode(base, pairs)
    read = []
    tokenize = encoding.tokenize

    def seen(base, premises, *others, **options):
        read.append(len(premises))
        return tokenize(base, premises, *others, **options)

    monkeypatch.setattr(encoding, "tokenize", seen)
    monkeypatch.setattr(encoding, "_PIECE", piece)
    assert encode(base, pairs) == expected
    assert sum(read) == 6 + 3
    assert max(read) == piece
    with pytest.raises(InputError, match="too long") as caught:
        encode(base, [*pairs, Pair("the drug", "risk " * 600)])
    assert caught.value.problems[0].startswith("pair 6: ")


def test_a_token_is_one_object_in_all_rows(base, monkeypatch):
    """A row takes eight bytes a token, not forty."""
    tokenize = encoding.tokenize

    def large(*texts, **options):  # Python itself keeps one of each small integer
        found = tokenize(*texts, **options)
        ids = [[1_000 + token for token in row] for row in found["input_ids"]]
        return {**found, "input_ids": ids}

    monkeypatch.setattr(encoding, "tokenize", large)
    rows = encode(base, [Pair("the drug lowers risk", "the risk")] * 3)
    for row in rows[1:]:
        assert all(a is b for a, b in zip(row.input_ids, rows[0].input_ids, strict=True))


def test_no_pairs_give_no_rows(base):
    assert encode(base, []) == []


class TestCollate:
    def test_pads_to_the_longest_and_masks_the_padding(self, base):
        rows = encode(base, [Pair("the drug", "a man"), Pair("the", "a")])
        batch = collate(base, rows)
        assert batch["input_ids"].shape == (2, 7)
        assert batch["input_ids"].dtype == torch.int64
        assert batch["input_ids"][0].tolist() == list(rows[0].input_ids)
        assert batch["input_ids"][1].tolist() == [
            *rows[1].input_ids, *[base.tokenizer.pad_token_id] * 2,
        ]  # fmt: skip
        assert batch["attention_mask"].tolist() == [[1] * 7, [1] * 5 + [0] * 2]

    def test_segments_go_to_models_that_read_them(self, bases):
        pair = Pair("the drug", "a man")
        batches = {name: collate(base, encode(base, [pair])) for name, base in bases.items()}
        assert batches["bert"]["token_type_ids"].tolist() == [[0, 0, 0, 0, 1, 1, 1]]
        assert "token_type_ids" not in batches["roberta"]
        assert "token_type_ids" not in batches["deberta-v2"]


@given(
    lengths=st.lists(st.integers(1, 50), max_size=40),
    rows=st.integers(1, 9),
    tokens=st.none() | st.integers(1, 200),
)
def test_passes_by_length_hold_every_row_once(lengths, rows, tokens):
    passes = list(by_length(lengths, rows, tokens))
    flat = [position for each in passes for position in each]
    assert sorted(flat) == list(range(len(lengths)))
    assert [lengths[position] for position in flat] == sorted(lengths, reverse=True)
    assert {len(each) for each in passes} <= {1, 2, 4, 8}
    assert all(len(each) <= rows for each in passes)
    if tokens:
        padded = [len(each) * padded_length(lengths[each[0]], 512) for each in passes]
        assert all(
            size <= tokens or len(each) == 1 for size, each in zip(padded, passes, strict=True)
        )


def test_rows_are_padded_to_few_lengths():
    assert {padded_length(length, 40) for length in range(1, 41)} == {16, 32, 40}


def test_misfits_are_what_encode_refuses(base: Base) -> None:
    texts = ["a short claim", "word " * base.max_length, "é" * base.max_length, "x" * 5000, " "]
    examples = [
        Example(str(i), Pair("the drug lowers risk", text), "neutral", "agreed", "")
        for i, text in enumerate(texts)
    ]
    refused = set()
    for example in examples:
        try:
            encode(base, [example.pair])
        except InputError:
            refused.add(example.id)
    assert misfits(base, examples) == refused
    assert "1" in refused
    assert "0" not in refused
