"""Folds: every reviewed row is judged by a student that did not learn from it."""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import make_tiny_model
from tiny_training import TURNED, examples, figures, log_rows, make_trainer, train

from lyra_nli.labels import INDEX, LABELS
from lyra_nli.models.base import load_base
from lyra_nli.records import Example, Pair
from lyra_nli.training.folds import OutOfFold, best_epoch, cut, epoch_figures, write_rows
from lyra_nli.training.lessons import Lessons
from lyra_nli.training.log import TrainingLog


def lessons_of(rows: list[tuple[str, str]]) -> Lessons:
    """Lessons of (group, label); only these matter for a cut."""
    made = tuple(
        Example(f"r{i}", Pair("p", "h"), label, "agreed", group=group)
        for i, (group, label) in enumerate(rows)
    )
    labels = torch.tensor([INDEX[label] for _, label in rows], dtype=torch.long)
    return Lessons(made, (), labels, torch.ones(len(rows)), torch.zeros(len(rows), 3))


def out_of(logits: list[list[list[float]]], labels: list[str]) -> OutOfFold:
    rows = tuple(
        Example(f"r{i}", Pair("p", "h"), label, "agreed", group="g")
        for i, label in enumerate(labels)
    )
    targets = torch.tensor([INDEX[label] for label in labels])
    return OutOfFold(rows, targets, [torch.tensor(each) for each in logits], folds=2)


class TestCut:
    @settings(deadline=None)
    @given(
        st.lists(st.tuples(st.sampled_from("abcdefghij"), st.sampled_from(LABELS)), max_size=50),
        st.integers(0, 7),
        st.integers(0, 99),
        st.randoms(use_true_random=False),
    )
    def test_every_row_once_and_groups_whole(self, rows, folds, seed, rng):
        lessons = lessons_of(rows)
        some = rng.sample(range(len(rows)), k=rng.randint(0, len(rows)))
        parts = cut(lessons, some, folds, seed)
        assert sorted(row for part in parts for row in part) == sorted(some)
        assert all(parts)
        groups = [{rows[row][0] for row in part} for part in parts]
        assert len(set().union(*groups)) == sum(map(len, groups))
        assert len(parts) <= max(1, min(folds, len({rows[row][0] for row in some})))
        assert cut(lessons, some, folds, seed) == parts

    def test_labels_are_spread_evenly(self):
        lessons = lessons_of([(f"g{i}", LABELS[0 if i % 6 else 1]) for i in range(60)])
        parts = cut(lessons, range(60), 5, 13)
        counts = [Counter(lessons.examples[row].label for row in part) for part in parts]
        assert counts == [Counter({LABELS[0]: 10, LABELS[1]: 2})] * 5

    def test_another_seed_cuts_otherwise(self):
        lessons = lessons_of([(f"g{i}", LABELS[i % 3]) for i in range(60)])
        assert cut(lessons, range(60), 5, 1) != cut(lessons, range(60), 5, 2)

    def test_few_groups_make_fewer_folds(self):
        lessons = lessons_of([(f"g{i % 3}", LABELS[i % 2]) for i in range(30)])
        parts = cut(lessons, range(30), 5, 13)
        assert sorted(sorted({row % 3 for row in part}) for part in parts) == [[0], [1], [2]]

    @pytest.mark.parametrize("folds", [0, 1, 5])
    def test_one_group_is_one_part(self, folds):
        assert cut(lessons_of([("g", "neutral")] * 9), range(9), folds, 13) == [list(range(9))]

    @pytest.mark.parametrize("folds", [0, 1])
    def test_no_folds_are_wanted(self, folds):
        lessons = lessons_of([(f"g{i}", "neutral") for i in range(9)])
        assert cut(lessons, range(9), folds, 13) == [list(range(9))]

    def test_no_rows_make_no_part(self):
        assert cut(lessons_of([]), [], 5, 13) == []

    def test_one_row_of_each_label(self):
        lessons = lessons_of([(label, label) for label in LABELS])
        assert cut(lessons, range(3), 5, 13) == [[0, 1, 2]]


class TestBestEpoch:
    @pytest.mark.parametrize(
        ("nlls", "errors", "expected"),
        [
            ([0.9], [0.1], 1),
            ([0.9, 0.5, 0.7], [0.1, 0.1, 0.1], 2),
            ([0.9, 0.5, 0.6], [0.1, 0.1, 0.1], 3),  # 0.6 is not above 0.5 + 0.1
            ([0.9, 0.5, 0.75, 0.55], [0.1, 0.1, 0.1, 0.1], 4),  # after an epoch that is above
            ([0.5, 0.6, 0.7], [0.25, 0.0, 0.0], 3),  # the lowest one's error counts
            ([0.5, 0.6, 0.7], [0.0, 9.0, 9.0], 1),  # and no other's
            ([0.5, 0.5, 0.5], [0.0, 0.0, 0.0], 3),
            ([0.5, 0.625, 0.63], [0.125, 0.0, 0.0], 2),  # the bound itself is within
        ],
    )
    def test_the_last_one_within_an_error_of_the_lowest(self, nlls, errors, expected):
        history = [{"nll": n, "nll_error": e} for n, e in zip(nlls, errors, strict=True)]
        assert best_epoch(history) == expected

    def test_figures_by_hand(self):
        """Two rows with probabilities 1/2 and 1/4 for their labels."""
        logits = torch.tensor([[2.0, 1.0, 1.0], [1.0, 1.0, 2.0]]).log()
        found = epoch_figures(logits, torch.tensor([0, 1]))
        assert found == {
            "nll": pytest.approx(1.5 * math.log(2)),
            "nll_error": pytest.approx(0.5 * math.log(2) / math.sqrt(2)),
            "accuracy": 0.5,
        }


class TestOutOfFold:
    def test_losses_and_history_of_every_epoch(self):
        even = [0.0, 0.0, 0.0]
        unseen = out_of([[even, even], [[9.0, 0, 0], [9.0, 0, 0]]], ["supports", "refutes"])
        first, second = unseen.history()
        assert first["nll"] == pytest.approx(math.log(3))
        assert second["accuracy"] == 0.5
        assert unseen.losses(1) == pytest.approx([math.log(3)] * 2)
        right, wrong = unseen.losses(2)
        assert right < 0.01 < 8.9 < wrong

    def test_every_row_is_a_line(self, tmp_path):
        answers = [[[0.0, 0.0, 0.0]] * 2, [[math.log(2), 0.0, 0.0], [0.0, 0.0, math.log(6)]]]
        write_rows(tmp_path / "o.jsonl", out_of(answers, ["supports", "refutes"]).rows(2))
        rows = [json.loads(line) for line in (tmp_path / "o.jsonl").read_text().splitlines()]
        assert rows == [
            {
                "id": "r0",
                "part": "fold",
                "label": "supports",
                "probabilities": pytest.approx({"supports": 0.5, "refutes": 0.25, "neutral": 0.25}),
                "loss": pytest.approx(math.log(2)),
            },
            {
                "id": "r1",
                "part": "fold",
                "label": "refutes",
                "probabilities": pytest.approx(
                    {"supports": 0.125, "refutes": 0.125, "neutral": 0.75}
                ),
                "loss": pytest.approx(math.log(8)),
            },
        ]

    def test_each_fold_is_judged_by_those_who_learned_from_the_others(self, deberta, tmp_path):
        reviewed = [replace(row, group=f"g{i % 9}") for i, row in enumerate(examples(27))]
        replayed = examples(8, seed=3, source="replay")
        rows = [*replayed[:4], *reviewed, *replayed[4:]]
        with TrainingLog(tmp_path) as log:
            trainer = make_trainer(deberta, log, epochs=2, folds=3)
            lessons = trainer.lessons(rows)
            unseen = trainer.out_of_fold(lessons)

            mine = range(4, 31)
            assert list(unseen.examples) == [rows[row] for row in mine]
            assert [LABELS[target] for target in unseen.targets] == [e.label for e in reviewed]
            assert (unseen.folds, len(unseen.logits)) == (3, 2)
            order = list(deberta.labels.order)
            for part in cut(lessons, mine, 3, trainer.recipe.seed):
                others = [row for row in mine if row not in part]
                # In the order of the rows, replayed ones last.
                fitted = trainer.fit(lessons, [*others, *range(4), *range(31, 35)], watched=part)
                for epoch in range(2):
                    own = unseen.logits[epoch][[row - 4 for row in part]]
                    assert torch.equal(own, fitted.watched[epoch][:, order])

    def test_replayed_rows_alone_are_no_folds(self, deberta, tmp_path):
        with TrainingLog(tmp_path) as log:
            trainer = make_trainer(deberta, log, folds=3)
            assert trainer.out_of_fold(trainer.lessons(examples(12, source="replay"))) is None

    def test_one_group_leaves_the_choice_to_the_dev_rows(self, deberta, tmp_path):
        rows = [replace(row, group="g") for row in examples(20)]
        dev = [replace(row, group="g") for row in examples(10, seed=1)]
        run = train(deberta, tmp_path, rows, dev, epochs=2, folds=5)
        assert run.trained.out_of_fold is None
        assert not run.trained.dev_learned
        assert {row["phase"] for row in log_rows(tmp_path, "epoch")} == {"final"}
        assert figures(run.trained.history, "nll") == pytest.approx(
            figures(log_rows(tmp_path, "epoch"), "watched_nll")
        )

    def test_with_folds_the_dev_rows_are_learned_from(self, deberta, tmp_path):
        rows, dev = examples(30), examples(18, seed=1)
        run = train(deberta, tmp_path, rows, dev, epochs=2, folds=2)
        assert run.trained.dev_learned
        assert [e.id for e in run.trained.out_of_fold.examples] == [e.id for e in (*rows, *dev)]
        assert run.trained.fitted.steps == 3 * run.trained.best_epoch
        assert run.trained.fitted.watched == []

    def test_folds_choose_the_epoch(self, deberta, tmp_path):
        # What is right in one group is wrong in the other: whoever learns answers worse.
        rows = [replace(row, group="straight") for row in examples(40)]
        rows += [
            replace(row, group="turned", label=TURNED[row.label]) for row in examples(40, seed=1)
        ]
        run = train(deberta, tmp_path, rows, epochs=5, folds=3)
        assert run.trained.out_of_fold.folds == 2
        assert run.trained.history == run.trained.out_of_fold.history()
        assert run.trained.best_epoch == best_epoch(run.trained.history)
        assert run.trained.fitted.epochs == run.trained.best_epoch < 5

    def test_wrong_labels_cost_most(self, deberta, tmp_path):
        rows = examples(150)
        wrong = set(range(0, 150, 15))
        rows = [
            replace(row, label=TURNED[row.label]) if i in wrong else row
            for i, row in enumerate(rows)
        ]
        unseen = train(deberta, tmp_path, rows, epochs=6, folds=3).trained.out_of_fold
        losses = unseen.losses(6)
        worst = sorted(range(150), key=lambda i: -losses[i])[: len(wrong)]
        assert len(wrong & set(worst)) >= 7

    @pytest.mark.parametrize(
        "names",
        [("neutral", "entailment", "contradiction"), ("contradiction", "neutral", "entailment")],
    )
    def test_columns_are_labels_whatever_the_models_own_order(self, tmp_path, names):
        base = load_base(str(make_tiny_model(tmp_path / "m", id2label=dict(enumerate(names)))))
        run = train(base, tmp_path, examples(60), epochs=3, folds=2)
        unseen = run.trained.out_of_fold
        logged = log_rows(tmp_path, "epoch")[:6]
        sizes = Counter(len(p) for p in cut(run.trainer.lessons(examples(60)), range(60), 2, 13))
        assert sizes == {30: 2}
        for epoch, found in enumerate(unseen.history()):
            for name in ("nll", "accuracy"):
                mean = (logged[epoch][f"watched_{name}"] + logged[epoch + 3][f"watched_{name}"]) / 2
                assert found[name] == pytest.approx(mean, rel=1e-4)
        assert unseen.history()[-1]["accuracy"] > 0.5
