"""Domains of reviews: sites, groups, and what their names mean."""

from __future__ import annotations

from dataclasses import replace

import pytest
from test_build import SETTINGS, make_replay, make_reviews

from lyra_nli.dataset.build import build
from lyra_nli.dataset.domains import domains_of, find_domain, of_domain
from lyra_nli.errors import DatasetError
from lyra_nli.records import Pair, Review


def review(number: int, url: str = "", *groups: str) -> Review:
    return Review(
        id=f"nli_reviews:{number}",
        pair=Pair(f"Premise {number}.", f"Claim {number}."),
        label="supports",
        predicted_label="refutes",
        predicted_confidence=None,
        reviewed_at="",
        anchors=frozenset({f"page:{number}", *(f"group:{group}" for group in groups)}),
        source_url=url,
    )


REVIEWS = [
    review(1, "https://www.example.co.uk/a"),
    review(2, "https://news.example.co.uk/b", "trials"),
    review(3, "", "trials"),
    review(4, "https://other.org/"),
    review(5),
]


def test_a_review_is_of_its_site_and_of_its_groups() -> None:
    assert [sorted(domains_of(each)) for each in REVIEWS] == [
        ["example.co.uk"],
        ["example.co.uk", "trials"],
        ["trials"],
        ["other.org"],
        [],
    ]


@pytest.mark.parametrize(
    ("name", "domain"),
    [
        ("example.co.uk", "example.co.uk"),
        ("https://www.Example.co.uk/page", "example.co.uk"),
        ("trials", "trials"),
    ],
)
def test_a_domain_is_found_by_name_or_address(name: str, domain: str) -> None:
    assert find_domain(REVIEWS, name) == domain


def test_an_unknown_domain_lists_what_there_is() -> None:
    with pytest.raises(DatasetError, match="'law'") as error:
        find_domain(REVIEWS, "law")
    assert sorted(error.value.problems) == [
        "example.co.uk: 2 reviews",
        "other.org: 1 reviews",
        "trials: 2 reviews",
    ]
    many = [review(n, f"https://site{n}.org") for n in range(25)]
    with pytest.raises(DatasetError) as error:
        find_domain(many, "law")
    assert error.value.problems[-1] == "and 5 more"


def test_the_group_that_all_share_ties_nothing() -> None:
    inside = of_domain(REVIEWS, "trials")
    assert [each.id for each in inside] == ["nli_reviews:2", "nli_reviews:3"]
    assert [sorted(each.anchors) for each in inside] == [["page:2"], ["page:3"]]
    assert of_domain(REVIEWS, "other.org") == [REVIEWS[3]]


def test_a_dataset_of_one_domain_holds_its_rows_and_replay() -> None:
    reviews = [
        Review(**{**fields, "source_url": f"https://{'a' if index % 2 else 'b'}.org/{index}"})
        for index, fields in enumerate(
            {name: getattr(each, name) for name in Review.__slots__} for each in make_reviews(240)
        )
    ]
    inside = {each.id for each in reviews if "//a.org" in each.source_url}
    learned = next(each.id for each in reviews if each.id not in inside)
    dataset = build(
        reviews, make_replay(), SETTINGS, {learned: "train"}, folds=2, domain="http://a.org"
    )
    own = {example.id for example in dataset.train if example.source != "replay"}
    assert dataset.domain == "a.org"
    assert own == inside
    assert dataset.general
    # What the active version learned from ties rows of this domain too, over pages and claims.
    assert learned in dataset.learned
    assert dataset.learned & inside


def test_a_shared_group_does_not_say_that_a_domain_was_learned() -> None:
    old, new = make_reviews(60), make_reviews(180)[60:]
    grouped = [replace(each, anchors=each.anchors | {"group:trials"}) for each in (*old, *new)]
    seen = {each.id: "train" for each in old}
    dataset = build(grouped, make_replay(), SETTINGS, seen, folds=5, domain="trials")
    alone = build([*old, *new], make_replay(), SETTINGS, seen, folds=5)
    assert dataset.learned == alone.learned
    assert {each.id for each in new} - dataset.learned
