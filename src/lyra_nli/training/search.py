"""The search: other recipes tried within a budget, and judged by rows that did not propose them.

The folds fall into two halves, and each half has a search of its own: its rows alone propose
recipes (a tree-structured Parzen estimator: Bergstra et al. 2011, Algorithms for hyper-parameter
optimization) and prune them. The best of either half then answers the other half too. Evidence for
the gate is what a half's rows were told by the recipe that the *other* half chose, so that no row
judges a choice in which it had a say (Cawley & Talbot 2010, On over-fitting in model selection);
what is trained in the end is the best by all rows, of the two and the settings' own recipe.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import optuna
from optuna.pruners import MedianPruner
from optuna.samplers import TPESampler
from optuna.trial import TrialState, create_trial

from lyra_nli.errors import DatasetError, TrainingError
from lyra_nli.settings import TrainingSettings
from lyra_nli.training.folds import OutOfFold
from lyra_nli.training.parts import PartAnswers, together
from lyra_nli.training.space import Space
from lyra_nli.training.trials import Trial, choose, told

Ask: TypeAlias = Callable[[Trial, str], Callable[[int], PartAnswers]]
"""(trial, best so far in words) -> a function that fits the trial's student of a part."""

_AT_RANDOM = 5
"""Recipes of a half that are drawn at random before the estimator knows enough."""

_IN_A_ROW = 5
"""Recipes that took too long for the time left, or failed, until the search ends."""


@dataclass(frozen=True)
class Found:
    """What a search gave.

    Attributes:
        chosen: the best of those that answered every part, the settings' own among them.
        unseen: every part answered by the recipe that the other half chose; its one strength is
            the chosen one's.
        brier: of the chosen one and of the settings' own recipe, on all rows.
        minutes: the budget.
    """

    chosen: Trial
    unseen: OutOfFold
    trials: Sequence[Trial]
    brier: tuple[float, float]
    minutes: float

    def summary(self) -> dict[str, Any]:
        """The plain figures, ready for JSON."""
        tried = self.trials[1:]
        states = [trial.state for trial in tried]
        return {
            "minutes": self.minutes,
            "seconds": sum(trial.seconds for trial in tried),
            "tried": len(tried),
            **{state: states.count(state) for state in ("finished", "pruned", "cut", "failed")},
            "chosen": self.chosen.number,
            "changes": dict(self.chosen.changes),
            "brier": self.brier[0],
            "brier_of_settings": self.brier[1],
            "trials": [told(trial) for trial in self.trials],
        }


class Search:
    """One search.

    Args:
        ask: fits and asks the students.
        parts: how many folds there are, two at least.
        minutes: what all fits may take but those of the settings' own recipe, which a training
            needs anyway.
        tell: is told of every trial that has ended.
    """

    def __init__(
        self,
        space: Space,
        ask: Ask,
        parts: int,
        minutes: float,
        tell: Callable[[Trial], object],
    ) -> None:
        if parts < 2:
            raise DatasetError(
                "a search needs reviews that fall into two folds or more",
                hint="Review edges of more pages and claims; training.folds must be at least 2.",
            )
        self.space, self.ask, self.tell, self.minutes = space, ask, tell, minutes
        self.halves = (range(0, parts, 2), range(1, parts, 2))
        self.own = Trial(0, None, space.recipe, {})
        self.trials = [self.own]
        self._leaders = [self.own, self.own]

    def run(self) -> Found:
        """Try recipes until the budget is used up.

        Raises:
            TrainingError: the settings' own recipe can't be fitted.
        """
        everything = [part for half in self.halves for part in half]
        self._answer(self.own, everything)
        self.tell(self.own)
        studies = [self._study(half) for half in (0, 1)]
        for half in itertools.cycle((0, 1)):
            if self._over():
                break
            self._try(studies[half], half)
        for half in (0, 1):
            self._finish(half)
        finalists = [trial for trial in self.trials if trial.knows(everything)]
        chosen, strength = choose(finalists, everything)
        brier = chosen.best(everything)[0], self.own.best(everything)[0]
        unseen = self._unseen(chosen, strength)
        return Found(chosen, unseen, self.trials, brier, self.minutes)

    def _study(self, half: int) -> optuna.Study:
        """A study that knows the settings' recipe, and counts what others save against it."""
        optuna.logging.set_verbosity(optuna.logging.WARNING)  # the log of the training tells all
        seed = 2 * self.space.recipe.seed + half
        study = optuna.create_study(
            sampler=TPESampler(seed=seed, n_startup_trials=_AT_RANDOM),
            pruner=MedianPruner(n_startup_trials=1),
        )
        study.add_trial(
            create_trial(
                params=self.space.own,
                distributions=dict(self.space.distributions),
                value=0.0,
                intermediate_values=dict.fromkeys(range(len(self.halves[half])), 0.0),
            )
        )
        return study

    def _try(self, study: optuna.Study, half: int) -> None:
        """Ask one recipe about the parts of a half, as long as it is worth it and time is left."""
        proposed = study.ask(dict(self.space.distributions))
        recipe = self.space.at(proposed.params)
        trial = Trial(len(self.trials), half, recipe, self.space.changes(recipe), state="cut")
        self.trials.append(trial)
        saved = self._ask_half(trial, half, proposed) if self._room(recipe) else None
        if trial.state == "finished":
            self._leaders[half], _ = choose([self._leaders[half], trial], self.halves[half])
            study.tell(proposed, saved)
        else:
            study.tell(proposed, state=TrialState.PRUNED)
        self.tell(trial)

    def _ask_half(self, trial: Trial, half: int, proposed: optuna.Trial) -> float | None:
        """What a recipe saves on the parts of a half that it was asked about."""
        parts, saved = self.halves[half], None
        answer = self.ask(trial, self._so_far())
        for step, part in enumerate(parts):
            if not self._room(trial.recipe, trial):
                return saved
            started = time.monotonic()
            try:
                trial.answers[part] = answer(part)
            except TrainingError:  # such a recipe can't be fitted: the next one
                trial.state, trial.lost = "failed", time.monotonic() - started
                return saved
            asked = parts[: step + 1]
            saved = trial.best(asked)[0] - self.own.best(asked)[0]
            proposed.report(saved, step)
            if proposed.should_prune() and len(asked) < len(parts):
                trial.state = "pruned"
                return saved
        trial.state = "finished"
        return saved

    def _finish(self, half: int) -> None:
        """Ask the best of a half about the other half too."""
        leader, others = self._leaders[half], self.halves[1 - half]
        try:
            if not leader.knows(others):
                self._answer(leader, others)
        except TrainingError:
            leader.state = "failed"
            self._leaders[half] = self.own

    def _answer(self, trial: Trial, parts: Sequence[int]) -> None:
        """Ask a trial's students about more parts."""
        answer = self.ask(trial, self._so_far())
        for part in parts:
            trial.answers[part] = answer(part)

    def _over(self) -> bool:
        """No time is left, or none of those that are proposed comes to an end."""
        latest = [trial.state for trial in self.trials[1:]][-_IN_A_ROW:]
        vain = len(latest) == _IN_A_ROW and set(latest) <= {"cut", "failed"}
        return vain or not self._room(self.space.recipe)

    def _room(self, recipe: TrainingSettings, trial: Trial | None = None) -> bool:
        """Whether one more fit leaves time for the best of each half to answer the other half."""
        expected = self.own.pace * self.space.effort(recipe)
        pace = trial.pace if trial and trial.answers else expected
        rest = sum(
            max(pace, self._leaders[half].pace) * len(self.halves[1 - half]) for half in (0, 1)
        )
        spent = sum(each.seconds for each in self.trials[1:])
        return spent + pace + rest <= 60 * self.minutes

    def _unseen(self, chosen: Trial, strength: float) -> OutOfFold:
        """What every row was told by the recipe and strength that the other half chose."""
        answers = []
        for half, parts in enumerate(self.halves):
            leader = self._leaders[1 - half]
            _, theirs = leader.best(self.halves[1 - half])
            for part in parts:
                said = leader.answers[part]
                answers.append(replace(said, logits={strength: said.logits[theirs]}, epochs=()))
        own = together([each for _, each in sorted(chosen.answers.items())])
        return replace(together(answers), history=own.history)

    def _so_far(self) -> str:
        if not self.own.answers:
            return "the settings' recipe"
        pairs = zip(self._leaders, self.halves, strict=True)
        best = " and ".join(f"{leader.best(parts)[0]:.3f}" for leader, parts in pairs)
        return f"trial {len(self.trials) - 1}, best Brier {best}"
