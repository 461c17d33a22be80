"""A training that the dashboard started: ``lyra-nli train`` in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel

from lyra_nli.errors import TrainingError
from lyra_nli.settings import Settings
from lyra_nli.storage.engine import now

LOG: Final = "dashboard.log"
LINES: Final = 200
_TAIL_BYTES: Final = 64 * 1024
_END_SECONDS: Final = 20.0


class AlreadyTrainingError(TrainingError):
    """One training runs at a time: it takes the whole machine."""

    http_status = 409


@dataclass(frozen=True, slots=True)
class _Run:
    process: subprocess.Popen[bytes]
    reason: str
    started_at: str


class TrainingRun:
    """Starts one training at a time, and tells how it goes.

    It uses this server's settings, whatever file and options they came from. The log lies with
    the runs of the registry.
    """

    def __init__(self, settings: Settings) -> None:
        self._environment = environment(settings, os.environ)
        self._log = Path(settings.nli.adapters_dir) / "runs" / LOG
        self._lock = threading.Lock()
        self._run: _Run | None = None
        self._finished_at: str | None = None

    def start(self, base_model: str, reason: str) -> None:
        """Start a training, due or not.

        Raises:
            AlreadyTrainingError: the one before still runs.
            TrainingError: it can't be started.
        """
        options = ["train", "--force", "--reason", reason, "--base", base_model]
        command = [sys.executable, "-m", "lyra_nli.cli.main", *options]
        with self._lock:
            if self._run is not None and self._run.process.poll() is None:
                raise AlreadyTrainingError(
                    f"a training runs already, since {self._run.started_at[:19]}",
                    hint="Wait for its end: the page of versions shows its log.",
                )
            try:
                self._log.parent.mkdir(parents=True, exist_ok=True)
                with self._log.open("wb") as stream:
                    process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
                        command,
                        env=self._environment,
                        stdin=subprocess.DEVNULL,
                        stdout=stream,
                        stderr=subprocess.STDOUT,
                    )
            except (OSError, ValueError) as error:  # ValueError: a NUL in the reason
                raise TrainingError(f"the training can't be started: {error}") from error
            self._run, self._finished_at = _Run(process, reason, now()), None

    def status(self) -> dict[str, Any]:
        """Tell of the last training that was started here, with the end of its log."""
        with self._lock:
            run = self._run
            code = run.process.poll() if run else None
            if code is not None and self._finished_at is None:
                self._finished_at = now()
            return {
                "running": run is not None and code is None,
                "pid": run.process.pid if run else None,
                "started_at": run.started_at if run else None,
                "finished_at": self._finished_at,
                "exit_code": code,
                "reason": run.reason if run else None,
                "log": self._tail(),
            }

    def close(self) -> None:
        """End a training that still runs, as Ctrl-C would: its checkpoints stay."""
        with self._lock:
            process = self._run.process if self._run else None
        if process is None or process.poll() is not None:
            return
        process.terminate()
        try:
            process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _tail(self) -> list[str]:
        """Read the last lines; a log of an earlier server tells of its training still."""
        try:
            with self._log.open("rb") as stream:
                stream.seek(max(0, self._log.stat().st_size - _TAIL_BYTES))
                text = stream.read().decode("utf-8", "replace")
        except OSError:
            return []
        return text.splitlines()[-LINES:]


def environment(settings: Settings, own: Mapping[str, str]) -> dict[str, str]:
    """Variables by which another process has the same settings, options included.

    They win over any file. What concerns the server alone stays here: it holds the token.
    """
    plain = {key: value for key, value in own.items() if not _is_setting(key)}
    sections: dict[str, BaseModel] = dict(settings)
    sections.pop("ml_server")
    return plain | {
        f"LYRA_{name}__{key}".upper(): value
        for name, section in sections.items()
        for key, value in _values(section)
    }


def _is_setting(variable: str) -> bool:
    return variable.upper().startswith("LYRA_") and "__" in variable


def _values(section: BaseModel) -> Iterator[tuple[str, str]]:
    for key, value in section.model_dump(mode="json").items():
        if value is None:
            yield key, "null"
        else:
            yield key, json.dumps(value) if isinstance(value, list | dict) else str(value)
