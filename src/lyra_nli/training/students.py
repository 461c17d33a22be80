"""Students: what a search asks, fitted by one recipe after the other on the same rows."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from lyra_nli.records import Example
from lyra_nli.settings import TrainingSettings
from lyra_nli.training.lessons import Lessons
from lyra_nli.training.log import TrainingLog
from lyra_nli.training.parts import PartAnswers
from lyra_nli.training.search import Found, Search
from lyra_nli.training.space import Space
from lyra_nli.training.trainer import Trainer
from lyra_nli.training.trials import Trial, told


class Students:
    """Asked by a `Search`; keeps the lessons of one recipe at a time.

    Args:
        make_trainer: gives a trainer by a recipe.
    """

    def __init__(
        self,
        make_trainer: Callable[[TrainingSettings], Trainer],
        train: Sequence[Example],
        dev: Sequence[Example],
        log: TrainingLog,
    ) -> None:
        self.make_trainer, self.train, self.dev, self.log = make_trainer, train, dev, log

    def prepare(self, recipe: TrainingSettings) -> tuple[Trainer, Lessons, list[list[int]]]:
        """A trainer by a recipe, its lessons and their parts."""
        trainer = self.make_trainer(recipe)
        lessons = trainer.mixed(self.train, self.dev)
        return trainer, lessons, trainer.parts(lessons)

    def __call__(self, trial: Trial, label: str) -> Callable[[int], PartAnswers]:
        """A function that fits the trial's student of a part; see `search.Ask`."""
        started = time.monotonic()
        with self.log.within(label):
            trainer, lessons, parts = self.prepare(trial.recipe)
        prepared = [time.monotonic() - started]

        def answer(part: int) -> PartAnswers:
            with self.log.within(label):
                said = trainer.answer_part(lessons, parts, part)
            # What it took to get ready counts once, with the first part.
            return replace(said, seconds=said.seconds + (prepared.pop() if prepared else 0.0))

        return answer

    def tell(self, trial: Trial) -> None:
        """Write a trial that has ended into the log."""
        self.log.trial(trial.number, told(trial))


def search(
    make_trainer: Callable[[TrainingSettings], Trainer],
    recipe: TrainingSettings,
    train: Sequence[Example],
    dev: Sequence[Example],
    log: TrainingLog,
    minutes: float,
) -> Found:
    """Look for a better recipe than this one.

    Args:
        minutes: what it may take beyond the folds of the recipe itself.

    Raises:
        DatasetError: the reviews can't be cut into folds.
        TrainingError: the recipe can't be fitted.
    """
    students = Students(make_trainer, train, dev, log)
    trainer, _, parts = students.prepare(recipe)
    space = Space(recipe, trainer.student.depth)
    return Search(space, students, len(parts), minutes, students.tell).run()
