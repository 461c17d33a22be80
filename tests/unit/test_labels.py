"""The three labels, and the ways in which models name and order them."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from lyra_nli.errors import InputError, ModelError
from lyra_nli.labels import INDEX, LABELS, Label, LabelMap, parse_label

NAMES: dict[Label, list[str]] = {
    "supports": ["entailment", "entail", "entails", "supports"],
    "refutes": ["contradiction", "contradict", "contradicts", "refutes"],
    "neutral": ["neutral"],
}
STYLES = [str.lower, str.upper, str.title, lambda name: f"  {name}\n"]

named_labels = st.permutations(LABELS).flatmap(
    lambda order: st.tuples(
        *(
            st.tuples(st.just(label), st.sampled_from(NAMES[label]), st.sampled_from(STYLES))
            for label in order
        )
    )
)


@given(named_labels)
def test_any_order_name_and_case_is_mapped(classes):
    id2label = {index: style(name) for index, (_, name, style) in enumerate(classes)}

    found = LabelMap.from_id2label(id2label)

    for index, (label, _, _) in enumerate(classes):
        assert found.order[INDEX[label]] == index
        assert found.raw_names[INDEX[label]] == id2label[index]


@given(named_labels, st.permutations(range(3)))
def test_the_order_of_the_mapping_itself_does_not_matter(classes, order):
    id2label = {index: name for index, (_, name, _) in enumerate(classes)}
    shuffled = {index: id2label[index] for index in order}

    assert LabelMap.from_id2label(shuffled) == LabelMap.from_id2label(id2label)


@given(st.text())
def test_an_unknown_name_is_refused_and_listed(name):
    assume(not any(name.strip().lower() in names for names in NAMES.values()))
    with pytest.raises(ModelError) as caught:
        LabelMap.from_id2label({0: "entailment", 1: name, 2: "neutral"})

    assert caught.value.problems == (f"1: {name!r}",)
    assert "id2label" in caught.value.hint


@pytest.mark.parametrize(
    ("id2label", "problems"),
    [
        ({0: "entailment", 1: "Entails", 2: "neutral"}, ["1: 'Entails'"]),
        ({0: "LABEL_0", 1: "LABEL_1", 2: "LABEL_2"}, [f"{i}: 'LABEL_{i}'" for i in range(3)]),
        ({0: "entailment", 1: "neutral", 2: "contradiction", 3: "other"}, ["3: 'other'"]),
        ({0: "entailment", 1: "contradiction"}, []),
        ({0: "not_entailment", 1: "entailment"}, ["0: 'not_entailment'"]),
        ({}, []),
    ],
    ids=["twice", "nameless", "four", "two", "binary", "none"],
)
def test_what_cannot_be_mapped_is_refused_with_the_list(id2label, problems):
    with pytest.raises(ModelError) as caught:
        LabelMap.from_id2label(id2label)

    assert list(caught.value.problems) == problems
    assert repr(id2label) in caught.value.message


def test_a_class_outside_the_logits_is_refused():
    with pytest.raises(ModelError):
        LabelMap.from_id2label({0: "entailment", 1: "contradiction", 5: "neutral"})


@pytest.mark.parametrize("label", LABELS)
def test_lyras_labels_are_read(label):
    assert parse_label(label) == label


@given(st.one_of(st.text(), st.none(), st.integers(), st.lists(st.sampled_from(LABELS))))
def test_nothing_else_is_read_as_a_label(value):
    if value in LABELS:
        return
    with pytest.raises(InputError) as caught:
        parse_label(value)

    assert repr(value) in str(caught.value)
    assert all(label in str(caught.value) for label in LABELS)


@pytest.mark.parametrize("near", ["Supports", "entailment", "supports ", "NEUTRAL"])
def test_a_synonym_is_not_guessed(near):
    with pytest.raises(InputError):
        parse_label(near)
