"""Building a dataset: everything in its place, and a hash of what it holds."""

from __future__ import annotations

import json
import random
from collections import Counter
from dataclasses import replace

import pytest

from lyra_nli.dataset.build import Dataset, build, known, rebuild
from lyra_nli.dataset.replay import GENERAL_ROWS
from lyra_nli.errors import DatasetError
from lyra_nli.labels import LABELS
from lyra_nli.records import Example, Pair, Review
from lyra_nli.settings import DatasetSettings

SETTINGS = DatasetSettings(replay_rows=30, replay_share=0)


def make_reviews(count: int = 120, seed: int = 0) -> list[Review]:
    """Reviews of pairs on forty pages; about half of them corrections."""
    rng = random.Random(seed)
    return [
        Review(
            id=f"nli_reviews:{index}",
            pair=Pair(f"Premise number {index}.", f"Claim {rng.randrange(60)}."),
            label=rng.choice(LABELS),
            predicted_label=rng.choice(LABELS),
            predicted_confidence=0.7,
            reviewed_at=f"2026-01-01T00:{index // 60:02}:{index % 60:02}+00:00",
            anchors=frozenset({f"page:{rng.randrange(200)}"}),
        )
        for index in range(count)
    ]


def make_replay(count: int = 90) -> list[Example]:
    return [
        Example(
            id=f"replay:{index}",
            pair=Pair(f"A man {index}.", "A person."),
            label=LABELS[index % 3],
            source="replay",
            group=f"scene{index // 3}",
            weight=0.5,
        )
        for index in range(count)
    ]


@pytest.fixture
def reviews() -> list[Review]:
    return make_reviews()


@pytest.fixture
def dataset(reviews) -> Dataset:
    return build(reviews, make_replay(), SETTINGS)


class TestSides:
    def test_every_review_is_somewhere(self, dataset, reviews):
        placed = [
            example.id
            for side in (dataset.train, dataset.dev, dataset.holdout, dataset.aside)
            for example in side
            if example.source != "replay"
        ]
        assert sorted(placed) == sorted(review.id for review in dataset.cleaned.reviews)
        assert len(placed) == len(reviews)  # none of these is a duplicate

    def test_no_anchor_is_on_both_sides(self, dataset, reviews):
        anchors = {review.id: review.anchors | {review.pair.hypothesis} for review in reviews}
        learned = set().union(*(anchors.get(e.id, ()) for e in (*dataset.train, *dataset.dev)))
        judged = set().union(*(anchors[e.id] for e in dataset.holdout))
        assert judged
        assert not learned & judged
        assert dataset.leaking == ()

    def test_replay_is_learned_from_and_general_is_of_other_groups(self, dataset):
        replayed = [example for example in dataset.train if example.source == "replay"]
        assert len(replayed) == SETTINGS.replay_rows
        assert len(dataset.general) == 30  # a third of the set, in whole groups
        assert not {e.group for e in replayed} & {e.group for e in dataset.general}
        assert {example.weight for example in replayed} == {0.5}

    def test_general_is_no_larger_than_needed(self, reviews):
        dataset = build(reviews, make_replay(3000), DatasetSettings(replay_rows=5000))
        assert GENERAL_ROWS <= len(dataset.general) < GENERAL_ROWS + 3
        assert dataset.count("train", "source")["replay"] == 3000 - len(dataset.general)

    @pytest.mark.parametrize(("share", "least"), [(0.5, 0), (0.5, 10), (0.1, 40), (2.0, 0)])
    def test_replay_goes_with_the_reviews(self, reviews, share, least):
        settings = DatasetSettings(replay_share=share, replay_rows=least)
        dataset = build(reviews, make_replay(3000), settings)
        counts = dataset.count("train", "source")
        reviewed = counts["correction"] + counts["agreed"]
        assert counts["replay"] == max(least, round(share * reviewed)) > 0

    def test_replay_may_be_left_out(self, reviews):
        without = build(reviews, make_replay(), SETTINGS.model_copy(update={"replay_rows": 0}))
        assert "replay" not in without.count("train", "source")
        assert without.general  # forgetting is measured all the same
        assert build(reviews, [], SETTINGS).general == ()

    def test_the_source_tells_corrections_from_agreement(self, dataset, reviews):
        corrected = {review.id: review.corrected for review in reviews}
        for example in (*dataset.dev, *dataset.holdout):
            assert example.source == ("correction" if corrected[example.id] else "agreed")

    def test_counts_are_of_one_side(self, dataset):
        assert dataset.count("train", "label") == Counter(e.label for e in dataset.train)
        assert dataset.count("dev", "source").total() == len(dataset.dev)

    def test_what_the_active_version_learned_is_not_judged(self, reviews, dataset):
        seen = {example.id: "train" for example in dataset.holdout[:5]}
        again = build(reviews, make_replay(), SETTINGS, seen)
        assert not seen.keys() & {example.id for example in again.holdout}


class TestEvidence:
    """Few reviews: folds judge. Many: the newest are held out."""

    def test_few_rows_are_all_learned_from(self, reviews):
        dataset = build(reviews, make_replay(), SETTINGS, folds=5)
        assert (dataset.dev, dataset.holdout, dataset.aside) == ((), (), ())
        learned = [example.id for example in dataset.train if example.source != "replay"]
        assert sorted(learned) == sorted(review.id for review in reviews)
        assert dataset.general  # is judged on in any case
        groups = {example.group for example in dataset.train if example.source != "replay"}
        assert 5 <= len(groups) < len(reviews)

    def test_enough_rows_are_held_out(self, reviews):
        settings = SETTINGS.model_copy(update={"min_holdout": 20})
        dataset = build(reviews, make_replay(), settings, folds=5)
        assert len(dataset.holdout) >= 20
        one_more = settings.model_copy(update={"min_holdout": len(dataset.holdout) + 1})
        assert build(reviews, make_replay(), one_more, folds=5).holdout == ()

    @pytest.mark.parametrize("folds", [0, 1])
    def test_without_folds_a_small_holdout_judges(self, reviews, folds):
        assert build(reviews, make_replay(), SETTINGS, folds=folds).holdout

    def test_a_group_too_large_for_folds_is_cut(self):
        """Every claim on every page: no student could learn without its neighbours."""
        grid = [
            replace(review, anchors=frozenset({f"page:{n % 20}", f"claim:{n // 20}"}))
            for n, review in enumerate(make_reviews(400))
        ]
        own = [replace(r, pair=Pair(f"p{n % 20}", f"c{n // 20}")) for n, r in enumerate(grid)]
        assert build(own, make_replay(), SETTINGS, folds=5).holdout

    def test_what_was_held_stays_so_though_folds_could_judge(self, reviews):
        settings = SETTINGS.model_copy(update={"min_holdout": 10})
        first = build(reviews, make_replay(), settings, folds=5)
        seen = {row: side for side, ids in first.row_ids().items() for row in ids}
        more = [*reviews, *(replace(r, id=f"new:{r.id}", pair=Pair(r.id, f"of {r.id}"))
                            for r in make_reviews(60, seed=2))]  # fmt: skip
        second = build(more, make_replay(), settings, seen, folds=5)
        kept = {example.id for example in second.holdout}
        learned = {example.id for example in (*first.train, *first.dev)}
        assert not learned & kept
        assert len({example.id for example in first.holdout} & kept) > len(first.holdout) / 2

    def test_a_pair_that_was_learned_is_never_held_out_under_another_id(self, reviews, dataset):
        learned = {e.id: "train" for e in (*dataset.train, *dataset.dev) if e.source != "replay"}
        again = [
            replace(review, id=f"again:{review.id}", reviewed_at="2027-01-01")
            for review in reviews
            if review.id in learned
        ]
        second = build([*reviews, *again], make_replay(), SETTINGS, learned)
        assert second.holdout
        assert not [e.id for e in second.holdout if e.id.startswith("again:")]
        assert {review.id for review in again} <= second.learned

    def test_whoever_learned_a_neighbour_proves_nothing_about_a_row(self):
        def review(name: str, premise: str, claim: str, *anchors: str) -> Review:
            pair = Pair(premise, claim)
            return Review(name, pair, "neutral", "supports", None, "", frozenset(anchors))

        reviews = [
            review("learned", "one", "two", "page:1"),
            review("page", "three", "four", "page:1"),
            review("claim", "five", "Two!"),
            review("beyond", "six", "four", "page:2"),
            review("apart", "seven", "eight"),
        ]
        assert known(reviews, ["learned", "replay:9"]) == {"learned", "page", "claim", "replay:9"}

    def test_an_example_remembers_its_review(self, dataset, reviews):
        by_id = {review.id: review for review in reviews}
        for example in dataset.examples():
            assert example.review is by_id.get(example.id)
        assert replace(dataset.train[0], review=None) == dataset.train[0]


class TestHashes:
    def test_the_same_reviews_give_the_same_hashes_in_any_order(self, dataset, reviews):
        random.Random(1).shuffle(reviews)
        again = build(reviews, make_replay(), SETTINGS)
        assert again.content_hash == dataset.content_hash
        assert again.split_hash == dataset.split_hash
        assert len(dataset.content_hash) == len(dataset.split_hash) == 64

    @pytest.mark.parametrize("side", ["train", "dev", "holdout", "general"])
    @pytest.mark.parametrize(
        "change",
        [
            lambda e: replace(e, pair=Pair(e.pair.premise + ".", e.pair.hypothesis)),
            lambda e: replace(e, pair=Pair(e.pair.premise, e.pair.hypothesis.upper())),
            lambda e: replace(e, label=LABELS[LABELS.index(e.label) - 1]),
            lambda e: replace(e, source="agreed" if e.source != "agreed" else "correction"),
            lambda e: replace(e, weight=e.weight * 2),
            lambda e: replace(e, id=e.id + "x"),
        ],
        ids=["premise", "hypothesis", "label", "source", "weight", "id"],
    )
    def test_any_change_of_a_row_changes_the_content_hash(self, dataset, side, change):
        first, *rest = getattr(dataset, side)
        assert replace(dataset, **{side: (change(first), *rest)}).content_hash != (
            dataset.content_hash
        )

    def test_a_row_on_another_side_changes_the_split_hash(self, dataset):
        moved = replace(dataset, train=dataset.train[:-1], dev=(dataset.train[-1], *dataset.dev))
        assert moved.split_hash != dataset.split_hash

    def test_another_seed_splits_otherwise(self, dataset, reviews):
        other = build(reviews, make_replay(), SETTINGS.model_copy(update={"seed": 14}))
        assert other.split_hash != dataset.split_hash

    def test_texts_that_are_no_valid_unicode_are_hashed(self, reviews):
        odd = [replace(reviews[0], pair=Pair("half \ud83d", "\x00")), *reviews[1:]]
        assert len(build(odd, [], SETTINGS).content_hash) == 64


class TestRebuilding:
    def test_gives_the_same_dataset(self, dataset, reviews):
        row_ids = json.loads(json.dumps(dataset.row_ids()))
        again = rebuild(reviews[::-1], make_replay(), row_ids, {}, {})
        assert again.content_hash == dataset.content_hash
        assert again.split_hash == dataset.split_hash
        assert [e.pair for e in again.train] == [e.pair for e in dataset.train]
        assert [e.label for e in again.holdout] == [e.label for e in dataset.holdout]

    def test_later_reviews_do_not_disturb_it(self, dataset, reviews):
        overruled = [
            replace(review, id=f"later:{review.id}", label="neutral", reviewed_at="2027-01-01")
            for review in reviews[:20]
        ]
        again = rebuild([*reviews, *overruled], make_replay(), dataset.row_ids(), {}, {})
        assert again.content_hash == dataset.content_hash

    def test_a_changed_row_changes_the_hash(self, dataset, reviews):
        other = next(label for label in LABELS if label != reviews[0].label)
        again = rebuild(
            [replace(reviews[0], label=other), *reviews[1:]],
            make_replay(),
            dataset.row_ids(),
            {},
            {},
        )
        assert again.content_hash != dataset.content_hash

    def test_people_count_as_they_did_then(self, reviews):
        several = [replace(reviews[0], people=2), *reviews[1:]]
        dataset = build(several, [], SETTINGS, folds=5)
        assert dataset.people() == {reviews[0].id: 2}
        assert dataset.content_hash != build(reviews, [], SETTINGS, folds=5).content_hash
        later = [replace(review, people=3) for review in reviews]
        again = rebuild(later, [], dataset.row_ids(), dataset.people(), {})
        assert again.content_hash == dataset.content_hash

    def test_groups_are_those_of_then(self, dataset, reviews):
        again = rebuild(reviews, make_replay(), dataset.row_ids(), {}, dataset.groups())
        assert [e.group for e in again.train] == [e.group for e in dataset.train]
        assert again.groups() == dataset.groups()

    def test_rows_that_are_gone_are_named(self, dataset, reviews):
        with pytest.raises(DatasetError, match="3 rows of that run") as caught:
            rebuild(reviews[3:], make_replay(), dataset.row_ids(), {}, {})
        assert set(caught.value.problems) == {review.id for review in reviews[:3]}

    def test_a_replay_set_that_lost_rows_is_noticed(self, dataset, reviews):
        with pytest.raises(DatasetError, match="no longer"):
            rebuild(reviews, make_replay(60), dataset.row_ids(), {}, {})

    def test_many_reviews_take_no_time(self, reviews):
        many = make_reviews(6000)
        row_ids = build(many, [], SETTINGS).row_ids()
        assert len(rebuild(many, [], row_ids, {}, {}).train) == len(row_ids["train"])


class TestRefusals:
    def test_no_reviews(self):
        with pytest.raises(DatasetError, match="no usable reviews"):
            build([], make_replay(), SETTINGS)

    def test_only_empty_texts(self):
        empty = [replace(review, pair=Pair(" ", "claim")) for review in make_reviews(30)]
        with pytest.raises(DatasetError, match="no usable reviews"):
            build(empty, [], SETTINGS)

    @pytest.mark.parametrize("anchor", ["page:1", "claim:1", "group:1"])
    def test_one_group_that_no_cut_parts(self, anchor):
        tied = [replace(review, anchors=frozenset({anchor})) for review in make_reviews(50)]
        with pytest.raises(DatasetError, match=r"50 reviews in .* can't be split") as caught:
            build(tied, make_replay(), SETTINGS)
        assert "more pages and claims" in caught.value.hint

    def test_a_single_review(self):
        with pytest.raises(DatasetError, match="can't be split"):
            build(make_reviews(1), make_replay(), SETTINGS)


def test_examples_set_aside_leave_every_side_and_are_counted(dataset: Dataset) -> None:
    gone = {dataset.train[0].id, dataset.holdout[0].id}
    smaller = dataset.without(gone)
    assert {example.id for example in smaller.aside} >= gone
    assert not gone & {example.id for example in smaller.examples()}
    assert len(smaller.examples()) == len(dataset.examples()) - 2
    assert smaller.content_hash != dataset.content_hash
    assert dataset.without(set()).content_hash == dataset.content_hash
