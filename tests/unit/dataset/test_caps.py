"""Caps: no page, claim or person counts for more rows than it may; nothing is left out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lyra_nli.dataset.build import build, rebuild
from lyra_nli.dataset.caps import cap
from lyra_nli.records import Example, Pair, Review
from lyra_nli.settings import DatasetSettings

OPEN = DatasetSettings()


def review(number: int, *anchors: str, reviewer: str = "", claim: str = "c") -> Review:
    return Review(
        f"nli_reviews:{number}",
        Pair(f"premise {number}", claim),
        "supports",
        "neutral",
        0.5,
        f"2026-01-01T00:00:{number % 60:02}+00:00",
        anchors=frozenset(anchors),
        reviewer=reviewer,
    )


def row(number: int, *anchors: str, weight: float = 1.0, **values: str) -> Example:
    told = review(number, *anchors, **values)
    return Example(told.id, told.pair, "supports", "correction", "g", weight, told)


def weights(rows: list[Example], **caps: int) -> list[float]:
    return [row.weight for row in cap(rows, DatasetSettings(**caps)).rows]


def test_without_caps_everything_counts():
    rows = [row(i, "page:1", reviewer="ann") for i in range(50)]
    capped = cap(rows, OPEN)
    assert (list(capped.rows), capped.origins) == (rows, ())


def test_a_large_page_counts_like_as_many_rows_as_it_may():
    rows = [*(row(i, "page:large") for i in range(8)), row(8, "page:small"), row(9)]
    assert weights(rows, page_rows=2) == [0.25] * 8 + [1.0, 1.0]
    assert cap(rows, DatasetSettings(page_rows=2)).origins == ((("page", "large"), 8),)
    assert weights(rows, page_rows=8) == [1.0] * 10


def test_the_smallest_share_decides_and_earlier_weights_stay():
    rows = [row(0, "page:1", "claim:a", weight=0.5), row(1, "page:1", "claim:b")]
    rows += [row(i, "page:2", "claim:a") for i in range(2, 5)]
    # Page 1 has 2 rows, page 2 has 3, claim a has 4.
    assert weights(rows, page_rows=1, claim_rows=1) == [0.5 / 4, 1 / 2, 1 / 4, 1 / 4, 1 / 4]


def test_a_claim_without_an_id_is_its_text():
    rows = [row(0, claim="Garlic helps."), row(1, claim="garlic  HELPS."), row(2, claim="No.")]
    assert weights(rows, claim_rows=1) == [0.5, 0.5, 1.0]


def test_a_person_and_nobody():
    rows = [row(0, reviewer="ann"), row(1, reviewer="ann"), row(2), row(3)]
    assert weights(rows, reviewer_rows=1) == [0.5, 0.5, 1.0, 1.0]


def test_replayed_rows_stay_as_they_are():
    replayed = [Example(f"replay:{i}", Pair("p", "h"), "neutral", "replay", "r") for i in range(9)]
    assert weights(replayed, page_rows=1, claim_rows=1, reviewer_rows=1) == [1.0] * 9


@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("xy"))), st.integers(1, 5))
def test_no_origin_counts_for_more_than_it_may(origins, most):
    rows = [
        row(i, f"page:{page}", claim=f"c{i}", reviewer=who) for i, (page, who) in enumerate(origins)
    ]
    capped = cap(rows, DatasetSettings(page_rows=most, reviewer_rows=most))
    for name in "ab":
        page = [e for e in capped.rows if f"page:{name}" in e.review.anchors]
        assert sum(e.weight for e in page) <= most + 1e-9
    for name in "xy":
        assert sum(e.weight for e in capped.rows if e.review.reviewer == name) <= most + 1e-9
    over = {name for (kind, name), _ in capped.origins if kind == "page"}
    assert all(
        e.weight < 1 for e in capped.rows for name in over if f"page:{name}" in e.review.anchors
    )


class TestInADataset:
    @pytest.fixture
    def reviews(self) -> list[Review]:
        return [review(i, f"page:{i % 12 and i}", claim=f"c{i}") for i in range(60)]

    def test_what_is_held_back_is_counted_and_hashed(self, reviews):
        settings = DatasetSettings(page_rows=1)
        plain = build(reviews, [], settings, folds=5)
        weighed = plain.weighed(settings)
        assert weighed.capped == ((("page", "0"), 5),)
        assert sum(e.weight for e in weighed.train) == pytest.approx(len(plain.train) - 4)
        assert weighed.content_hash != plain.content_hash
        assert plain.weighed(OPEN).content_hash == plain.content_hash

    def test_the_hold_out_counts_in_full(self, reviews):
        settings = DatasetSettings(page_rows=1, claim_rows=1, reviewer_rows=1)
        dataset = build(reviews, [], settings).weighed(settings)
        assert {e.weight for e in dataset.holdout} == {1.0}

    def test_a_run_is_made_again_with_its_caps(self, reviews):
        settings = DatasetSettings(page_rows=1)
        dataset = build(reviews, [], settings).weighed(settings)
        assert dataset.capped
        again = rebuild(reviews, [], dataset.row_ids(), {}, {}).weighed(settings)
        assert again.content_hash == dataset.content_hash
