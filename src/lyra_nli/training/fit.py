"""The loop that fits an adapter: examples + base -> trained weights.

Cross-entropy on human labels, plus a pull towards the base (Kullback-Leibler divergence of
the base's answer from the adapter's) on rows whose label the base already gave: agreed and
replayed ones. Never on corrected rows, where the base was wrong.
"""

from __future__ import annotations

import itertools
import math
import os
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, fields
from typing import Any

import psutil
import torch
from accelerate.utils import find_executable_batch_size
from peft import PeftModel
from torch.nn import functional
from transformers import get_linear_schedule_with_warmup

from lyra_nli.errors import DatasetError, TrainingError
from lyra_nli.labels import INDEX
from lyra_nli.models.base import Base
from lyra_nli.models.encoder import forward_of
from lyra_nli.models.encoding import EncodedPair, by_length, collate, encode
from lyra_nli.records import Example
from lyra_nli.settings import TrainingSettings
from lyra_nli.training.batches import epoch_rows, length_batches
from lyra_nli.training.log import TrainingLog
from lyra_nli.training.precision import compute_dtype, device

_EVAL_BATCH = 32
_PASS_TOKENS = 2048
"""Padded tokens per forward and backward pass: long rows go in smaller passes."""


@dataclass(frozen=True)
class Rows:
    """Examples made ready for a model: token ids, targets, weights.

    Attributes:
        labels: class indices in the model's own order, int64 [n].
        weights: factor on each row's loss, float32 [n].
        teacher: the base's log-probabilities, float32 [n, 3]; NaN where a row is not pulled
            towards the base.
    """

    encoded: list[EncodedPair]
    labels: torch.Tensor
    weights: torch.Tensor
    teacher: torch.Tensor | None = None


@dataclass
class Fitted:
    """What a training run gave.

    Attributes:
        model: carries the weights of the best epoch.
        dev_loss: NLL on the dev rows at the best epoch, nats; None without dev rows.
        peak_memory: largest resident size seen during training, bytes.
        micro_batch: rows per forward pass that fitted into memory.
    """

    model: PeftModel
    best_epoch: int = 0
    epochs: int = 0
    steps: int = 0
    dev_loss: float | None = None
    seconds: float = 0.0
    peak_memory: int = 0
    micro_batch: int = 0
    threads: int = 0
    trainable: int = 0
    total: int = 0
    history: list[dict[str, float]] = field(default_factory=list)

    def figures(self) -> dict[str, Any]:
        """Everything but the model, ready for JSON."""
        return {item.name: getattr(self, item.name) for item in fields(self)[1:]}


def fit(
    base: Base,
    make_model: Callable[[], PeftModel],
    train: Sequence[Example],
    dev: Sequence[Example],
    recipe: TrainingSettings,
    log: TrainingLog,
    micro_batch: int | None = None,
) -> Fitted:
    """Train on `train`, stop early on `dev`, and return the best epoch's weights.

    The same inputs, seed and thread count give the same bytes. When memory runs out the
    micro-batch is halved and training starts again; the effective batch stays as it is.

    Args:
        make_model: gives a fresh model with trainable adapters; called at each (re)start.
        micro_batch: rows per pass to begin with, when an earlier run found what fits.

    Raises:
        DatasetError: when there is nothing to train on.
        TrainingError: the loss is no number any more.
    """
    if not train:
        raise DatasetError("there are no rows to train on")

    sizes = (recipe.batch_size >> halvings for halvings in itertools.count(1))

    def attempt(micro_batch: int) -> Fitted:
        with deterministic(recipe.seed, recipe.threads):
            return _Run(base, make_model(), recipe, log, micro_batch).run(train, dev)

    fitted: Fitted = find_executable_batch_size(
        attempt,
        starting_batch_size=micro_batch or recipe.batch_size,
        reduce_batch_size_fn=lambda: next(sizes),  # accelerate's own takes off a tenth
    )()
    return fitted


@contextmanager
def deterministic(seed: int, threads: int | None) -> Iterator[None]:
    """Fix seed, thread count and algorithms; put everything back afterwards."""
    before = torch.get_num_threads()
    strict = torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(threads or before)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what cuBLAS asks for then
    torch.use_deterministic_algorithms(True)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(strict)
            torch.set_num_threads(before)


class _Run:
    """One attempt at training, with one micro-batch size."""

    def __init__(
        self,
        base: Base,
        model: PeftModel,
        recipe: TrainingSettings,
        log: TrainingLog,
        micro_batch: int,
    ) -> None:
        self.base, self.recipe, self.log, self.micro_batch = base, recipe, log, micro_batch
        self.device = device()
        self.model = model.to(self.device)
        self.forward = forward_of(self.model, frozen=False)
        self.dtype = compute_dtype(recipe.precision)
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.process = psutil.Process()
        self.peak_memory = 0

    def run(self, train: Sequence[Example], dev: Sequence[Example]) -> Fitted:
        started = time.monotonic()
        rows, dev_rows = self._rows(train), self._rows(dev)
        if self.recipe.kl_weight:
            rows = self._with_teacher(rows, train)
        result = Fitted(
            model=self.model,
            micro_batch=self.micro_batch,
            threads=torch.get_num_threads(),
            trainable=sum(p.numel() for p in self.parameters),
            total=sum(p.numel() for p in self.model.parameters()),
        )
        self._train(rows, dev_rows, [example.label for example in train], result)
        result.seconds = time.monotonic() - started
        result.peak_memory = self.peak_memory
        self.model.eval()
        return result

    def _train(self, rows: Rows, dev: Rows, labels: Sequence[str], result: Fitted) -> None:
        rng = random.Random(self.recipe.seed)
        lengths = [len(row) for row in rows.encoded]
        size, epochs = self.recipe.batch_size, self.recipe.epochs
        expected = -(-len(epoch_rows(labels, self.recipe.sampling, random.Random(0))) // size)
        optimizer = torch.optim.AdamW(
            self.parameters, lr=self.recipe.learning_rate, weight_decay=self.recipe.weight_decay
        )
        schedule = get_linear_schedule_with_warmup(
            optimizer, int(self.recipe.warmup_fraction * expected * epochs), expected * epochs
        )
        self.log.expect(expected * epochs)
        best: list[torch.Tensor] = []
        for epoch in range(1, epochs + 1):
            self._mode(training=True)
            order = epoch_rows(labels, self.recipe.sampling, rng)
            for batch in length_batches(order, lengths, size, rng):
                loss = self._step(rows, batch, optimizer)
                schedule.step()
                result.steps += 1
                self.log.step(result.steps, {"loss": loss, "lr": schedule.get_last_lr()[0]})
            result.epochs = epoch
            metrics = self._evaluate(dev)
            result.history.append(metrics)
            self.log.epoch(epoch, metrics)
            if self._holds(metrics, result):
                result.best_epoch, result.dev_loss = epoch, metrics.get("dev_loss")
                best = [p.detach().clone() for p in self.parameters]
            elif epoch - result.best_epoch >= self.recipe.patience:
                break
        with torch.no_grad():
            for parameter, value in zip(self.parameters, best, strict=True):
                parameter.copy_(value)

    def _holds(self, metrics: Mapping[str, float], result: Fitted) -> bool:
        """The dev loss is within one standard error of the lowest so far.

        The one-standard-error rule (Breiman et al. 1984, Classification and Regression Trees,
        3.4.3): a hundred dev rows can't tell smaller differences, and stopping on them would
        end training after the first epoch, long before it has learned what it can.
        """
        if not metrics:
            return True
        lowest = min(result.history, key=lambda epoch: epoch["dev_loss"])
        return metrics["dev_loss"] <= lowest["dev_loss"] + lowest["dev_loss_error"]

    def _step(self, rows: Rows, batch: list[int], optimizer: torch.optim.Optimizer) -> float:
        """One optimizer step over a batch, in as many passes as memory asks for."""
        optimizer.zero_grad(set_to_none=True)
        total = 0.0
        for part in self._parts(rows, batch):
            loss = self._loss(rows, part) / len(batch)
            # Before the backward pass, while all activations are alive.
            self.peak_memory = max(self.peak_memory, self.process.memory_info().rss)
            loss.backward()  # type: ignore[no-untyped-call]
            total += loss.item()
        if not math.isfinite(total):
            raise TrainingError(
                f"the loss became {total}", hint="Lower training.learning_rate or training.alpha."
            )
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        optimizer.step()
        return total

    def _parts(self, rows: Rows, batch: list[int]) -> Iterator[list[int]]:
        """Cut a batch into passes: few enough rows, and few enough tokens, to bound memory."""
        longest = max(len(rows.encoded[index]) for index in batch)
        size = max(1, min(self.micro_batch, _PASS_TOKENS // longest))
        for start in range(0, len(batch), size):
            yield batch[start : start + size]

    def _loss(self, rows: Rows, part: list[int]) -> torch.Tensor:
        """Summed loss of some rows: weighted cross-entropy + kl_weight * KL(base || model)."""
        index = torch.tensor(part)
        log_p = functional.log_softmax(self._logits([rows.encoded[i] for i in part]), dim=-1)
        nll = functional.nll_loss(log_p, rows.labels[index].to(self.device), reduction="none")
        loss = (nll * rows.weights[index].to(self.device)).sum()
        if rows.teacher is None:
            return loss
        teacher = rows.teacher[index].to(self.device)
        pulled = ~teacher.isnan().any(dim=1)
        if not pulled.any():
            return loss
        divergence = functional.kl_div(
            log_p[pulled], teacher[pulled], log_target=True, reduction="sum"
        )
        return loss + self.recipe.kl_weight * divergence

    def _logits(self, encoded: Sequence[EncodedPair]) -> torch.Tensor:
        batch = {key: value.to(self.device) for key, value in collate(self.base, encoded).items()}
        with self._autocast():
            return self.forward(**batch).float()

    def _autocast(self) -> torch.autocast | nullcontext[None]:
        if self.dtype == torch.float32:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self.dtype)

    def _mode(self, *, training: bool) -> None:
        """Dropout works in the adapters alone: the frozen base always answers the same."""
        self.model.eval()
        if training:
            for name, module in self.model.named_modules():
                if "lora_dropout" in name:
                    module.train()

    def _rows(self, examples: Sequence[Example]) -> Rows:
        order = self.base.labels.order
        return Rows(
            encoded=encode(self.base, [example.pair for example in examples]),
            labels=torch.tensor([order[INDEX[e.label]] for e in examples], dtype=torch.long),
            weights=torch.tensor([e.weight for e in examples], dtype=torch.float32),
        )

    def _with_teacher(self, rows: Rows, examples: Sequence[Example]) -> Rows:
        """Ask the base once about the rows that are to stay as it judged them."""
        teacher = torch.full((len(examples), len(self.base.labels.order)), float("nan"))
        keep = [i for i, example in enumerate(examples) if example.source != "correction"]
        self._mode(training=False)
        with torch.inference_mode(), self.model.disable_adapter():
            for positions in by_length([rows.encoded[i] for i in keep], _EVAL_BATCH):
                part = [keep[position] for position in positions]
                log_p = functional.log_softmax(self._logits([rows.encoded[i] for i in part]), -1)
                teacher[torch.tensor(part)] = log_p.cpu()
        wrong = teacher.argmax(dim=1) != rows.labels
        teacher[wrong] = float("nan")
        return Rows(rows.encoded, rows.labels, rows.weights, teacher)

    def _evaluate(self, dev: Rows) -> dict[str, float]:
        """Mean NLL (nats), its standard error, and accuracy on the dev rows; empty without any."""
        if not dev.encoded:
            return {}
        self._mode(training=False)
        losses, hits = [], 0
        with torch.inference_mode():
            for positions in by_length(dev.encoded, _EVAL_BATCH):
                logits = self._logits([dev.encoded[i] for i in positions]).cpu()
                labels = dev.labels[positions]
                losses.append(functional.cross_entropy(logits, labels, reduction="none"))
                hits += int((logits.argmax(dim=1) == labels).sum())
        count = len(dev.encoded)
        nll = torch.cat(losses)
        return {
            "dev_loss": nll.mean().item(),
            "dev_loss_error": nll.std(correction=0).item() / math.sqrt(count),
            "dev_accuracy": hits / count,
        }
