"""Suspicion: labels held against all the others."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tiny_training import TURNED, examples

from lyra_nli.labels import INDEX, LABELS
from lyra_nli.records import Example, Review
from lyra_nli.training import suspicion as module
from lyra_nli.training.suspicion import left_out, ruled_out, suspicion_of, suspicions


def told(row: Example, predicted: str) -> Example:
    """The row as somebody reviewed it to whom the model had said `predicted`."""
    review = Review(row.id, row.pair, row.label, predicted, 0.5, "")
    source = "correction" if review.corrected else "agreed"
    return replace(row, source=source, review=review)


@pytest.fixture(scope="module")
def rows() -> list[Example]:
    """Eighty reviewed rows, the first eight with a wrong label."""
    rows = [replace(row, label=TURNED[row.label]) for row in examples(8, seed=1)]
    rows += examples(72, seed=2)
    return [told(row, LABELS[i % 3]) for i, row in enumerate(rows)]


class TestLeftOut:
    def test_what_refits_without_each_row_would_tell(self):
        rng = np.random.default_rng(0)
        vectors = rng.normal(size=(12, 5)).astype(np.float32)
        wanted = rng.normal(size=(12, 3))
        rows = (vectors - vectors.mean(0)) / vectors.std(0)
        rows = rows / np.sqrt((rows**2).sum(1).mean())
        rows = np.column_stack([rows, np.full(12, np.sqrt(module._SQUARED_BIAS))])
        told = left_out(vectors, wanted)
        for row in range(12):
            others = np.arange(12) != row
            x, y = rows[others], wanted[others]
            fit = np.linalg.solve(x.T @ x + module._RIDGE * np.eye(6), x.T @ y)
            assert told[row] == pytest.approx(rows[row] @ fit)

    def test_its_own_label_does_not_count(self):
        rng = np.random.default_rng(1)
        vectors, wanted = rng.normal(size=(9, 4)).astype(np.float32), rng.normal(size=(9, 3))
        changed = wanted.copy()
        changed[4] += 100.0
        before, after = left_out(vectors, wanted), left_out(vectors, changed)
        assert after[4] == pytest.approx(before[4])
        assert np.abs(after - before).max() > 1

    def test_vectors_that_do_not_differ_tell_of_the_mean_alone(self):
        told = left_out(np.ones((4, 3), np.float32), np.array([[3.0], [0.0], [0.0], [0.0]]))
        assert told[0, 0] == pytest.approx(0.0)
        assert told[1:, 0] == pytest.approx([0.3 / 0.6] * 3)  # bias² * 3 / (bias² * 3 + ridge)


class TestRuledOut:
    def test_what_was_predicted_of_corrections(self):
        one, other = (replace(row, label="supports") for row in examples(2))
        rows = [told(one, "refutes"), told(other, "supports"), one]
        expected = np.zeros((3, 3), dtype=bool)
        expected[0, INDEX["refutes"]] = True
        assert (ruled_out(rows) == expected).all()


class TestSuspicions:
    def test_wrong_labels_come_first(self, deberta, rows):
        found = suspicions(deberta, rows)
        assert list(found) == [row.id for row in rows]
        assert all(0 <= value <= 1 for value in found.values())
        upper = sorted(found, key=lambda name: -found[name])[: len(rows) // 4]
        assert len({row.id for row in rows[:8]} & set(upper)) >= 6  # by chance: 2

    def test_a_correction_is_asked_about_the_other_two_labels(self, deberta, rows, monkeypatch):
        likely = np.tile([[0.5, 0.3, 0.2]], (2, 1))
        monkeypatch.setattr(module, "expected", lambda base, reviewed: likely)
        first, second, neutral = LABELS
        row = replace(rows[0], label=second)
        found = suspicion_of(deberta, [told(row, first), told(row, second)])
        assert found == pytest.approx([0.2 / 0.5, 0.7])
        found = suspicion_of(deberta, [told(row, neutral)] * 2)
        assert found == pytest.approx([0.5 / 0.8] * 2)

    def test_only_what_people_said_is_suspected(self, deberta, rows):
        others = [*examples(9, seed=3, source="replay"), *examples(9, seed=4, source="foreign")]
        assert suspicions(deberta, [*others, *rows]) == suspicions(deberta, rows)

    @pytest.mark.parametrize("count", [0, 1])
    def test_of_one_row_nothing_can_be_told(self, deberta, rows, count):
        assert suspicions(deberta, rows[:count]) == {}

    def test_two_rows_are_held_against_each_other(self, deberta, rows):
        assert all(0 <= value <= 1 for value in suspicions(deberta, rows[:2]).values())
