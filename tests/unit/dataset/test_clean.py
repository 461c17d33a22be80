"""Cleaning: one pair, one label, and every row accounted for."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from lyra_nli.dataset.clean import Cleaned, clean, text_anchors
from lyra_nli.labels import LABELS
from lyra_nli.records import Pair, Review


def review(
    id: str,  # noqa: A002
    premise: str = "The drug works.",
    hypothesis: str = "It works.",
    label: str = "supports",
    at: str = "2026-01-01",
) -> Review:
    return Review(id, Pair(premise, hypothesis), label, "neutral", 0.5, at)


def accounted(cleaned: Cleaned) -> int:
    overruled = sum(len(conflict.overruled) for conflict in cleaned.conflicts)
    return len(cleaned.reviews) + cleaned.duplicates + overruled + len(cleaned.empty)


texts = st.sampled_from(["", " \n", "a", "A ", "b", "b!", "(b)", "!", "…", "\x00", "c d", "c-d"])
reviews = st.lists(
    st.builds(
        lambda premise, hypothesis, label, at: (premise, hypothesis, label, at),
        texts,
        texts,
        st.sampled_from(LABELS),
        st.sampled_from(["", "2026-01-01", "2026-01-02", "2026-01-03"]),
    ),
    max_size=40,
).map(lambda rows: [review(f"r:{index}", *row) for index, row in enumerate(rows)])


@given(reviews)
def test_nothing_is_dropped_in_silence(rows):
    cleaned = clean(rows)
    assert accounted(cleaned) == len(rows)
    kept = {one.id for one in cleaned.reviews}
    overruled = {one.id for conflict in cleaned.conflicts for one in conflict.overruled}
    assert not kept & overruled
    assert not (kept | overruled) & set(cleaned.empty)
    assert set(cleaned.empty) == {
        row.id for row in rows if not row.pair.premise.strip() or not row.pair.hypothesis.strip()
    }


@given(reviews)
def test_every_pair_is_kept_once_with_its_newest_review(rows):
    cleaned = clean(rows)
    keys = [one.pair.key for one in cleaned.reviews]
    assert len(keys) == len(set(keys))
    for kept in cleaned.reviews:
        same = [row for row in rows if row.pair.key == kept.pair.key]
        newest = max(row.reviewed_at for row in same)
        assert kept == [row for row in same if row.reviewed_at == newest][-1]
    for conflict in cleaned.conflicts:
        assert conflict.kept in cleaned.reviews
        assert all(one.label != conflict.kept.label for one in conflict.overruled)
        assert all(one.pair.key == conflict.kept.pair.key for one in conflict.overruled)


def test_the_newest_label_wins_wherever_it_stands():
    rows = [
        review("r:new", label="refutes", at="2026-03-01"),
        review("r:old", label="supports", at="2026-01-01"),
        review("r:mid", "THE drug   works.", label="refutes", at="2026-02-01"),
    ]
    cleaned = clean(rows)
    assert [one.id for one in cleaned.reviews] == ["r:new"]
    assert cleaned.duplicates == 1
    (conflict,) = cleaned.conflicts
    assert conflict.kept.id == "r:new"
    assert [one.id for one in conflict.overruled] == ["r:old"]


def test_a_review_without_a_time_is_the_oldest():
    rows = [review("r:1", at="2026-01-01"), review("r:2", label="refutes", at="")]
    assert [one.id for one in clean(rows).reviews] == ["r:1"]


def test_of_two_at_one_time_the_last_read_wins():
    rows = [review("r:1"), review("r:2", label="refutes")]
    assert [one.id for one in clean(rows).reviews] == ["r:2"]


def test_reviews_come_oldest_first():
    rows = [review(f"r:{n}", f"premise {n}", at=f"2026-01-0{9 - n}") for n in range(5)]
    assert [one.id for one in clean(rows).reviews] == ["r:4", "r:3", "r:2", "r:1", "r:0"]


def test_pairs_that_differ_in_punctuation_are_counted_and_kept():
    rows = [
        review("r:1", "HR 0.98 (95% CI: 0.81-1.19)"),
        review("r:2", "HR 0.98, 95% CI 0.81-1.19"),
        review("r:3", "HR 0.89, 95% CI 0.81-1.19"),
    ]
    cleaned = clean(rows)
    assert len(cleaned.reviews) == 3
    assert cleaned.near_duplicates == 1
    one, two, other = (text_anchors(row) for row in rows)
    assert one == two
    assert len(one & other) == 1  # the hypothesis they share


def test_texts_of_punctuation_alone_stay_themselves():
    question, stop = review("r:1", "?"), review("r:2", "!")
    assert text_anchors(question) != text_anchors(stop)
    assert clean([question, stop]).near_duplicates == 0


def test_a_premise_is_no_hypothesis():
    assert not text_anchors(review("r:1", "a", "b")) & text_anchors(review("r:2", "b", "a"))


def test_no_reviews_are_clean():
    assert clean([]) == Cleaned((), 0, (), 0, ())


class TestPeople:
    """How many people gave the label that is kept."""

    def people(self, *rows: Review) -> int:
        [kept] = clean(rows).reviews
        return kept.people

    def test_one(self):
        assert self.people(review("r:1")) == 1

    def test_several_who_agree(self):
        rows = [replace(review(f"r:{i}"), reviewer=name) for i, name in enumerate(("ann", "bob"))]
        assert self.people(*rows) == 2

    def test_the_same_person_again_is_one(self):
        rows = [replace(review(f"r:{i}"), reviewer="ann") for i in range(3)]
        assert self.people(*rows) == 1

    def test_those_without_a_name_are_one(self):
        assert self.people(review("r:1"), review("r:2")) == 1

    def test_who_was_overruled_does_not_count(self):
        other = replace(review("r:1", label="refutes"), reviewer="ann", people=3)
        assert self.people(other, replace(review("r:2", at="2026-01-02"), reviewer="bob")) == 1

    def test_second_looks_count(self):
        rows = [replace(review("r:1"), reviewer="ann", people=2), replace(review("r:2"))]
        assert self.people(*rows) == 3


class TestSettled:
    """Labels that people gave twice are settled, those on which they differ disputed."""

    ann, bob = (replace(review(f"r:{name}"), reviewer=name) for name in ("ann", "bob"))

    def test_one_review_is_neither(self):
        cleaned = clean([self.ann])
        assert (cleaned.confirmed, cleaned.disputed) == (frozenset(), frozenset())

    def test_whoever_says_it_again_confirms_it(self):
        for later in (self.bob, replace(self.ann, id="r:bob", reviewed_at="2026-02-01")):
            assert clean([self.ann, later]).confirmed == {"r:bob"}
        assert clean([replace(self.ann, people=2)]).confirmed == {"r:ann"}

    def test_another_label_by_somebody_else_is_a_dispute(self):
        first = replace(self.ann, label="refutes")
        assert clean([first, self.bob]).disputed == {"r:bob"}
        third = replace(self.bob, id="r:3", reviewer="eve", reviewed_at="2026-02-01")
        assert clean([first, self.bob, third]).disputed == frozenset()

    def test_whoever_thinks_better_of_it_disputes_nothing(self):
        first = replace(self.ann, label="refutes")
        assert clean([first, replace(self.bob, reviewer="ann")]).disputed == frozenset()
