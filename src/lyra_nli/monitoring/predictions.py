"""The log of what the server answered: written beside the answering, which it never holds up.

The server puts its answers in; a thread takes them out, works out what is kept of each (a hash
of the pair, lengths, label, probabilities, version, latency; the texts only if the settings say
so) and writes them with their counts, many in one transaction. What can't be written is dropped
and counted: an answer is worth more than its record.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Final, Literal

from sqlalchemy import Engine, inspect

from lyra_nli.errors import LyraNliError
from lyra_nli.monitoring.prediction_rows import ROWS_AT_ONCE, Judged, rows_of, write_rows
from lyra_nli.monitoring.writer import Writer
from lyra_nli.settings import MonitoringSettings, StorageSettings
from lyra_nli.storage.engine import batches, database_exists, opened, read
from lyra_nli.storage.tables import nli_prediction_counts, nli_predictions

logger = logging.getLogger(__name__)

FLUSH_SECONDS: Final = 1.0
"""How long an answer may wait to be written."""

MAX_WAITING: Final = 10_000
"""When as many pairs wait to be written, what comes is dropped."""

BUSY_SECONDS: Final = 5.0
"""When another program holds the writer's lock for longer, what waits is dropped."""

SAY_SECONDS: Final = 60.0
"""Between two lines of the server's log about what was dropped."""


@dataclass(frozen=True, slots=True)
class LogStatus:
    """How the log is doing.

    Attributes:
        state: ``off`` by the settings; ``on``; ``waiting`` for a database that has the tables;
            ``failing`` when the last rows could not be written; ``ended``.
        written: pairs, since the server was started.
        dropped: pairs that should have been written, and were not.
        problem: why not; empty when all is well.
    """

    state: Literal["off", "on", "waiting", "failing", "ended"]
    written: int = 0
    dropped: int = 0
    problem: str = ""


class PredictionLog:
    """Takes answers from any thread; `start` begins to write them, `close` writes the last.

    Args:
        storage: where the database is. It may come and go: it is opened for every writing.
        monitoring: what is kept, and how much of it.
    """

    def __init__(self, storage: StorageSettings, monitoring: MonitoringSettings) -> None:
        self._location = storage.database_path
        self._settings = monitoring
        self._lock = threading.Lock()
        self._waiting: list[Judged] = []
        self._waiting_pairs = 0
        self._status = LogStatus("on" if monitoring.log_share else "off")
        self._looked = False
        self._unsaid = 0
        self._silent_until = 0.0
        self._writer = Writer("nli-predictions", FLUSH_SECONDS, self._flush)

    def start(self) -> None:
        """Begin to write; the second time does nothing."""
        if self._settings.log_share:
            self._writer.start()

    def put(self, judged: Judged) -> None:
        """Hand over the answers to a request. Never blocks, never fails."""
        if not self._settings.log_share:
            return
        with self._lock:
            full = self._waiting_pairs >= MAX_WAITING
            if not full:
                self._waiting.append(judged)
                self._waiting_pairs += len(judged.pairs)
        if full:
            self._drop(len(judged.pairs), f"{MAX_WAITING} pairs wait to be written already")

    def status(self) -> LogStatus:
        """Tell how the log is doing."""
        with self._lock:
            status = self._status
        return replace(status, state="ended") if self._writer.ended else status

    def close(self) -> None:
        """Write what waits, for a few seconds at most, and end the thread."""
        self._writer.close()

    def _flush(self) -> None:
        with self._lock:
            batch, self._waiting, self._waiting_pairs = self._waiting, [], 0
            look = self._status.state == "waiting" or not self._looked
        self._looked = True  # once before the first answer, so that the status is right
        if batch or look:
            self._store(batch)

    def _store(self, batch: Sequence[Judged]) -> None:
        rows = [row for judged in batch for row in rows_of(judged, self._settings)]
        left = len(rows)
        try:
            with _opened(self._location) as engine:
                for part in batches(rows, ROWS_AT_ONCE):
                    write_rows(engine, part, self._settings.keep_predictions)
                    left -= len(part)
                    self._tell("on", written=len(part))
                if not rows:
                    self._tell("on")
        except _NoTablesError as error:
            self._tell("waiting", str(error))
        except (LyraNliError, OSError) as error:
            self._tell("failing", str(error))
            self._drop(left, str(error))

    def _tell(
        self, state: Literal["on", "waiting", "failing"], problem: str = "", written: int = 0
    ) -> None:
        with self._lock:
            before = self._status
            self._status = LogStatus(state, before.written + written, before.dropped, problem)
        if state == "waiting" != before.state:
            logger.info("predictions are not logged: %s", problem)

    def _drop(self, pairs: int, why: str) -> None:
        with self._lock:
            self._status = replace(self._status, dropped=self._status.dropped + pairs)
            self._unsaid += pairs
            said = self._unsaid if time.monotonic() >= self._silent_until else 0
            if said:
                self._unsaid = 0
                self._silent_until = time.monotonic() + SAY_SECONDS
        if said:
            logger.warning("%d predictions were not logged: %s", said, why)


class _NoTablesError(Exception):
    """There is nothing to write to yet: nobody's fault, and nothing is lost."""


@contextmanager
def _opened(location: str) -> Iterator[Engine]:
    if not database_exists(location):
        raise _NoTablesError("there is no database yet: `lyra-nli db init` makes one")
    with opened(location, busy_timeout=BUSY_SECONDS) as engine:
        with read(engine) as connection:
            present = inspect(connection)
            if not all(map(present.has_table, (nli_predictions.name, nli_prediction_counts.name))):
                raise _NoTablesError("the database has no table for them: `lyra-nli db upgrade`")
        yield engine
