"""Opinions: what all other labels say of one, and what is learned of it."""

from __future__ import annotations

import numpy as np
import pytest

from lyra_nli.labels import INDEX, LABELS
from lyra_nli.training import opinions as module
from lyra_nli.training.opinions import Opinions, left_out


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


def opinions(labels: list[str], corrected: list[str | None]) -> Opinions:
    """Rows whose vectors say nothing, of a base that says nothing."""
    ruled_out = np.zeros((len(labels), 3), dtype=bool)
    for row, predicted in enumerate(corrected):
        if predicted:
            ruled_out[row, INDEX[predicted]] = True
    own = np.array([INDEX[label] for label in labels])
    return Opinions(
        tuple(map(str, range(len(labels)))),
        own,
        ruled_out,
        np.ones((len(labels), 2), np.float32),
        np.full((len(labels), 3), 1 / 3),
    )


class TestOpinions:
    def test_what_was_ruled_out_is_out_of_the_question(self, monkeypatch):
        first, second, _ = LABELS
        asked = opinions([second, second], [first, None])
        likely = np.tile([[0.5, 0.3, 0.2]], (2, 1))
        monkeypatch.setattr(Opinions, "expected", lambda self: likely)
        assert asked.likely()[0] == pytest.approx([0.0, 0.6, 0.4])
        assert asked.likely()[1] == pytest.approx(likely[1])
        assert asked.suspicion() == pytest.approx([0.4, 0.7])

    def test_most_others_are_believed(self):
        """Nine rows alike, one of which says otherwise."""
        asked = opinions(["supports"] * 8 + ["refutes"], [None] * 9)
        expected = asked.expected()
        assert expected.sum(axis=1) == pytest.approx(np.ones(9))
        assert (expected.argmax(axis=1) == INDEX["supports"]).all()
        assert asked.suspicion().argmax() == 8

    def test_some_rows_know_nothing_of_the_others(self):
        asked = opinions(["supports"] * 8 + ["refutes"] * 3, [None] * 11)
        some = asked.of([8, 9, 10])
        assert (some.expected().argmax(axis=1) == INDEX["refutes"]).all()
        assert some.ruled_out.shape == some.said.shape == (3, 3)
