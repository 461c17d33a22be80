from __future__ import annotations

from random import Random

import pytest

from lyra_nli.demo.phrases import Writer, in_words, load_text, tidy

BOOK = {
    "hello": ["[Good [morning|evening]|Hello], {name}."],
    "nested": ["<greeting> to {who.first}"],
    "greeting": ["welcome", "hail"],
    "names": ["{names} and {names}"],
}


def written(phrase: str, slots: dict[str, object], times: int = 80) -> set[str]:
    writer = Writer(Random(1), BOOK)
    return {writer.write(phrase, slots) for _ in range(times)}


def test_choices_may_nest() -> None:
    assert written("hello", {"name": "Ann"}) == {
        "Good morning, Ann.", "Good evening, Ann.", "Hello, Ann."
    }  # fmt: skip


def test_phrases_and_forms() -> None:
    assert written("nested", {"who": {"first": "Bo"}}) == {"Welcome to Bo", "Hail to Bo"}


def test_synonyms_are_chosen_anew_at_every_place() -> None:
    found = written("names", {"names": ["x", "y"]})
    assert found == {"X and x", "X and y", "Y and x", "Y and y"}


def test_a_synonym_may_be_a_template() -> None:
    assert written("hello", {"name": "[Mr|Ms] {last}", "last": "Roe"}) >= {
        "Hello, Mr Roe.", "Hello, Ms Roe."
    }  # fmt: skip


@pytest.mark.parametrize(("phrase", "slots"), [("absent", {}), ("hello", {})])
def test_faults_of_templates_are_loud(phrase: str, slots: dict[str, object]) -> None:
    with pytest.raises(KeyError):
        Writer(Random(1), BOOK).write(phrase, slots)


def test_same_generator_same_words() -> None:
    texts = [Writer(Random(5), BOOK).write("hello", {"name": "Al"}) for _ in range(3)]
    assert len(set(texts)) == 1


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("the  end . here it is", "The end. Here it is"),
        ("hr 0.98, p < 0.001. why?  because", "Hr 0.98, p < 0.001. Why? Because"),
        ("a , b", "A, b"),
    ],
)
def test_tidy(raw: str, clean: str) -> None:
    assert tidy(raw) == clean


@pytest.mark.parametrize(
    ("number", "text"), [(0, "zero"), (10, "ten"), (11, "11"), (2500, "2,500")]
)
def test_in_words(number: int, text: str) -> None:
    assert in_words(number) == text


@pytest.mark.parametrize("name", ["trials", "policy", "clinic", "names", "mix"])
def test_text_files_load(name: str) -> None:
    assert load_text(name)


def test_every_area_has_what_the_findings_need() -> None:
    for area in load_text("clinic"):
        unwelcome = [item for item in area["outcomes"] if not item.get("good")]
        assert len(area["outcomes"]) >= 3
        assert len(unwelcome) >= 2
        assert len({item["key"] for item in area["outcomes"]}) == len(area["outcomes"])
        assert area["surrogate"]
        assert area["subgroups"]
        assert area["elsewhere"]
