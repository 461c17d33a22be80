"""The trainer: fits a student on lessons, once or fold by fold."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from accelerate.utils import find_executable_batch_size
from torch.nn import functional

from lyra_nli.errors import DatasetError
from lyra_nli.evaluation.estimates import ENOUGH_GROUPS
from lyra_nli.models.base import Base
from lyra_nli.records import Example
from lyra_nli.settings import TrainingSettings
from lyra_nli.training.checkpoint import Checkpoints
from lyra_nli.training.fit import Fit, Fitted, steps_of
from lyra_nli.training.folds import AnswerRow, OutOfFold, best_strength, cut, epoch_figures
from lyra_nli.training.foreign import foreign_pairs, without_texts
from lyra_nli.training.lessons import REVIEWED, Lessons, make_lessons
from lyra_nli.training.log import TrainingLog
from lyra_nli.training.parts import PartAnswers, together
from lyra_nli.training.repeating import deterministic
from lyra_nli.training.student import Student, Weights


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
    learning_layers: int

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
            "pass_tokens": last.pass_tokens,
            "learning_layers": self.learning_layers,
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
        pass_tokens: padded tokens per pass, likewise; None: what this machine's memory allows.
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
        pass_tokens: int | None = None,
    ) -> None:
        self.base, self.student, self.recipe, self.log = base, student, recipe, log
        self.checkpoints = checkpoints
        self.micro_batch = micro_batch or recipe.batch_size
        self.pass_tokens = pass_tokens
        self.seen: frozenset[str] = frozenset()
        self._peak_memory = 0

    def start_from(self, weights: Weights, seen: frozenset[str]) -> None:
        """Start every fit from other weights than fresh ones.

        Args:
            seen: ids of the rows about which these weights prove nothing.
        """
        self.student.start, self.seen = weights, seen

    def train(
        self,
        train: Sequence[Example],
        dev: Sequence[Example],
        unseen: OutOfFold | None = None,
    ) -> Trained:
        """Learn from examples, and choose how much of it counts.

        With folds, out-of-fold answers choose the adapter's strength and everything is learned
        from; without, the dev rows choose and only the train rows are.

        Args:
            unseen: answers out of fold, where a search has them already.

        Raises:
            DatasetError, InputError, TrainingError: as `lessons` and `fit`.
        """
        started = time.monotonic()
        lessons = self.mixed(train, dev)
        own, watched = self._parted(lessons, len(train), len(dev))
        parts = [] if unseen else self.parts(lessons)
        folded = len(parts) > 1
        last = range(len(lessons)) if unseen or folded else own
        folds = [self._taught_beside(lessons, part) for part in parts] if folded else []
        self.log.expect(sum(self._steps(lessons, taught) for taught in (*folds, last)))
        unseen = unseen or self.out_of_fold(lessons)
        if self.seen and not unseen:
            new = [e for e in (*train, *dev) if e.source in REVIEWED and e.id not in self.seen]
            raise DatasetError(
                f"a warm start can't be proven: {len(new)} new reviews, in "
                f"{len({e.group for e in new})} group(s), are all that the version it would start "
                "from had not learned from",
                hint=f"Review about {ENOUGH_GROUPS} edges of other pages and claims first, with "
                "training.folds of at least 2; or train from the base, without a warm start.",
            )
        if unseen:
            fitted = self.fit(lessons, last)
            strength, history = unseen.strength, unseen.history
        else:
            fitted, labels = self.fit(lessons, last, watched=watched), lessons.labels[watched]
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
            learning_layers=self.student.learning_layers,
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
        lessons = self.mixed(train, dev)
        own, _ = self._parted(lessons, len(train), len(dev))
        self.fit(lessons, range(len(lessons)) if dev_learned else own)
        self.student.strength = strength

    def mixed(self, train: Sequence[Example], dev: Sequence[Example]) -> Lessons:
        """`lessons` of the rows and, after them, of the foreign pairs made of them."""
        rows = [*train, *dev]
        foreign = foreign_pairs(rows, self.recipe.foreign_share, self.recipe.seed)
        return self.lessons([*rows, *foreign])

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
        recipe = self.recipe
        lessons = make_lessons(
            self.base,
            examples,
            smoothing=recipe.label_smoothing,
            pull=recipe.kl_weight,
            replay_pull=recipe.replay_kl_weight,
        )
        with deterministic(recipe.seed, recipe.threads):
            self.log.begin("frozen layers", len(set(lessons.encoded)))
            self.student.read.fill(lessons.encoded, self.log.advance)
            asked = lessons.uncorrected
            if not asked:
                return lessons
            learned = self.student.weights()
            self.student.take(self.student.fresh)  # they answer as the base does
            logits = self.student.logits(lessons, asked)
            self.student.take(learned)
        return lessons.with_teacher(asked, functional.log_softmax(logits, dim=-1))

    def fit(
        self,
        lessons: Lessons,
        taught: Sequence[int],
        *,
        watched: Sequence[int] = (),
        name: str = "final",
    ) -> Fitted:
        """Train on some of the rows; the student keeps the averaged weights.

        When memory runs out, the rows and the tokens of a pass are halved and the fit starts
        again; the effective batch stays as it is.

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
        tokens = 0

        def attempt(micro_batch: int) -> Fitted:
            nonlocal tokens
            if micro_batch < start:  # long rows are few a pass already: tokens bind there
                self.pass_tokens = max(1, tokens // 2)
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
                tokens=self.pass_tokens,
                checkpoints=self.checkpoints,
            )
            tokens = fit.pass_tokens
            try:
                with deterministic(self.recipe.seed, self.recipe.threads):
                    fitted = fit.run()
            except MemoryError as error:  # numpy's; accelerate goes by torch's words
                raise RuntimeError("DefaultCPUAllocator: can't allocate memory") from error
            if fitted.micro_batch < micro_batch:  # halved before it was killed
                self.micro_batch, self.pass_tokens = fitted.micro_batch, fitted.pass_tokens
            return fitted

        fitted: Fitted = find_executable_batch_size(
            attempt,
            starting_batch_size=start,
            reduce_batch_size_fn=lambda: next(sizes),  # accelerate's own takes off a tenth
        )()
        return fitted

    def out_of_fold(self, lessons: Lessons) -> OutOfFold | None:
        """Judge every reviewed row by a student that learned from the other folds' rows.

        None when the reviewed rows have too few groups for two folds, or the recipe asks for
        none.
        """
        parts = self.parts(lessons)
        if len(parts) < 2:
            return None
        return together([self.answer_part(lessons, parts, part) for part in range(len(parts))])

    def parts(self, lessons: Lessons) -> list[list[int]]:
        """The positions of the reviewed rows that judge, fold by fold; the same for every recipe.

        What the student started from had learned some of them already: those judge nothing.
        """
        judging = [row for row in lessons.reviewed if lessons.examples[row].id not in self.seen]
        return cut(lessons, judging, self.recipe.folds, self.recipe.seed)

    def answer_part(
        self, lessons: Lessons, parts: Sequence[Sequence[int]], number: int
    ) -> PartAnswers:
        """Judge the rows of one part by a student that learned from all other reviewed rows.

        Replayed rows are learned from in every fold, foreign pairs where none of their texts is
        judged.

        Raises:
            TrainingError: the loss is no number any more.
        """
        part = parts[number]
        held = tuple(lessons.examples[row] for row in part)
        taught = self._taught_beside(lessons, part)
        name = f"fold {number + 1} of {len(parts)}"
        fitted = self.fit(lessons, taught, watched=part, name=name)
        self._peak_memory = max(self._peak_memory, fitted.peak_memory)
        order = list(self.base.labels.order)
        return PartAnswers(
            part,
            held,
            {s: logits[:, order] for s, logits in self._answers(lessons, part).items()},
            [logits[:, order] for logits in fitted.watched],
            fitted.seconds,
            fitted.peak_memory,
        )

    def _taught_beside(self, lessons: Lessons, part: Sequence[int]) -> list[int]:
        """What the student learns from that judges a part."""
        groups = {lessons.examples[row].group for row in part}
        # After a warm start a part may lack rows of its groups: those that its start had learned
        # from judge nothing, and are not learned from here either.
        mine = {row for row in lessons.reviewed if lessons.examples[row].group in groups}
        held = tuple(lessons.examples[row] for row in sorted(mine))
        others = [row for row in lessons.reviewed if row not in mine]
        replayed = [i for i, e in enumerate(lessons.examples) if e.source == "replay"]
        return [*others, *replayed, *without_texts(lessons.examples, held)]

    def _steps(self, lessons: Lessons, taught: Sequence[int]) -> int:
        return steps_of([lessons.examples[row].label for row in taught], self.recipe)

    def _answers(self, lessons: Lessons, rows: Sequence[int]) -> dict[float, torch.Tensor]:
        """The student's logits [rows, classes] at every strength of the recipe."""
        found = {}
        with deterministic(self.recipe.seed, self.recipe.threads):
            for strength in self.recipe.strengths:
                self.student.strength = strength
                found[strength] = self.student.logits(lessons, rows)
        return found
