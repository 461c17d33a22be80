"""The identity of a pair, and what counts as a correction."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lyra_nli.records import Pair, Review, normalise


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("The  drug\tworks\n", "the drug works"),
        ("STRASSE", "straße"),
        ("caf\u00e9", "cafe\u0301"),
        ("\uff24\uff32\uff35\uff27", "drug"),  # full-width letters
        ("\u00a0HR 0.98\u2003", "hr 0.98"),
    ],
)
def test_case_space_and_unicode_form_do_not_make_another_pair(one, other):
    assert Pair(one, "claim").key == Pair(other, "claim").key
    assert Pair("page", one).key == Pair("page", other).key


@given(st.text())
def test_normalising_twice_changes_nothing(text):
    assert normalise(normalise(text)) == normalise(text)


@given(st.text(min_size=1).filter(normalise))
def test_text_cannot_move_between_premise_and_hypothesis(text):
    assert Pair(f"a {text}", "b").key != Pair("a", f"{text} b").key
    assert Pair(f"a\x1f{text}", "b").key != Pair("a", f"{text}\x1fb").key


def test_a_lone_surrogate_has_a_key():
    assert Pair("\ud800", "a").key != Pair("\ud801", "a").key


def test_punctuation_and_numbers_make_another_pair():
    keys = {Pair(premise, "a").key for premise in ("HR 0.98", "HR 0.89", "HR 0.98!")}
    assert len(keys) == 3


@pytest.mark.parametrize(
    ("predicted", "label", "corrected"),
    [("neutral", "supports", True), ("supports", "supports", False), (None, "supports", False)],
)
def test_a_correction_is_a_changed_prediction(predicted, label, corrected):
    review = Review("r", Pair("p", "h"), label, predicted, None, "")
    assert review.corrected is corrected


def test_records_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Pair("p", "h").premise = "q"
