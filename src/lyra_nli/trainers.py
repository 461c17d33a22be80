"""Trainers: made for one training, by the settings' recipe, another one, or from a warm start."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lyra_nli import provenance
from lyra_nli.dataset.build import Dataset
from lyra_nli.errors import TrainingError
from lyra_nli.models.base import Base
from lyra_nli.models.lora import attach
from lyra_nli.models.machine import compute_dtype
from lyra_nli.models.starter import cache_folder
from lyra_nli.registry.rows import Version
from lyra_nli.settings import TrainingSettings
from lyra_nli.training.checkpoint import Checkpoints
from lyra_nli.training.folds import OutOfFold
from lyra_nli.training.log import TrainingLog
from lyra_nli.training.student import Student
from lyra_nli.training.trainer import Trainer
from lyra_nli.warm_start import Start, find_start
from lyra_nli.workspace import Workspace

if TYPE_CHECKING:
    from lyra_nli.training.search import Found


def trainer_of(
    base: Base,
    recipe: TrainingSettings,
    log: TrainingLog,
    *,
    checkpoints: Checkpoints | None = None,
    cache: Path | None = None,
    micro_batch: int | None = None,
    pass_tokens: int | None = None,
) -> Trainer:
    """A trainer with fresh adapters.

    Args:
        cache: of hidden states; None: the folder that all trainings share.
        micro_batch, pass_tokens: rows and tokens of a pass, where an earlier training tells.
    """
    dtype = compute_dtype(recipe.precision)
    cache = cache or cache_folder() / "hidden"
    student = Student(base, lambda: attach(base, recipe, dtype), recipe, cache)
    return Trainer(
        base,
        student,
        recipe,
        log,
        checkpoints=checkpoints,
        micro_batch=micro_batch,
        pass_tokens=pass_tokens,
    )


@contextmanager
def told() -> Iterator[None]:
    """A training that the machine stopped says so, without a traceback.

    Raises:
        TrainingError: for what torch, accelerate or the system raise: memory, or disk.
    """
    try:
        yield
    except (OSError, RuntimeError, MemoryError) as error:
        why = str(error) or "no memory is left"
        raise TrainingError(f"training stopped: {why}") from error


class Trainers:
    """Trainers by one recipe or another, for the same rows and from the same start.

    Attributes:
        start: where their students start from; None: from fresh adapters.
        found: what a search gave; None: none was made.
    """

    def __init__(
        self,
        workspace: Workspace,
        base: Base,
        dataset: Dataset,
        active: Version | None,
        log: TrainingLog,
    ) -> None:
        self.workspace, self.base, self.dataset, self.log = workspace, base, dataset, log
        self.start = find_start(workspace, base, active)
        self.found: Found | None = None
        self._unfinished: list[Checkpoints] = []

    @property
    def unseen(self) -> OutOfFold | None:
        """Answers out of fold, where a search has them already."""
        return self.found.unseen if self.found else None

    @property
    def started_from(self) -> str:
        """The version that the students start from; empty: fresh adapters."""
        return self.start.version if self.start else ""

    def __call__(self, recipe: TrainingSettings) -> Trainer:
        """A trainer that goes on where an interrupted one by this recipe left off.

        Raises:
            AdapterError: the version to start from has another shape.
        """
        workspace = self.workspace.with_recipe(recipe)
        checkpoints = checkpoints_of(workspace, self.base, self.dataset, self.start)
        self._unfinished.append(checkpoints)
        trainer = trainer_of(self.base, recipe, self.log, checkpoints=checkpoints)
        if self.start:
            trainer.start_from(self.start.weights(trainer.student), self.dataset.learned)
        return trainer

    def search(self, minutes: float) -> TrainingSettings:
        """Look for a better recipe than that of the settings.

        Raises:
            DatasetError: the reviews can't be cut into folds.
        """
        from lyra_nli.training.students import search  # Optuna: a second that others are spared

        train, dev = self.dataset.train, self.dataset.dev
        self.found = search(self, self.workspace.settings.training, train, dev, self.log, minutes)
        return self.found.chosen.recipe

    def origin(self) -> dict[str, Any]:
        """What the manifest keeps of a search or a warm start."""
        found: dict[str, Any] = {}
        if self.found:
            found["search"] = self.found.summary()
        if self.start:
            found["warm_start"] = self.start.facts(self.dataset)
        return found

    def clear(self) -> None:
        """Forget what was kept for a restart."""
        for checkpoints in self._unfinished:
            checkpoints.clear()


def checkpoints_of(
    workspace: Workspace, base: Base, dataset: Dataset, start: Start | None = None
) -> Checkpoints:
    """Where a training on the same rows by the same recipe left off, if it was interrupted."""
    identity = {
        "base": base.fingerprint,
        "dataset": dataset.content_hash,
        "split": dataset.split_hash,
        "groups": [example.group for example in (*dataset.train, *dataset.dev)],
        "recipe": workspace.settings.training.model_dump(mode="json"),
        "start": start.digest if start else None,
        "max_length": base.max_length,
        "libraries": provenance.library_versions(),
    }
    return Checkpoints(workspace.registry.directory / "runs" / "unfinished", identity)
