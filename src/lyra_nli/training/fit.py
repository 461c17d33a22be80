"""The loop that fits an adapter: lessons + student -> trained weights.

Cross-entropy on human labels, plus a pull towards the base (Kullback-Leibler divergence of
the base's answer from the adapter's) on rows whose label the base already gave: agreed,
replayed and foreign ones. Never on corrected rows, where the base was wrong. What is kept is the
mean of the weights over the second half of the steps.
"""

from __future__ import annotations

import hashlib
import json
import math
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import psutil
import torch
from torch import nn
from torch.nn import functional
from transformers import get_linear_schedule_with_warmup

from lyra_nli.errors import TrainingError
from lyra_nli.labels import Label
from lyra_nli.models.encoding import by_length, padded_length
from lyra_nli.settings import TrainingSettings
from lyra_nli.training.batches import epoch_rows, length_batches, runs
from lyra_nli.training.checkpoint import Checkpoints
from lyra_nli.training.lessons import Lessons
from lyra_nli.training.log import TrainingLog
from lyra_nli.training.memory import AHEAD_TOKENS, bytes_per_token, free_memory, pass_tokens
from lyra_nli.training.student import Student, Weights

_SAME = ("threads", "identity")
"""What shapes a fit's bytes, beside its passes and what tells its training's checkpoints apart."""


@dataclass
class Fitted:
    """What fitting one adapter gave.

    Attributes:
        weights: after the last epoch.
        average: mean of the weights over the second half of all steps (Polyak & Juditsky 1992;
            Izmailov et al. 2018, Averaging weights leads to wider optima).
        averaged: steps that it is the mean of.
        watched: logits of the watched rows after each epoch, float32 [rows, classes].
        seconds: of all epochs, those before a restart included.
        first_step: seconds until the first optimizer step was done.
        expected_memory: what was predicted for `peak_memory` before the start.
        peak_memory: largest resident size seen, bytes.
        micro_batch: rows per forward pass that fitted into memory.
        pass_tokens: padded tokens that a pass may hold.
        identity: hash of the rows, the float type and the processor; with another one, a fit
            can't go on.
    """

    micro_batch: int
    threads: int
    pass_tokens: int = 0
    identity: str = ""
    epochs: int = 0
    steps: int = 0
    seconds: float = 0.0
    first_step: float = 0.0
    expected_memory: int = 0
    peak_memory: int = 0
    weights: Weights = field(default_factory=list)
    average: Weights = field(default_factory=list)
    averaged: int = 0
    watched: list[torch.Tensor] = field(default_factory=list)

    def state(self) -> dict[str, Any]:
        """Every field by name."""
        return {item.name: getattr(self, item.name) for item in fields(self)}


def steps_of(labels: Sequence[Label], recipe: TrainingSettings) -> int:
    """Optimizer steps of a fit on rows of these labels."""
    rows = len(epoch_rows(labels, recipe.sampling, random.Random(0)))
    return -(-rows // recipe.batch_size) * recipe.epochs


class Fit:
    """One fit of a student, with one micro-batch size.

    Args:
        taught: positions of the rows to learn from.
        watched: rows to judge after every epoch; nothing is learned from them.
        micro_batch: rows per pass.
        tokens: padded tokens per pass; None: what the machine's memory allows.
        checkpoints: where an interrupted fit of this name left off, and where this one does.
    """

    def __init__(
        self,
        student: Student,
        lessons: Lessons,
        taught: Sequence[int],
        watched: Sequence[int],
        recipe: TrainingSettings,
        log: TrainingLog,
        *,
        name: str,
        micro_batch: int,
        tokens: int | None = None,
        checkpoints: Checkpoints | None,
    ) -> None:
        self.student, self.lessons, self.recipe, self.log = student, lessons, recipe, log
        self.taught, self.watched = list(taught), list(watched)
        self.name, self.micro_batch, self.checkpoints = name, micro_batch, checkpoints
        self.lengths = lessons.lengths
        self.labels = [lessons.examples[row].label for row in taught]
        self.process = psutil.Process()
        self.process.cpu_percent()  # the first call only starts the clock
        self.longest = padded_length(
            max(self.lengths[row] for row in taught),
            student.model.config.max_position_embeddings,  # type: ignore[union-attr,arg-type]
        )
        self.pass_tokens = tokens or pass_tokens(self._bytes_per_token())
        self.needed_memory = self._needed_memory()
        self.expected_memory = self.process.memory_info().rss + self.needed_memory

    def run(self) -> Fitted:
        """Train; the student keeps the averaged weights.

        Raises:
            TrainingError: the loss is no number any more.
        """
        self.student.take(self.student.start)
        self.student.strength = 1.0
        self.steps = steps_of(self.labels, self.recipe)
        self._prepare_optimizer()
        result = Fitted(
            self.micro_batch, torch.get_num_threads(), self.pass_tokens, self._identity()
        )
        if state := self._left_off(result):
            self._resume(result, state)
        started = time.monotonic() - result.seconds
        result.expected_memory = result.expected_memory or self.expected_memory
        self.log.begin(self.name, self.steps, done=result.steps)
        self.log.plan({"rows": len(self.taught), "expected_mb": result.expected_memory / 2**20})
        self._warn_of_memory()
        for epoch in range(result.epochs + 1, self.recipe.epochs + 1):
            self._epoch(epoch, result, started)
            result.seconds = time.monotonic() - started
            self._remember(result)
        self.student.take(result.average)
        self.student.model.eval()
        return result

    def _prepare_optimizer(self) -> None:
        recipe = self.recipe
        self.optimizer = torch.optim.AdamW(
            self.student.parameters,
            lr=recipe.learning_rate,
            weight_decay=recipe.weight_decay,
            fused=True,
        )
        self.schedule = get_linear_schedule_with_warmup(
            self.optimizer, int(recipe.warmup_fraction * self.steps), self.steps
        )

    def _epoch(self, epoch: int, result: Fitted, started: float) -> None:
        # A generator an epoch: the one after a restart is the one it would have been.
        rng = random.Random(f"{self.recipe.seed}:{epoch}")
        torch.manual_seed(rng.getrandbits(63))
        order = [self.taught[i] for i in epoch_rows(self.labels, self.recipe.sampling, rng)]
        self.student.study()
        for batch in self._batches(order, rng):
            loss = self._step(batch, result)
            self.schedule.step()
            result.steps += 1
            self._average(result)
            result.first_step = result.first_step or time.monotonic() - started
            rate = self.schedule.get_last_lr()[0]
            memory = self.process.memory_info().rss / 2**20
            self.log.step(result.steps, {"loss": loss, "lr": rate, "rss_mb": memory})
        result.epochs = epoch
        result.weights = self.student.weights()
        if self.watched:
            result.watched.append(self.student.logits(self.lessons, self.watched))
        self.log.epoch(epoch, self._figures(result))

    def _batches(self, order: Sequence[int], rng: random.Random) -> Iterator[list[int]]:
        """An epoch's batches; the frozen layers read the rows of the next few of them together."""
        batches = length_batches(order, self.lengths, self.recipe.batch_size, rng)
        for near in runs(batches, self.lengths, AHEAD_TOKENS):
            self.student.read.ahead([self.lessons.encoded[row] for batch in near for row in batch])
            yield from near
        self.student.read.ahead([])

    def _step(self, batch: list[int], result: Fitted) -> float:
        """One optimizer step over a batch, in as many passes as memory asks for."""
        self.optimizer.zero_grad(set_to_none=True)
        total = 0.0
        for part in self._parts(batch):
            loss = self._loss(part) / len(batch)
            # Before the backward pass, while all activations are alive.
            result.peak_memory = max(result.peak_memory, self.process.memory_info().rss)
            loss.backward()  # type: ignore[no-untyped-call]
            result.peak_memory = max(result.peak_memory, self.process.memory_info().rss)
            total += loss.item()
        if not math.isfinite(total):
            raise TrainingError(
                f"the loss became {total}", hint="Lower training.learning_rate or training.alpha."
            )
        nn.utils.clip_grad_norm_(self.student.parameters, 1.0)
        self.optimizer.step()
        return total

    def _average(self, result: Fitted) -> None:
        """Take the weights of a step of the second half into their mean."""
        if 2 * result.steps <= self.steps:
            return
        result.averaged += 1
        if not result.average:
            result.average = self.student.weights()
        for mean, parameter in zip(result.average, self.student.parameters, strict=True):
            mean.lerp_(parameter.detach(), 1 / result.averaged)

    def _parts(self, batch: list[int]) -> Iterator[list[int]]:
        """Cut a batch into passes: few enough rows, and few enough tokens, to bound memory."""
        lengths = [self.lengths[row] for row in batch]
        for places in by_length(lengths, self.micro_batch, self.pass_tokens):
            yield [batch[place] for place in places]

    def _loss(self, part: list[int]) -> torch.Tensor:
        """Summed loss of some rows: weighted cross-entropy + pull * KL(base || model)."""
        lessons, where = self.lessons, self.student.device
        index = torch.tensor(part)
        logits = self.student.read([lessons.encoded[row] for row in part])
        log_p = functional.log_softmax(logits, dim=-1)
        entropy = -(lessons.targets[index].to(where) * log_p).sum(dim=1)
        loss = (entropy * lessons.weights[index].to(where)).sum()
        teacher = lessons.teacher[index].to(where)
        pulled = ~teacher.isnan().any(dim=1)
        if not pulled.any():
            return loss
        divergence = functional.kl_div(
            log_p[pulled], teacher[pulled], log_target=True, reduction="none"
        ).sum(dim=1)
        return loss + (divergence * lessons.pulls[index].to(where)[pulled]).sum()

    def _figures(self, result: Fitted) -> dict[str, float]:
        """What the log tells of an epoch: the watched rows, and the machine."""
        figures = {"cpu_percent": self.process.cpu_percent()}
        if self.watched:
            logits, labels = result.watched[-1], self.lessons.labels[self.watched]
            figures["watched_nll"] = functional.cross_entropy(logits, labels).item()
            figures["watched_accuracy"] = (logits.argmax(1) == labels).float().mean().item()
        return figures

    def _bytes_per_token(self) -> int:
        student = self.student
        return bytes_per_token(
            student.model,
            student.learning_layers,
            self.longest,
            student.dtype,
            dropout=self.recipe.dropout > 0,
        )

    def _needed_memory(self) -> int:
        """Bytes that the fit will take: a pass, states read ahead, and four of each parameter."""
        activations = self._bytes_per_token() * max(self.pass_tokens, self.longest)
        tokens = min(AHEAD_TOKENS, sum(self.lengths[row] for row in self.taught))
        # Gradient, Adam's two moments, and the average.
        learned = 4 * sum(p.numel() * p.element_size() for p in self.student.parameters)
        return activations + self.student.read.token_bytes * tokens + learned

    def _warn_of_memory(self) -> None:
        free = free_memory()
        if self.needed_memory > free:
            self.log.warn(
                "memory",
                f"This training will take about {self.needed_memory / 2**20:,.0f} MB more, and "
                f"{free / 2**20:,.0f} MB are free: it may be slow, or be killed. "
                "training.layers, and shorter premises (nli.max_length), bring it down.",
            )

    def _identity(self) -> str:
        """Names what is learned from, and how products round."""
        rows = [
            [(e.id, e.label, e.weight) for e in map(self.lessons.examples.__getitem__, some)]
            for some in (self.taught, self.watched)
        ]
        products = [str(self.student.dtype), self.student.device.type, self.student.rounding]
        told = json.dumps([rows, products])
        return hashlib.sha256(told.encode()).hexdigest()[:16]

    def _remember(self, result: Fitted) -> None:
        if self.checkpoints is not None:
            own = {"optimizer": self.optimizer, "schedule": self.schedule}
            states = {name: each.state_dict() for name, each in own.items()}
            try:
                self.checkpoints.save(self.name, {**result.state(), **states})
            except OSError as error:
                self.log.warn(
                    "checkpoints",
                    f"The training goes on, but if it is killed it starts anew: {error}",
                )

    def _left_off(self, result: Fitted) -> dict[str, Any] | None:
        """What such a fit had reached when it was killed; what others began can't be gone on with.

        Passes that memory had made smaller are taken over: its bytes hang on them.
        """
        where = self.student.device
        state = self.checkpoints.load(self.name, where) if self.checkpoints else None
        if state is None or any(state.get(key) != getattr(result, key) for key in _SAME):
            return None
        larger = state["micro_batch"] > self.micro_batch or state["pass_tokens"] > self.pass_tokens
        return None if larger else state

    def _resume(self, result: Fitted, state: dict[str, Any]) -> None:
        """Go on after the last whole epoch of a fit that was killed."""
        self.optimizer.load_state_dict(state.pop("optimizer"))
        self.schedule.load_state_dict(state.pop("schedule"))
        for key, value in state.items():
            setattr(result, key, value)
        self.micro_batch, self.pass_tokens = result.micro_batch, result.pass_tokens
        result.watched = [logits.cpu() for logits in result.watched]
        self.student.take(result.weights)
