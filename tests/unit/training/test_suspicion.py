"""Suspicion: labels held against all the others."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tiny_training import TURNED, examples

from lyra_nli.dataset.clean import clean
from lyra_nli.labels import LABELS
from lyra_nli.models.base import Base
from lyra_nli.models.judge import Judge
from lyra_nli.records import Example, Pair, Review
from lyra_nli.storage.scores import DISPUTED
from lyra_nli.training.opinions import read_opinions
from lyra_nli.training.suspicion import suspects, suspicions


def told(row: Example, predicted: str) -> Example:
    """The row as somebody reviewed it to whom the model had said `predicted`."""
    review = Review(row.id, row.pair, row.label, predicted, 0.5, "")
    source = "correction" if review.corrected else "agreed"
    return replace(row, source=source, review=review)


def suspicions_of(base: Base, rows: list[Example]) -> dict[str, float]:
    return suspicions(read_opinions(Judge(base), rows))


@pytest.fixture(scope="module")
def rows() -> list[Example]:
    """Eighty reviewed rows, the first eight with a wrong label."""
    rows = [replace(row, label=TURNED[row.label]) for row in examples(8, seed=1)]
    rows += examples(72, seed=2)
    return [told(row, LABELS[i % 3]) for i, row in enumerate(rows)]


class TestSuspicions:
    def test_wrong_labels_come_first(self, deberta, rows):
        found = suspicions_of(deberta, rows)
        assert list(found) == [row.id for row in rows]
        assert all(0 <= value <= 1 for value in found.values())
        upper = sorted(found, key=lambda name: -found[name])[: len(rows) // 4]
        assert len({row.id for row in rows[:8]} & set(upper)) >= 6  # by chance: 2

    def test_what_was_predicted_is_ruled_out_of_corrections(self, deberta, rows):
        read = read_opinions(Judge(deberta), rows)
        expected = [
            [row.source == "correction" and row.review.predicted_label == label for label in LABELS]
            for row in rows
        ]
        assert read.ruled_out.tolist() == expected
        assert any(map(any, expected))

    def test_only_what_people_said_is_suspected(self, deberta, rows):
        others = [*examples(9, seed=3, source="replay"), *examples(9, seed=4, source="foreign")]
        assert suspicions_of(deberta, [*others, *rows]) == suspicions_of(deberta, rows)

    @pytest.mark.parametrize("count", [0, 1])
    def test_of_one_row_nothing_can_be_told(self, deberta, rows, count):
        assert suspicions_of(deberta, rows[:count]) == {}

    def test_two_rows_are_held_against_each_other(self, deberta, rows):
        assert all(0 <= value <= 1 for value in suspicions_of(deberta, rows[:2]).values())


class TestSuspects:
    def said(self, name: str, claim: str, **values: str) -> Review:
        row = Review(name, Pair("text", claim), "neutral", "neutral", 0.5, "2026-01-01")
        return replace(row, **values)

    def test_half_sure_is_not_enough_and_what_was_said_twice_is_settled(self):
        twice = [self.said("r:2", "two"), self.said("r:3", "two", reviewed_at="2026-02-01")]
        cleaned = clean([self.said("r:0", "zero"), self.said("r:1", "one"), *twice])
        assert suspects({"r:0": 0.5, "r:1": 0.6, "r:3": 0.9}, cleaned) == {"r:1": 0.6}

    def test_where_people_differ_comes_before_all(self):
        differ = [self.said("r:0", "one", reviewer="ann"), self.said("r:1", "one", label="refutes")]
        assert suspects({"r:1": 0.1}, clean(differ)) == {"r:1": DISPUTED}
