"""Pair encoding: texts -> token ids, with the hypothesis whole and no injected tokens."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from lyra_nli.errors import InputError
from lyra_nli.models.base import Base
from lyra_nli.records import Example, Pair

_STEP = 16

_PIECE = 1024
"""Pairs that a tokenizer reads at once: what it says of them takes kilobytes a pair."""


@dataclass(frozen=True, slots=True)
class EncodedPair:
    """One pair as token ids; ``truncated`` tells that the premise was cut to fit."""

    input_ids: tuple[int, ...]
    token_type_ids: tuple[int, ...]
    truncated: bool

    def __len__(self) -> int:
        return len(self.input_ids)


def encode(base: Base, pairs: Sequence[Pair]) -> list[EncodedPair]:
    """Encode pairs as the base model was trained to read them.

    The premise is cut where a pair is longer than ``base.max_length``; the hypothesis never
    is. Text that spells a special token (``[SEP]``, ``</s>``) is read as an unknown word.

    Raises:
        InputError: listing every pair whose text is empty, is not valid Unicode, or whose
            hypothesis alone leaves no room for a premise.
    """
    problems = [p for index, pair in enumerate(pairs) for p in _text_problems(index, pair)]
    if problems:
        raise InputError(f"{len(problems)} text(s) can't be judged", problems=problems)
    rows = list(_read(base, pairs))
    long = [i for i, row in enumerate(rows) if len(row) > base.max_length]
    _refuse_long_hypotheses(base, pairs, long)
    cut = _read(base, [pairs[i] for i in long], truncation="only_first", max_length=base.max_length)
    for i, row in zip(long, cut, strict=True):
        rows[i] = replace(row, truncated=True)
    return rows


def misfits(base: Base, examples: Sequence[Example]) -> frozenset[str]:
    """Ids of the examples that `encode` would refuse for this base."""
    return frozenset(example.id for example in examples if misfit(base, example.pair))


def misfit(base: Base, pair: Pair) -> list[str]:
    """What `encode` would say against this pair; nothing when it fits."""
    problems = [*_text_problems(0, pair)] or [*_length_problems(base, 0, pair)]
    return [problem.removeprefix("pair 0: ") for problem in problems]


def collate(
    base: Base, rows: Sequence[EncodedPair], length: int | None = None
) -> dict[str, torch.Tensor]:
    """Pad rows to `length`, or the longest: int64 tensors [rows, length] that a model takes."""
    length = length or max(len(row) for row in rows)
    pad = base.tokenizer.pad_token_id
    batch = {
        "input_ids": torch.tensor([[*r.input_ids, *[pad] * (length - len(r))] for r in rows]),
        "attention_mask": torch.tensor([[1] * len(r) + [0] * (length - len(r)) for r in rows]),
    }
    if "token_type_ids" in base.tokenizer.model_input_names:
        batch["token_type_ids"] = torch.tensor(
            [[*r.token_type_ids, *[0] * (length - len(r))] for r in rows]
        )
    return batch


def padded_length(length: int, most: int) -> int:
    """Tokens that rows of a length are padded to, at most `most`.

    Every shape of a product wants a kernel of its own, which takes longer to compile than a few
    tokens more take to multiply: few lengths, few shapes.
    """
    return min(-(-length // _STEP) * _STEP, most)


def by_length(lengths: Sequence[int], rows: int, tokens: int | None = None) -> Iterator[list[int]]:
    """Positions of rows in passes of similar length, longest first: little padding, few shapes.

    Args:
        lengths: tokens of each row.
        rows: that a pass may hold; it holds a power of two of them.
        tokens: padded tokens a pass may hold, if it is more than one row.
    """
    order = sorted(range(len(lengths)), key=lambda index: -lengths[index])
    start = 0
    while start < len(order):
        longest = padded_length(lengths[order[start]], sys.maxsize)
        room = min(rows, max(1, tokens // longest)) if tokens else rows
        count = 1 << (min(room, len(order) - start).bit_length() - 1)
        yield order[start : start + count]
        start += count


def tokenize(
    base: Base, premises: Sequence[str], hypotheses: Sequence[str], **options: Any
) -> Mapping[str, Any]:
    """What the base's tokenizer makes of pairs, for `unbroken`; whole unless options say else."""
    encoded: Mapping[str, Any] = base.tokenizer(
        list(premises),
        list(hypotheses),
        **{"truncation": False, **options},
        return_special_tokens_mask=True,
        return_token_type_ids=True,
        verbose=False,
    )
    return encoded


def unbroken(base: Base, encoded: Mapping[str, Any], row: int) -> EncodedPair:
    """One row of what `tokenize` gave, in which no text spells a special token."""
    ids, mask = encoded["input_ids"][row], encoded["special_tokens_mask"][row]
    special, unknown = set(base.tokenizer.all_special_ids), base.tokenizer.unk_token_id
    return EncodedPair(
        input_ids=tuple(
            unknown if token in special and not placed else token
            for token, placed in zip(ids, mask, strict=True)
        ),
        token_type_ids=tuple(encoded["token_type_ids"][row]),
        truncated=False,
    )


def _read(base: Base, pairs: Sequence[Pair], **options: Any) -> Iterator[EncodedPair]:
    """Pairs as token ids, piece by piece."""
    number: dict[int, int] = {}  # an id is one object, however many rows have it
    for start in range(0, len(pairs), _PIECE):
        piece = pairs[start : start + _PIECE]
        texts = [pair.premise for pair in piece], [pair.hypothesis for pair in piece]
        encoded = tokenize(base, *texts, **options)
        for row in range(len(piece)):
            found = unbroken(base, encoded, row)
            yield replace(found, input_ids=tuple(number.setdefault(i, i) for i in found.input_ids))


def _text_problems(index: int, pair: Pair) -> Iterator[str]:
    for name, text in (("premise", pair.premise), ("hypothesis", pair.hypothesis)):
        if not text.strip():
            yield f"pair {index}: the {name} is empty"
        elif any("\ud800" <= char <= "\udfff" for char in text):
            yield f"pair {index}: the {name} holds half a surrogate pair (not valid Unicode)"


def _refuse_long_hypotheses(base: Base, pairs: Sequence[Pair], suspects: Sequence[int]) -> None:
    problems = [p for index in suspects for p in _length_problems(base, index, pairs[index])]
    if problems:
        raise InputError(
            "hypotheses are never cut, and these are too long for the model",
            problems=problems,
            hint="Split the claim into shorter ones.",
        )


def _length_problems(base: Base, index: int, pair: Pair) -> Iterator[str]:
    # One token at least must be left of the premise, or the pair says nothing.
    room = base.max_length - base.tokenizer.num_special_tokens_to_add(pair=True) - 1
    if 2 * len(pair.hypothesis.encode()) <= room:  # at most one token a byte and a word mark
        return
    ids = base.tokenizer(pair.hypothesis, add_special_tokens=False, verbose=False)
    if (count := len(ids["input_ids"])) > room:
        yield f"pair {index}: the hypothesis has {count} tokens, at most {room} fit"
