"""Trainings of tiny models on rows that they can learn."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from lyra_nli.labels import INDEX, LABELS
from lyra_nli.models.base import Base
from lyra_nli.models.judge import Judge, softmax
from lyra_nli.models.lora import attach
from lyra_nli.models.machine import compute_dtype
from lyra_nli.records import Example, Pair
from lyra_nli.settings import TrainingSettings
from lyra_nli.training.checkpoint import Checkpoints
from lyra_nli.training.log import TrainingLog
from lyra_nli.training.student import Student
from lyra_nli.training.trainer import Trained, Trainer

RECIPE = TrainingSettings(
    rank=4,
    alpha=16,
    dropout=0.1,
    target_modules=("all",),
    layers="all",
    epochs=3,
    learning_rate=2e-2,
    batch_size=16,
    kl_weight=0.0,
    replay_kl_weight=0.0,
    label_smoothing=0.0,
    foreign_share=0.0,
    strengths=(1.0,),
    folds=0,
    precision="fp32",
    threads=1,
)
SAYS = {"supports": "lowers the risk", "refutes": "does not raise it", "neutral": "eating food"}
TURNED = {"supports": "refutes", "refutes": "neutral", "neutral": "supports"}


def examples(count: int, seed: int = 0, *, source: str = "correction", **values) -> list[Example]:
    """Rows whose premise tells the label, by a phrase that a tiny model can learn."""
    rng = random.Random(seed)
    rows = []
    for index in range(count):
        label = rng.choice(LABELS)
        filler = " ".join(rng.choices(["drug", "trial", "adults", "stroke"], k=rng.randint(1, 9)))
        pair = Pair(f"{filler} {SAYS[label]}", f"{rng.choice(['man', 'dog', 'table'])} {index}")
        key = f"{source[0]}{seed}:{index}"
        rows.append(Example(key, pair, label, source, **{"group": key, **values}))
    return rows


@dataclass
class Run:
    """A training that has ended."""

    trained: Trained
    trainer: Trainer

    @property
    def model(self) -> nn.Module:
        return self.trainer.student.model

    @property
    def adapter(self) -> bytes:
        """The bytes of everything that was learned."""
        return adapter_bytes(self.trainer)


def adapter_bytes(trainer: Trainer) -> bytes:
    return b"".join(weight.numpy().tobytes() for weight in trainer.student.weights())


def make_trainer(
    base: Base,
    log: TrainingLog,
    *,
    cache: Path | None = None,
    checkpoints: Checkpoints | None = None,
    micro_batch: int | None = None,
    **changes: object,
) -> Trainer:
    """A trainer by `RECIPE`, changed."""
    recipe = RECIPE.model_copy(update=changes)
    dtype = compute_dtype(recipe.precision)
    student = Student(base, lambda: attach(base, recipe, dtype), recipe, cache)
    return Trainer(base, student, recipe, log, checkpoints=checkpoints, micro_batch=micro_batch)


def train(
    base: Base,
    folder: Path,
    rows: Sequence[Example],
    dev: Sequence[Example] = (),
    *,
    log: type[TrainingLog] = TrainingLog,
    **options: Any,
) -> Run:
    """Train as the loop does."""
    with log(folder / "log") as written:
        trainer = make_trainer(base, written, **options)
        return Run(trainer.train(rows, dev), trainer)


def log_rows(folder: Path, kind: str) -> list[dict[str, Any]]:
    """What the log of `train` says of every step or epoch."""
    lines = (folder / "log" / "metrics.jsonl").read_text("utf-8").splitlines()
    return [row for row in map(json.loads, lines) if row["kind"] == kind]


def losses(folder: Path) -> list[float]:
    return [row["loss"] for row in log_rows(folder, "step")]


def log_p(base: Base, model: nn.Module | None, rows: Sequence[Example]) -> np.ndarray:
    return np.log(softmax(Judge(base, model).logits([row.pair for row in rows])))


def nll(base: Base, model: nn.Module | None, rows: Sequence[Example]) -> float:
    columns = [INDEX[row.label] for row in rows]
    return float(-log_p(base, model, rows)[np.arange(len(rows)), columns].mean())


def figures(history: Sequence[Mapping[str, float]], name: str) -> list[float]:
    return [epoch[name] for epoch in history]
