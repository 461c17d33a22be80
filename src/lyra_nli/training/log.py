"""The training log: every step and epoch to JSONL and TensorBoard, and a live progress bar."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
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
            TextColumn("training"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeRemainingColumn(),
            console=console or Console(stderr=True),
            transient=True,
        )
        self._task = self._progress.add_task("training", total=None, note="")

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
        self._board.close()
        self._file.close()

    def expect(self, steps: int) -> None:
        """Tell how many steps lie ahead; also after a restart with smaller batches."""
        self._progress.reset(self._task, total=steps)

    def step(self, step: int, values: Mapping[str, float]) -> None:
        """One optimizer step."""
        self._write("step", step, values)
        self._progress.update(self._task, completed=step, note=f"loss {values['loss']:.3f}")

    def epoch(self, epoch: int, values: Mapping[str, float]) -> None:
        """The end of an epoch, with the dev metrics."""
        self._write("epoch", epoch, values)

    def _write(self, kind: str, index: int, values: Mapping[str, float]) -> None:
        seconds = round(time.monotonic() - self._started, 3)
        row = {"kind": kind, kind: index, "seconds": seconds, **values}
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()
        for name, value in values.items():
            self._board.add_scalar(f"{kind}/{name}", value, index)
