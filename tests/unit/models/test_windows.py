"""Windows: nothing of a long premise is left out, and the piece that says most decides."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from lyra_nli.errors import InputError
from lyra_nli.labels import LABELS
from lyra_nli.models import windows
from lyra_nli.models.encoding import collate, encode
from lyra_nli.models.judge import Judge, softmax
from lyra_nli.models.windows import Windows, cut
from lyra_nli.records import Pair

TEXT = "the drug lowers risk of stroke in adults a man is eating no trial difference"
WORDS = TEXT.split()
SHORT = Pair("the drug lowers the risk", "the drug works")


def long_pair(words: int = 400, claim: str = "the drug lowers mortality", seed: int = 0) -> Pair:
    rng = random.Random(seed)
    return Pair(" ".join(rng.choices(WORDS, k=words)), claim)


def plain(base, text: str) -> list[int]:
    ids: list[int] = base.tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


def test_what_fits_is_one_row_as_ever(base):
    pairs = [SHORT, Pair("a man is eating", "the dog sleeps")]
    found = cut(base, pairs, 16)
    assert found == Windows(encode(base, pairs), [0, 1], [None, None])


def test_without_windows_a_long_premise_is_truncated(base):
    found = cut(base, [long_pair()], None)
    assert [row.truncated for row in found.rows] == [True]
    assert found.spans == [None]


@pytest.mark.parametrize("overlap", [0, 16, 50, 10_000])
def test_windows_hold_the_whole_premise_and_the_hypothesis_each(base, overlap):
    pair = long_pair()
    premise, claim = plain(base, pair.premise), plain(base, pair.hypothesis)
    room = base.max_length - base.tokenizer.num_special_tokens_to_add(pair=True) - len(claim)
    found = cut(base, [SHORT, pair, SHORT], overlap)
    assert found.owners[0] == 0
    assert found.owners[-1] == 2
    own = [place for place, owner in enumerate(found.owners) if owner == 1]
    assert own == list(range(1, len(found.rows) - 1))
    seen: list[int] = []
    for place in own:
        row, span = found.rows[place], found.spans[place]
        text = pair.premise[slice(*span)]
        assert len(row) <= base.max_length
        # Read alone, the characters that are named give the very row: claim, types and all.
        assert encode(base, [Pair(text, pair.hypothesis)]) == [row]
        piece = plain(base, text)
        shared = min(overlap, room // 2) if seen else 0
        assert seen[len(seen) - shared :] == piece[:shared]
        seen += piece[shared:]
    assert seen == premise


def test_the_first_window_is_what_truncation_keeps(base):
    pair = long_pair()
    [truncated], found = encode(base, [pair]), cut(base, [pair], 16)
    assert found.rows[0].input_ids == truncated.input_ids
    assert found.rows[0].token_type_ids == truncated.token_type_ids
    assert found.spans[0][0] == 0
    assert found.spans[-1][1] == len(pair.premise)


def test_a_premise_of_one_token_too_much_has_two_windows(base):
    room = base.max_length - base.tokenizer.num_special_tokens_to_add(pair=True) - 2
    fits, over = (Pair("drug " * n, "a man") for n in (room, room + 1))
    assert len(cut(base, [fits], 8).rows) == 1
    assert len(cut(base, [over], 8).rows) == 2


def test_no_window_lets_a_text_spell_a_special_token(base):
    special = set(base.tokenizer.all_special_ids) - {base.tokenizer.unk_token_id}
    pair = Pair(f"the drug {base.tokenizer.sep_token} " * 100, "a man")
    honest = cut(base, [long_pair()], 8).rows[0]
    for row in cut(base, [pair], 8).rows:
        placed = [token for token in row.input_ids if token in special]
        assert placed == [token for token in honest.input_ids if token in special]


def test_too_many_windows_are_refused(base, monkeypatch):
    monkeypatch.setattr(windows, "MAX_WINDOWS", 3)
    with pytest.raises(InputError) as error:
        cut(base, [SHORT, long_pair(2000)], 16)
    assert "pair 1:" in error.value.problems[0]
    assert "at most 3" in error.value.problems[0]


def test_all_windows_of_a_request_are_bounded_before_they_are_made(base, monkeypatch):
    one = len(cut(base, [long_pair()], 16).rows)
    pairs = [SHORT, long_pair(), SHORT, long_pair(), SHORT]
    assert len(cut(base, pairs, 16, 2 * one + 3).rows) == 2 * one + 3
    made = []
    whole = windows._pieces

    def counted(*args):
        made.append(args[1])
        return whole(*args)

    monkeypatch.setattr(windows, "_pieces", counted)
    with pytest.raises(InputError, match=f"more than {2 * one + 2} windows") as error:
        cut(base, [*pairs, long_pair()], 16, 2 * one + 2)
    assert error.value.problems == (f"with pair 3 there are {2 * one + 4}",)
    assert made == [1, 3]  # the last one is not read any more
    assert len(cut(base, [SHORT] * 9, 16, 2).rows) == 9  # a row a pair is no window


def test_the_least_neutral_window_decides():
    rows = Windows([None] * 6, [0, 1, 1, 1, 2, 2], [None] * 6)  # type: ignore[list-item]
    columns = {label: LABELS.index(label) for label in ("supports", "refutes", "neutral")}
    said = np.zeros((6, 3))
    for row, (supports, refutes, neutral) in enumerate(
        [
            (0, 0, 1),
            (0.1, 0.2, 0.7),
            (0.1, 0.8, 0.1),
            (0.5, 0.3, 0.2),
            (0.2, 0.3, 0.5),
            (0.5, 0, 0.5),
        ]
    ):
        said[row, [columns["supports"], columns["refutes"], columns["neutral"]]] = (
            supports,
            refutes,
            neutral,
        )
    assert rows.deciding(said) == [0, 2, 4]


def test_a_judge_answers_with_the_window_that_decides(base):
    pairs = [long_pair(400, seed=seed) for seed in range(6)] + [SHORT]
    order, neutral = list(base.labels.order), LABELS.index("neutral")
    answers = Judge(base, overlap=16).judge(pairs)
    places = set()
    for pair, answer in zip(pairs[:-1], answers, strict=False):
        found = cut(base, [pair], 16)
        with torch.inference_mode():
            each = np.stack(
                [
                    softmax(base.model(**collate(base, [r])).logits.numpy())[0][order]
                    for r in found.rows
                ]
            )
        best = int(each[:, neutral].argmin())
        places.add(best)
        assert answer.windows == len(found.rows) > 2
        assert answer.evidence == found.spans[best]
        assert answer.truncated is False
        assert [answer.probabilities[label] for label in LABELS] == pytest.approx(
            each[best].tolist(), abs=1e-5
        )
    assert len(places) > 1, "always the same window: the test shows nothing"
    assert answers[-1].probabilities == pytest.approx(
        Judge(base).judge([SHORT])[0].probabilities, abs=1e-5
    )
    assert (answers[-1].windows, answers[-1].evidence) == (1, None)
