"""The training log: every step and epoch to JSONL and TensorBoard, and a live progress bar."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from torch.utils.tensorboard import SummaryWriter


class TrainingLog:
    """Writes ``metrics.jsonl`` and TensorBoard events into a folder; shows progress.

    Args:
        folder: made if missing.
        console: where the progress bar goes (a terminal; nothing is drawn elsewhere).
    """

    def __init__(self, folder: Path, console: Console | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._file = (folder / "metrics.jsonl").open("a", encoding="utf-8")
        self._board = SummaryWriter(log_dir=str(folder))
        self._started = time.monotonic()
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeRemainingColumn(),
            console=console or Console(stderr=True),
            transient=True,
        )
        self._phase, self._watched, self._within = "", "", ""
        self._counted = 0  # steps of this phase
        self._task = self._progress.add_task("training", total=None, note="")
        self._whole: TaskID | None = None
        self._said: set[str] = set()

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.stop()
        if kind is not KeyboardInterrupt:
            self._board.close()
        # Else it may have been cut short inside its own queue, and closing it waits for that.
        self._file.close()

    @contextmanager
    def within(self, part: str) -> Iterator[None]:
        """Name the part of a training that the next phases belong to."""
        before, self._within = self._within, f"{part}, "
        try:
            yield
        finally:
            self._within = before

    def begin(self, phase: str, total: int, done: int = 0) -> None:
        """Tell what comes now, and of how many steps; also after a restart."""
        phase = self._within + phase
        again = self._counted if phase == self._phase else 0  # it failed, and starts anew
        self._phase, self._watched, self._counted = phase, "", done
        self._progress.reset(self._task, total=total, completed=done, description=phase, note="")
        if self._whole is not None:
            self._progress.advance(self._whole, done - again)

    def advance(self, count: int) -> None:
        """Some steps of a phase that has nothing to write down."""
        self._progress.update(self._task, advance=count)

    def expect(self, steps: int) -> None:
        """All steps of the phases to come: a second bar tells what is left of them together."""
        self._whole = self._progress.add_task("all of the training", total=steps, note="")

    def warn(self, topic: str, text: str) -> None:
        """Say what may go wrong, once a topic; also where no bar is drawn."""
        if topic not in self._said:
            self._said.add(topic)
            self._line({"kind": "warning", "text": text})
            self._progress.console.print(text, style="yellow")

    def step(self, step: int, values: Mapping[str, float]) -> None:
        """One optimizer step."""
        self._write("step", step, values)
        note = f"loss {values['loss']:.3f}{self._watched}"
        self._progress.update(self._task, completed=step, note=note)
        self._counted += 1
        if self._whole is not None:
            self._progress.advance(self._whole)

    def epoch(self, epoch: int, values: Mapping[str, float]) -> None:
        """The end of an epoch, with the figures of the rows that are watched."""
        self._write("epoch", epoch, values)
        if "watched_nll" in values:
            nll, accuracy = values["watched_nll"], values["watched_accuracy"]
            self._watched = f", unseen rows: nll {nll:.3f}, accuracy {accuracy:.3f}"

    def plan(self, values: Mapping[str, float]) -> None:
        """What is expected of a phase, before it starts."""
        self._write("plan", 0, values)

    def trial(self, trial: int, facts: Mapping[str, Any]) -> None:
        """What became of a recipe that a search tried."""
        self._line({"kind": "trial", "trial": trial, **facts})

    def _write(self, kind: str, index: int, values: Mapping[str, float]) -> None:
        seconds = round(time.monotonic() - self._started, 3)
        self._line({"kind": kind, "phase": self._phase, kind: index, "seconds": seconds, **values})
        for name, value in values.items():
            self._board.add_scalar(f"{self._phase}/{kind}/{name}", value, index)

    def _line(self, row: Mapping[str, Any]) -> None:
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()
