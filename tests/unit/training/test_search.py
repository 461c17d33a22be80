"""The search: what it tries, what it gives up, and who may judge its choice."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any

import pytest
import torch
from tiny_models import make_tiny_model
from tiny_training import RECIPE, examples, log_rows, make_trainer

from lyra_nli.errors import DatasetError, TrainingError
from lyra_nli.evaluation.scoring import brier
from lyra_nli.labels import LABELS
from lyra_nli.models.base import load_base
from lyra_nli.records import Example, Pair
from lyra_nli.settings import TrainingSettings
from lyra_nli.training.checkpoint import Checkpoints
from lyra_nli.training.log import TrainingLog
from lyra_nli.training.parts import PartAnswers
from lyra_nli.training.search import Found, Search
from lyra_nli.training.space import Space
from lyra_nli.training.students import search
from lyra_nli.training.trials import Trial, choose

SETTINGS = TrainingSettings(strengths=(0.5, 1.0))
SPACE = Space(SETTINGS, 12)
ROWS = 24
"""Rows of a part."""


def rows_of(part: int) -> tuple[Example, ...]:
    return tuple(
        Example(f"{part}:{i}", Pair("p", "h"), LABELS[i % 3], "agreed", group=f"g{part}:{i}")
        for i in range(ROWS)
    )


def said(part: int, sure: float, seconds: float = 1.0) -> PartAnswers:
    """Answers that lean to the right label by so much, and half as much at half strength."""
    targets = torch.tensor([i % 3 for i in range(ROWS)])
    lean = torch.nn.functional.one_hot(targets, 3).float() * sure
    positions = range(part * ROWS, (part + 1) * ROWS)
    logits = {strength: strength * lean for strength in SETTINGS.strengths}
    return PartAnswers(positions, rows_of(part), logits, [lean], seconds, 0)


class World:
    """Students whose answers are a function of recipe and part; keeps what was asked."""

    def __init__(self, sure: Callable[[TrainingSettings, int], float], seconds: float = 1.0):
        self.sure, self.seconds = sure, seconds
        self.asked: list[tuple[int, int]] = []
        self.told: list[Trial] = []

    def __call__(self, trial: Trial, label: str) -> Callable[[int], PartAnswers]:
        def answer(part: int) -> PartAnswers:
            self.asked.append((trial.number, part))
            return said(part, self.sure(trial.recipe, part), self.seconds)

        return answer

    def run(self, minutes: float, parts: int = 5) -> Found:
        return Search(SPACE, self, parts, minutes, self.told.append).run()


def faster_is_better(recipe: TrainingSettings, part: int) -> float:
    return 1000 * recipe.learning_rate


def chance(recipe: TrainingSettings, part: int, salt: int = 0) -> float:
    """Nothing but luck, of every recipe and part anew."""
    return zlib.crc32(f"{salt}:{recipe.learning_rate}:{part}".encode()) % 1000 / 500 - 1


class TestSpace:
    def test_the_settings_recipe_lies_in_it(self):
        assert SPACE.at(SPACE.own) == SETTINGS
        for name, value in SPACE.own.items():
            distribution = SPACE.distributions[name]
            assert distribution._contains(distribution.to_internal_repr(value)), name

    @pytest.mark.parametrize(
        "changes",
        [
            {"learning_rate": 0.3},
            {"layers": "all", "rank": 1, "epochs": 1},
            {"layers": 40, "rank": 256, "epochs": 100, "kl_weight": 9.0, "foreign_share": 3.0},
            {"label_smoothing": 1.0, "alpha": 0.01},
        ],
    )
    def test_so_does_any_other_recipe(self, changes):
        space = Space(SETTINGS.model_copy(update=changes), 12)
        found = space.at(space.own)
        assert found.model_dump() == {**SETTINGS.model_dump(), **changes}
        for name, value in space.own.items():
            distribution = space.distributions[name]
            assert distribution._contains(distribution.to_internal_repr(value)), name

    def test_alpha_keeps_its_scale_when_the_rank_changes(self):
        recipe = SPACE.at({**SPACE.own, "rank": 16, "learning_rate": 0.00123456})
        assert (recipe.alpha, recipe.learning_rate) == (64.0, 0.00123)
        assert SPACE.changes(recipe) == {"alpha": 64.0, "learning_rate": 0.00123, "rank": 16}

    def test_more_layers_and_epochs_are_more_effort(self):
        assert SPACE.effort(SETTINGS.model_copy(update={"layers": "all", "epochs": 6})) == 6.0


class TestSearch:
    def test_a_better_recipe_is_found(self):
        found = World(faster_is_better).run(minutes=0.6)
        assert found.chosen.recipe.learning_rate > SETTINGS.learning_rate
        assert found.brier[0] < found.brier[1]
        assert found.unseen.strength == 1.0
        assert [e.id for e in found.unseen.examples] == [
            e.id for part in range(5) for e in rows_of(part)
        ]
        assert found.unseen.folds == 5

    def test_never_worse_than_the_settings_by_its_own_measure(self):
        found = World(lambda recipe, part: 3.0 if recipe == SETTINGS else 1.0).run(minutes=0.4)
        assert found.chosen.number == 0
        assert found.chosen.recipe == SETTINGS
        assert found.summary()["changes"] == {}

    def test_both_halves_are_searched_and_only_the_best_answer_the_other(self):
        world = World(faster_is_better)
        found = world.run(minutes=0.6)
        halves = ({0, 2, 4}, {1, 3})
        whole = [t for t in found.trials[1:] if t.knows(range(5))]
        assert {trial.half for trial in whole} == {0, 1}
        assert len(whole) == 2
        for trial in found.trials[1:]:
            if trial not in whole:
                assert set(trial.answers) <= halves[trial.half]
        assert {trial.half for trial in found.trials} == {None, 0, 1}

    def test_a_half_is_answered_by_what_the_other_chose(self):
        """Recipes that are good on even parts are bad on odd ones: what even parts choose is
        bad there, and that is what the evidence says; the final choice is by all rows."""

        def torn(recipe: TrainingSettings, part: int) -> float:
            lean = 2000 * (recipe.learning_rate - SETTINGS.learning_rate)
            return 1.0 + (lean if part % 2 == 0 else -lean)

        found = World(torn).run(minutes=0.6)
        first, second = (
            min(
                (t for t in found.trials if t.half in (None, half) and t.knows(parts)),
                key=lambda trial: trial.best(parts)[0],
            )
            for half, parts in ((0, (0, 2, 4)), (1, (1, 3)))
        )
        answers = found.unseen.logits[found.unseen.strength]
        for part in range(5):
            leader, own = (second, (1, 3)) if part % 2 == 0 else (first, (0, 2, 4))
            strength = leader.best(own)[1]
            mine = answers[part * ROWS : (part + 1) * ROWS]
            assert torch.equal(mine, leader.answers[part].logits[strength])
        assert torch.equal(found.unseen.honest(), answers)
        assert first.recipe != second.recipe

    def test_luck_is_chosen_and_not_believed(self):
        """Where recipes differ by luck alone, the best of many looks better than the settings'
        own by the rows that chose it, and no better by those that had no say."""
        believed, told, own = [], [], []
        for salt in range(10):
            found = World(partial(chance, salt=salt)).run(minutes=0.5)
            answers = found.unseen.honest().double().softmax(dim=-1).numpy()
            believed.append(found.brier[0])
            told.append(brier(answers, found.unseen.targets.numpy()))
            own.append(found.brier[1])
        assert mean(believed) < mean(own) - 0.05
        assert mean(told) > mean(own) - 0.02

    def test_a_bad_recipe_is_given_up_after_its_first_part(self):
        slower = World(lambda recipe, part: 2.0 if recipe == SETTINGS else 1.0)
        found = slower.run(minutes=0.4)
        asked = Counter(number for number, _ in slower.asked)
        tried = [trial for trial in found.trials[1:] if trial.state != "cut"]
        assert {trial.state for trial in tried} == {"pruned"}
        assert all(asked[trial.number] == 1 for trial in tried)
        assert found.summary()["pruned"] == len(tried) > 5

    @pytest.mark.parametrize("minutes", [0.3, 0.6])
    def test_the_budget_is_kept(self, minutes):
        world = World(faster_is_better, seconds=1.5)
        found = world.run(minutes)
        spent = sum(trial.seconds for trial in found.trials[1:])
        assert spent == found.summary()["seconds"]
        assert spent <= 60 * minutes
        assert spent > 60 * minutes - 15  # what the best may need, and one more
        assert [trial.number for trial in world.told] == list(range(len(found.trials)))

    def test_a_recipe_that_would_take_too_long_is_not_begun(self):
        world = World(faster_is_better)
        found = world.run(minutes=0.25)
        cut = [trial for trial in found.trials if trial.state == "cut"]
        assert cut
        assert {trial.number for trial in cut if SPACE.effort(trial.recipe) > 3} <= {
            trial.number for trial in found.trials if not trial.answers
        }

    def test_no_time_for_a_single_recipe(self):
        world = World(faster_is_better, seconds=60)
        found = world.run(minutes=2)
        assert found.chosen.recipe == SETTINGS
        assert found.summary()["tried"] == 0
        assert [part for _, part in world.asked] == [0, 2, 4, 1, 3]

    def test_a_recipe_that_can_not_be_fitted_is_passed_over(self):
        def torn(recipe: TrainingSettings, part: int) -> float:
            if recipe != SETTINGS:
                raise TrainingError("the loss became nan")
            return 1.0

        with pytest.raises(TrainingError):
            World(lambda recipe, part: torn(SETTINGS.model_copy(update={"rank": 4}), part)).run(1)

        def sometimes(recipe: TrainingSettings, part: int) -> float:
            if recipe.rank == 16:
                raise TrainingError("the loss became nan")
            return faster_is_better(recipe, part)

        found = World(sometimes).run(minutes=0.8)
        assert found.summary()["failed"] > 0
        assert found.chosen.recipe.rank != 16
        assert found.chosen.recipe.learning_rate > SETTINGS.learning_rate

    def test_the_best_of_a_half_that_fails_on_the_other_is_not_chosen(self):
        def torn(recipe: TrainingSettings, part: int) -> float:
            if recipe != SETTINGS and part in (1, 3) and recipe.learning_rate > 0.001:
                raise TrainingError("the loss became nan")
            return faster_is_better(recipe, part)

        found = World(torn).run(minutes=0.4)
        best = min(
            (t for t in found.trials if t.half == 0 and t.answers), key=lambda t: t.best([0])
        )
        assert best.state == "failed"
        assert found.chosen.knows(range(5))

    def test_the_same_answers_make_the_same_search(self):
        first, second = World(chance).run(minutes=0.5), World(chance).run(minutes=0.5)
        assert first.summary() == second.summary()
        assert first.summary()["tried"] > 5

    def test_two_folds_have_a_half_each_and_one_is_not_enough(self):
        assert World(faster_is_better).run(minutes=0.4, parts=2).unseen.folds == 2
        with pytest.raises(DatasetError, match="two folds"):
            World(faster_is_better).run(minutes=1, parts=1)


def test_of_equals_the_first_trial_and_the_weakest_adapter() -> None:
    same = {part: said(part, 0.0) for part in (0, 1)}
    first, second = (Trial(n, None, SETTINGS, {}, dict(same)) for n in (0, 1))
    assert choose([first, second], (0, 1)) == (first, 0.5)


def test_students_are_fitted_by_every_recipe_and_the_log_tells(tmp_path) -> None:
    """As a training does: real fits of a tiny model."""
    base = load_base(str(make_tiny_model(tmp_path / "base")))
    rows = [replace(row, group=f"g{i % 12}") for i, row in enumerate(examples(48))]
    recipe = RECIPE.model_copy(update={"folds": 2, "epochs": 1, "strengths": (0.5, 1.0)})
    with TrainingLog(tmp_path / "log") as log:

        def make(tried: TrainingSettings):
            return make_trainer(base, log, **tried.model_dump())

        plain = make(recipe)
        unseen = plain.out_of_fold(plain.mixed(rows, []))
        found = search(make, recipe, rows, [], log, minutes=0.1)
    own = found.trials[0]
    for part, answers in own.answers.items():
        mine = unseen.parts == part + 1
        for strength in recipe.strengths:
            assert torch.equal(answers.logits[strength], unseen.logits[strength][mine])
    assert len(found.unseen.examples) == len(rows)
    told = log_rows(tmp_path, "trial")
    assert [row["trial"] for row in told] == [trial.number for trial in found.trials]
    assert told[0]["brier"] == pytest.approx(found.brier[1])
    phases = {row["phase"] for row in log_rows(tmp_path, "step")}
    assert "the settings' recipe, fold 1 of 2" in phases
    assert any(phase.startswith("trial 1, best Brier") for phase in phases) or not told[1:]


def test_a_search_that_was_killed_goes_on_where_it_was(tmp_path) -> None:
    base = load_base(str(make_tiny_model(tmp_path / "base")))
    rows = [replace(row, group=f"g{i % 8}") for i, row in enumerate(examples(24))]
    recipe = RECIPE.model_copy(update={"folds": 2, "epochs": 1})

    def run(folder: Path, until: int) -> list[dict]:
        """Search until this trial has ended; what the log tells of the trials."""

        class Killed(TrainingLog):
            def trial(self, trial: int, facts: Mapping[str, Any]) -> None:
                super().trial(trial, facts)
                if trial == until:
                    raise KeyboardInterrupt

        with Killed(folder / "log") as log:

            def make(tried: TrainingSettings):
                kept = Checkpoints(tmp_path / "kept", tried.model_dump(mode="json"))
                return make_trainer(base, log, checkpoints=kept, **tried.model_dump())

            with pytest.raises(KeyboardInterrupt):
                search(make, recipe, rows, [], log, minutes=600)
        return [{**row, "seconds": 0} for row in log_rows(folder, "trial")]

    first, second = run(tmp_path / "first", 1), run(tmp_path / "second", 2)
    assert len(first) == 2
    assert second[:2] == first
    assert len(second) == 3
    stepped = {row["phase"].split(",")[0] for row in log_rows(tmp_path / "second", "step")}
    assert stepped == {"trial 2"}
