"""The trainer: fits a student on lessons, once or fold by fold."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from accelerate.utils import find_executable_batch_size
from torch.nn import functional

from lyra_nli.errors import DatasetError
from lyra_nli.labels import INDEX
from lyra_nli.models.base import Base
from lyra_nli.records import Example
from lyra_nli.settings import TrainingSettings
from lyra_nli.training.checkpoint import Checkpoints
from lyra_nli.training.fit import Fit, Fitted
from lyra_nli.training.folds import AnswerRow, OutOfFold, best_strength, cut, epoch_figures
from lyra_nli.training.foreign import foreign_pairs, without_texts
from lyra_nli.training.lessons import REVIEWED, Lessons, make_lessons
from lyra_nli.training.log import TrainingLog
from lyra_nli.training.machine import compute_dtype, deterministic
from lyra_nli.training.opinions import read_opinions
from lyra_nli.training.student import Student


@dataclass(frozen=True)
class Trained:
    """What a training gave; the student carries the weights.

    Attributes:
        fitted: the last fit.
        strength: of the adapter, 0 to 1, that answers best where it did not learn.
        history: of each epoch, NLL (nats, with its standard error) and accuracy on rows that were
            not learned from: out of fold, or the dev rows.
        out_of_fold: None where there were no folds.
        seconds: of everything, the folds included.
        peak_memory: largest resident size seen, bytes.
    """

    fitted: Fitted
    strength: float
    history: list[dict[str, float]]
    out_of_fold: OutOfFold | None
    seconds: float
    peak_memory: int
    trainable: int
    total: int

    @property
    def dev_learned(self) -> bool:
        """Whether the dev rows were learned from: folds leave them nothing else to do."""
        return self.out_of_fold is not None

    def unseen_rows(self) -> list[AnswerRow]:
        """What the folds' students said about the rows they did not learn from."""
        return self.out_of_fold.rows() if self.out_of_fold else []

    def figures(self) -> dict[str, Any]:
        """The plain numbers, ready for JSON."""
        last = self.fitted
        return {
            "strength": self.strength,
            "epochs": last.epochs,
            "steps": last.steps,
            "folds": self.out_of_fold.folds if self.out_of_fold else 0,
            "dev_learned": self.dev_learned,
            "history": self.history,
            "seconds": self.seconds,
            "final_seconds": last.seconds,
            "first_step_seconds": last.first_step,
            "expected_memory": last.expected_memory,
            "peak_memory": self.peak_memory,
            "micro_batch": last.micro_batch,
            "threads": last.threads,
            "trainable": self.trainable,
            "total": self.total,
        }


class Trainer:
    """Fits a student by one recipe, again and again from the same start.

    The same inputs, seed and thread count give the same bytes.

    Args:
        checkpoints: where an interrupted training left off; None: it starts anew.
        micro_batch: rows per pass to begin with, when an earlier run found what fits.
    """

    def __init__(
        self,
        base: Base,
        student: Student,
        recipe: TrainingSettings,
        log: TrainingLog,
        *,
        checkpoints: Checkpoints | None = None,
        micro_batch: int | None = None,
    ) -> None:
        self.base, self.student, self.recipe, self.log = base, student, recipe, log
        self.checkpoints = checkpoints
        self.micro_batch = micro_batch or recipe.batch_size
        self._peak_memory = 0

    def train(self, train: Sequence[Example], dev: Sequence[Example]) -> Trained:
        """Learn from examples, and choose how much of it counts.

        With folds, out-of-fold answers choose the adapter's strength and everything is learned
        from; without, the dev rows choose and only the train rows are.

        Raises:
            DatasetError, InputError, TrainingError: as `lessons` and `fit`.
        """
        started = time.monotonic()
        lessons = self.lessons(self._mix(train, dev))
        unseen = self.out_of_fold(lessons)
        if unseen:
            fitted = self.fit(lessons, range(len(lessons)))
            strength, history = unseen.strength, unseen.history
        else:
            own, watched = self._parted(lessons, len(train), len(dev))
            fitted, labels = self.fit(lessons, own, watched=watched), lessons.labels[watched]
            history = [epoch_figures(logits, labels) for logits in fitted.watched]
            strength = best_strength(self._answers(lessons, watched), labels) if watched else 1.0
        self.student.strength = strength
        return Trained(
            fitted,
            strength,
            history,
            unseen,
            seconds=time.monotonic() - started,
            peak_memory=max(self._peak_memory, fitted.peak_memory),
            trainable=sum(p.numel() for p in self.student.parameters),
            total=sum(p.numel() for p in self.student.model.parameters()),
        )

    def repeat(
        self,
        train: Sequence[Example],
        dev: Sequence[Example],
        strength: float,
        *,
        dev_learned: bool,
    ) -> None:
        """Train again as `train` did in the end, without what led there."""
        lessons = self.lessons(self._mix(train, dev))
        own, _ = self._parted(lessons, len(train), len(dev))
        self.fit(lessons, range(len(lessons)) if dev_learned else own)
        self.student.strength = strength

    def _mix(self, train: Sequence[Example], dev: Sequence[Example]) -> list[Example]:
        """The rows, and after them the foreign pairs made of them."""
        rows = [*train, *dev]
        return [*rows, *foreign_pairs(rows, self.recipe.foreign_share, self.recipe.seed)]

    def _parted(self, lessons: Lessons, train: int, dev: int) -> tuple[list[int], list[int]]:
        """Positions (to learn from, to watch) where the dev rows are not learned from."""
        watched = range(train, train + dev)
        held = [lessons.examples[row] for row in watched]
        return [*range(train), *without_texts(lessons.examples, held)], list(watched)

    def lessons(self, examples: Sequence[Example]) -> Lessons:
        """Encode examples, and ask the base about the rows that are to stay as it judged them.

        Raises:
            InputError: naming every pair that can't be encoded.
        """
        lessons = make_lessons(self.base, examples, self.recipe.label_smoothing)
        with deterministic(self.recipe.seed, self.recipe.threads):
            lessons = self._asked_about(lessons)
            self.log.begin("frozen layers", len(set(lessons.encoded)))
            self.student.read.fill(lessons.encoded, self.log.advance)
            asked = lessons.uncorrected if self.recipe.kl_weight else []
            if not asked:
                return lessons
            self.student.take(self.student.start)  # fresh adapters answer as the base does
            logits = self.student.logits(lessons, asked)
        return lessons.with_teacher(asked, functional.log_softmax(logits, dim=-1))

    def _asked_about(self, lessons: Lessons) -> Lessons:
        """Add opinions, where the recipe goes by them."""
        if not self.recipe.second_opinion:
            return lessons
        reviewed = [lessons.examples[row] for row in lessons.reviewed]
        dtype = compute_dtype(self.recipe.precision)
        return replace(lessons, opinions=read_opinions(self.base, reviewed, dtype))

    def fit(
        self,
        lessons: Lessons,
        taught: Sequence[int],
        *,
        watched: Sequence[int] = (),
        name: str = "final",
    ) -> Fitted:
        """Train on some of the rows; the student keeps the averaged weights.

        When memory runs out the micro-batch is halved and the fit starts again; the effective
        batch stays as it is.

        Args:
            taught: positions of the rows to learn from.
            watched: rows to judge after every epoch; nothing is learned from them.
            name: of this fit in the log and the checkpoints.

        Raises:
            DatasetError: there is nothing to train on.
            TrainingError: the loss is no number any more.
        """
        if not taught:
            raise DatasetError("there are no rows to train on")
        start = self.micro_batch
        sizes = (start >> halvings for halvings in itertools.count(1))

        def attempt(micro_batch: int) -> Fitted:
            self.micro_batch = micro_batch  # what fits now fits the next time
            fit = Fit(
                self.student,
                lessons,
                taught,
                watched,
                self.recipe,
                self.log,
                name=name,
                micro_batch=micro_batch,
                checkpoints=self.checkpoints,
            )
            with deterministic(self.recipe.seed, self.recipe.threads):
                return fit.run()

        fitted: Fitted = find_executable_batch_size(
            attempt,
            starting_batch_size=start,
            reduce_batch_size_fn=lambda: next(sizes),  # accelerate's own takes off a tenth
        )()
        return fitted

    def out_of_fold(self, lessons: Lessons) -> OutOfFold | None:
        """Judge every reviewed row by a student that learned from the other folds' rows.

        None when the reviewed rows have too few groups for two folds, or the recipe asks for
        none. Replayed rows are learned from in every fold, foreign pairs where none of their
        texts is judged.
        """
        reviewed = [i for i, e in enumerate(lessons.examples) if e.source in REVIEWED]
        replayed = [i for i, e in enumerate(lessons.examples) if e.source == "replay"]
        parts = cut(lessons, reviewed, self.recipe.folds, self.recipe.seed)
        if len(parts) < 2:
            return None
        shape = (len(lessons), lessons.teacher.shape[1])
        logits = {strength: torch.empty(shape) for strength in self.recipe.strengths}
        epochs = [torch.empty(shape) for _ in range(self.recipe.epochs)]
        fold = torch.empty(len(lessons), dtype=torch.long)
        for number, part in enumerate(parts, 1):
            own = set(part)
            held = [lessons.examples[row] for row in part]
            foreign = without_texts(lessons.examples, held)
            taught = [*(row for row in reviewed if row not in own), *replayed, *foreign]
            name = f"fold {number} of {len(parts)}"
            fitted = self.fit(lessons, taught, watched=part, name=name)
            self._peak_memory = max(self._peak_memory, fitted.peak_memory)
            fold[part] = number
            for every, answers in zip(epochs, fitted.watched, strict=True):
                every[part] = answers
            for strength, answers in self._answers(lessons, part).items():
                logits[strength][part] = answers
        order = list(self.base.labels.order)
        examples = tuple(lessons.examples[row] for row in reviewed)
        labels = lessons.labels[reviewed]
        return OutOfFold(
            examples,
            torch.tensor([INDEX[example.label] for example in examples]),
            fold[reviewed],
            {strength: each[reviewed][:, order] for strength, each in logits.items()},
            [epoch_figures(each[reviewed], labels) for each in epochs],
        )

    def _answers(self, lessons: Lessons, rows: Sequence[int]) -> dict[float, torch.Tensor]:
        """The student's logits [rows, classes] at every strength of the recipe."""
        found = {}
        with deterministic(self.recipe.seed, self.recipe.threads):
            for strength in self.recipe.strengths:
                self.student.strength = strength
                found[strength] = self.student.logits(lessons, rows)
        return found
