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
from lyra_nli.registry.answers import ANSWERS, write_answers
from lyra_nli.training.folds import OutOfFold, best_strength, cut, epoch_figures
from lyra_nli.training.lessons import Lessons
from lyra_nli.training.log import TrainingLog
from lyra_nli.training.repeating import deterministic


def lessons_of(rows: list[tuple[str, str]]) -> Lessons:
    """Lessons of (group, label); only these matter for a cut."""
    made = tuple(
        Example(f"r{i}", Pair("p", "h"), label, "agreed", group=group)
        for i, (group, label) in enumerate(rows)
    )
    labels = torch.tensor([INDEX[label] for _, label in rows], dtype=torch.long)
    targets = torch.zeros(len(rows), 3)
    ones = torch.ones(len(rows))
    return Lessons(made, (), labels, targets, ones, ones, torch.zeros(len(rows), 3))


SURE = 20.0


def sure(*labels: str) -> torch.Tensor:
    """Logits of a student that is certain of these labels."""
    return SURE * torch.nn.functional.one_hot(torch.tensor([INDEX[x] for x in labels]), 3).float()


def out_of(logits: dict[float, torch.Tensor], labels: list[str], parts: list[int]) -> OutOfFold:
    rows = tuple(
        Example(f"r{i}", Pair("p", "h"), label, "agreed", group="g")
        for i, label in enumerate(labels)
    )
    targets = torch.tensor([INDEX[label] for label in labels])
    return OutOfFold(rows, targets, torch.tensor(parts), logits, [])


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


class TestBestStrength:
    def test_the_lowest_brier_score(self):
        """One of two certain answers wrong: 1. Even answers: 2 / 3. None wrong: 0."""
        targets = torch.tensor([0, 1])
        whole = sure("supports", "supports")
        assert best_strength({1.0: whole, 0.5: torch.zeros(2, 3)}, targets) == 0.5
        assert best_strength({1.0: sure("supports", "refutes"), 0.5: whole}, targets) == 1.0

    def test_a_certain_error_among_many_does_not_decide(self):
        """Nine of ten right: 2 / 10. Even answers: 2 / 3, though likelier (1.1 against 2 nats)."""
        whole = sure(*["supports"] * 9, "neutral")
        even = torch.zeros(10, 3)
        assert best_strength({0.5: even, 1.0: whole}, torch.zeros(10, dtype=torch.long)) == 1.0

    def test_of_equals_the_weakest(self):
        even = torch.zeros(2, 3)
        assert best_strength({1.0: even, 0.5: even, 0.7: even}, torch.tensor([0, 1])) == 0.5

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
    def test_each_fold_answers_as_the_others_ask(self):
        """All rows together ask for 1.0; without fold 1, whose two rows it fixes, for 0.5."""
        labels = ["supports", "supports", "refutes"]
        strong, weak = (
            sure("supports", "supports", "neutral"),
            sure("neutral", "neutral", "refutes"),
        )
        unseen = out_of({0.5: weak, 1.0: strong}, labels, [1, 1, 2])
        assert unseen.strength == 1.0
        assert torch.equal(unseen.honest(), torch.cat([weak[:2], strong[2:]]))
        assert unseen.folds == 2

    def test_every_row_is_a_line(self, tmp_path):
        answers = torch.tensor([[math.log(2), 0.0, 0.0], [0.0, 0.0, math.log(6)]])
        unseen = out_of({1.0: answers}, ["supports", "refutes"], [1, 2])
        write_answers(tmp_path, unseen.rows())
        rows = [json.loads(line) for line in (tmp_path / ANSWERS).read_text().splitlines()]
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
            trainer = make_trainer(deberta, log, epochs=2, folds=3, strengths=(0.5, 1.0))
            lessons = trainer.lessons(rows)
            unseen = trainer.out_of_fold(lessons)

            mine = range(4, 31)
            assert list(unseen.examples) == [rows[row] for row in mine]
            assert [LABELS[target] for target in unseen.targets] == [e.label for e in reviewed]
            assert (unseen.folds, len(unseen.history), set(unseen.logits)) == (3, 2, {0.5, 1.0})
            order = list(deberta.labels.order)
            for part in cut(lessons, mine, 3, trainer.recipe.seed):
                others = [row for row in mine if row not in part]
                # In the order of the rows, replayed ones last.
                trainer.fit(lessons, [*others, *range(4), *range(31, 35)])
                for strength in (0.5, 1.0):
                    trainer.student.strength = strength
                    own = unseen.logits[strength][[row - 4 for row in part]]
                    with deterministic(trainer.recipe.seed, trainer.recipe.threads):
                        told = trainer.student.logits(lessons, part)
                    assert torch.equal(own, told[:, order])

    def test_after_a_warm_start_nobody_learns_from_the_groups_that_he_judges(
        self, deberta, tmp_path
    ):
        """Some rows of a judged claim judge nothing, for the start had seen their page."""
        rows = [replace(row, group=f"g{i % 9}") for i, row in enumerate(examples(27))]
        with TrainingLog(tmp_path) as log:
            trainer = make_trainer(deberta, log, folds=3, foreign_share=0.5)
            trainer.seen = frozenset(row.id for row in rows[::2])
            lessons = trainer.mixed(rows, [])
            parts = trainer.parts(lessons)
            assert sum(map(len, parts)) == 13
            for part in parts:
                judged = {lessons.examples[row].group for row in part}
                texts = {e.pair.premise for e in rows if e.group in judged}
                taught = [lessons.examples[row] for row in trainer._taught_beside(lessons, part)]
                assert {e.group for e in taught if e.source != "foreign"}.isdisjoint(judged)
                foreign = [e.pair.premise for e in taught if e.source == "foreign"]
                assert texts.isdisjoint(foreign)

    def test_the_answers_do_not_hang_on_the_threads_around_them(self, deberta, tmp_path):
        rows = [replace(row, group=f"g{i % 9}") for i, row in enumerate(examples(27))]
        found, around = [], torch.get_num_threads()
        try:
            for threads in (1, 2):
                torch.set_num_threads(threads)
                with TrainingLog(tmp_path / str(threads)) as log:
                    trainer = make_trainer(deberta, log, epochs=1, folds=3, strengths=(1.0,))
                    found.append(trainer.out_of_fold(trainer.lessons(rows)).logits[1.0])
        finally:
            torch.set_num_threads(around)
        assert torch.equal(*found)

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
        assert run.trained.fitted.steps == 3 * 2
        assert run.trained.fitted.watched == []

    def test_folds_choose_the_strength(self, deberta, tmp_path):
        # What is right in one group is wrong in the other: whoever learns answers worse.
        rows = [replace(row, group="straight") for row in examples(40)]
        rows += [
            replace(row, group="turned", label=TURNED[row.label]) for row in examples(40, seed=1)
        ]
        run = train(deberta, tmp_path, rows, epochs=5, folds=3, strengths=(0.1, 0.5, 1.0))
        assert run.trained.out_of_fold.folds == 2
        assert run.trained.history == run.trained.out_of_fold.history
        assert run.trained.strength == run.trained.out_of_fold.strength == 0.1
        assert run.trainer.student.strength == 0.1

    def test_wrong_labels_cost_most(self, deberta, tmp_path):
        rows = examples(150)
        wrong = set(range(0, 150, 15))
        rows = [
            replace(row, label=TURNED[row.label]) if i in wrong else row
            for i, row in enumerate(rows)
        ]
        unseen = train(deberta, tmp_path, rows, epochs=6, folds=3, seed=2).trained.out_of_fold
        losses = [row["loss"] for row in unseen.rows()]
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
        for epoch, found in enumerate(unseen.history):
            for name in ("nll", "accuracy"):
                mean = (logged[epoch][f"watched_{name}"] + logged[epoch + 3][f"watched_{name}"]) / 2
                assert found[name] == pytest.approx(mean, rel=1e-4)
        assert unseen.history[-1]["accuracy"] > 0.5
