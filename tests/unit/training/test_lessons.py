"""Lessons: targets that go by more than one person's word."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tiny_training import TURNED, adapter_bytes, examples, make_trainer

from lyra_nli.labels import INDEX
from lyra_nli.records import Review
from lyra_nli.training.lessons import Lessons
from lyra_nli.training.log import TrainingLog

ROWS = [
    *examples(4, seed=5, source="replay"),
    *examples(40),
    *examples(4, seed=6, source="foreign"),
]
REVIEWED = range(4, 44)


@pytest.fixture
def lessons(deberta, tmp_path) -> Lessons:
    with TrainingLog(tmp_path / "log") as log:
        return make_trainer(deberta, log, second_opinion=0.4).lessons(ROWS)


def test_a_share_of_the_target_is_what_the_others_say(deberta, lessons):
    taught = range(4, 30)
    softened = lessons.softened(taught, 0.4)
    likely = lessons.opinions.of(range(26)).likely()
    for row in taught:
        for label, column in INDEX.items():
            model = deberta.labels.order[column]
            expected = 0.6 * (ROWS[row].label == label) + 0.4 * likely[row - 4, column]
            assert softened[row, model].item() == pytest.approx(expected, abs=1e-6)
    others = [row for row in range(len(ROWS)) if row not in taught]
    assert torch.equal(softened[others], lessons.targets[others])


def test_what_is_judged_has_no_say(deberta, tmp_path, lessons):
    taught, judged = range(30), range(30, 44)
    turned = [replace(r, label=TURNED[r.label]) if i in judged else r for i, r in enumerate(ROWS)]
    with TrainingLog(tmp_path / "log") as log:
        other = make_trainer(deberta, log, second_opinion=0.4).lessons(turned)
    assert torch.equal(lessons.softened(taught, 0.4)[:30], other.softened(taught, 0.4)[:30])
    everything = range(len(ROWS))
    assert not torch.equal(
        lessons.softened(everything, 0.4)[:30], other.softened(everything, 0.4)[:30]
    )


@pytest.mark.parametrize("taught", [[], [0, 1], [0, 4]])
def test_one_reviewed_row_is_left_as_it_is(lessons, taught):
    assert torch.equal(lessons.softened(taught, 0.4), lessons.targets)


def test_nobody_is_asked_without_a_share(deberta, tmp_path):
    with TrainingLog(tmp_path / "log") as log:
        plain = make_trainer(deberta, log).lessons(ROWS)
    assert plain.opinions is None
    assert plain.softened(REVIEWED, 0.0) is plain.targets


def test_a_wrong_label_loses_part_of_its_target(deberta, tmp_path):
    rows = [replace(row, label=TURNED[row.label]) for row in examples(6, seed=1)]
    rows += examples(66, seed=2)
    rows = [
        replace(row, review=Review(row.id, row.pair, row.label, None, None, "")) for row in rows
    ]
    with TrainingLog(tmp_path / "log") as log:
        lessons = make_trainer(deberta, log, second_opinion=0.4).lessons(rows)
    own = lessons.softened(range(72), 0.4)[range(72), lessons.labels]
    assert own[:6].mean() < own[6:].mean() - 0.05


def test_the_fit_learns_from_them_and_the_same_again(deberta, tmp_path):
    learned = []
    for share in (0.0, 0.4, 0.4):
        with TrainingLog(tmp_path / "log") as log:
            trainer = make_trainer(deberta, log, second_opinion=share, epochs=1)
            trainer.fit(trainer.lessons(ROWS[4:20]), range(16))
            learned.append(adapter_bytes(trainer))
    assert learned[0] != learned[1] == learned[2]
