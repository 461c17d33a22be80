"""The log of shadows: a thread that writes how versions agree, beside the answering.

As in the log of predictions, the server puts in and never waits. Counts are kept until they are
written; of the pairs in dispute only so many wait. Edges that no id names are looked for once a
minute, for that reads through the claims.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from typing import Final

from sqlalchemy import Engine

from lyra_nli.errors import LyraNliError
from lyra_nli.monitoring import shadow_rows as rows
from lyra_nli.monitoring.shadow_edges import AT_ONCE, edges_named, edges_of
from lyra_nli.monitoring.shadow_rows import JudgedTwice, Period, Row
from lyra_nli.monitoring.writer import Writer
from lyra_nli.records import Pair
from lyra_nli.registry.trial_rows import Trial
from lyra_nli.settings import MonitoringSettings, StorageSettings
from lyra_nli.storage.engine import opened, read, write

logger = logging.getLogger(__name__)

FLUSH_SECONDS: Final = 2.0
"""How long what was counted may wait to be written."""

PERIOD_SECONDS: Final = 3600.0
"""After so long a new row is begun."""

LOOK_SECONDS: Final = 60.0
"""Between two searches for edges by their texts."""

MAX_WAITING: Final = 1_000
"""When as many pairs in dispute wait to be written, what comes is only counted."""

BUSY_SECONDS: Final = 5.0


class ShadowLog:
    """Takes what shadows say from any thread; the first one begins to write, `close` ends that.

    Args:
        storage: where the database is.
        monitoring: how many disagreements are kept.
    """

    def __init__(self, storage: StorageSettings, monitoring: MonitoringSettings) -> None:
        self._location = storage.database_path
        self._keep = monitoring.keep_disagreements
        self._lock = threading.Lock()
        self._periods: dict[tuple[str, str], Period] = {}
        self._unwritten: dict[str, Period] = {}
        self._disputed: list[JudgedTwice] = []
        self._writer = Writer("nli-shadows", FLUSH_SECONDS, self._try)
        self._looked_at = 0
        self._look_from = time.monotonic() + LOOK_SECONDS
        self.problem = ""

    def put(self, judged: JudgedTwice) -> None:
        """Hand over a pair that two versions judged. Never blocks, never fails."""
        with self._lock:
            self._period(judged.trial, judged.one.adapter).add(judged)
            disputed = judged.one.label != judged.other.label
            if disputed and len(self._disputed) < MAX_WAITING:
                self._disputed.append(judged)

    def skip(self, trial: Trial, one: str) -> None:
        """Count a pair that was drawn, and for which there was no time."""
        with self._lock:
            self._period(trial, one).skipped += 1

    def close(self) -> None:
        """Write what waits, for a few seconds at most, and end the thread."""
        self._writer.close()

    def _period(self, trial: Trial, one: str) -> Period:
        """The row that counts now, begun if need be; under the lock."""
        self._writer.start()
        period = self._periods.get((trial.id, one))
        if period is None or time.monotonic() - period.began > PERIOD_SECONDS:
            period = Period(trial, one, time.monotonic())
            self._periods[trial.id, one] = period
        self._unwritten[period.id] = period
        return period

    def _try(self) -> None:
        try:
            self._flush()
        except (LyraNliError, OSError) as error:
            if str(error) != self.problem:
                logger.warning("what a shadow says was not written: %s", error)
            self.problem = str(error)

    def _flush(self) -> None:
        with self._lock:
            periods, self._unwritten = self._unwritten, {}
            counted = [period.values() for period in periods.values()]
            disputed, self._disputed = self._disputed, []
        due = time.monotonic() >= self._look_from
        if not counted and not due:
            return
        try:
            with opened(self._location, busy_timeout=BUSY_SECONDS) as engine:
                if counted:
                    self._write(engine, counted, disputed)
                    periods, disputed = {}, []
                if due:
                    self._find_edges(engine)
        except (LyraNliError, OSError):
            with self._lock:
                self._unwritten = {**periods, **self._unwritten}
                self._disputed = [*disputed, *self._disputed][:MAX_WAITING]
            raise
        self.problem = ""

    def _write(
        self, engine: Engine, counted: Sequence[Row], disputed: Sequence[JudgedTwice]
    ) -> None:
        with read(engine) as connection:
            named = {
                judged.pair_id: judged.pair
                for judged in disputed
                if judged.pair_id and rows.storable(judged.pair_id)
            }
            known = edges_named(connection, named)
        found = (
            rows.disagreement(judged, judged.pair_id if judged.pair_id in known else None)
            for judged in disputed
        )
        kept = [row for row in found if row is not None]
        with write(engine) as connection:
            for row in counted:
                rows.write_period(connection, row)
            rows.write_disagreements(connection, kept, self._keep)
            rows.put_into_queue(connection, kept)

    def _find_edges(self, engine: Engine) -> None:
        """Look for the edges of what no id named, each once: Lyra stores some after they judged."""
        self._look_from = time.monotonic() + LOOK_SECONDS
        with read(engine) as connection:
            lost = rows.without_edge(connection, self._looked_at, AT_ONCE)
            if not lost:
                return
            pairs = [Pair(row["premise"], row["hypothesis"]) for row in lost]
            found = edges_of(connection, dict.fromkeys(pairs))
        with write(engine) as connection:
            named = [
                rows.name_edge(connection, row, found[pair])
                for row, pair in zip(lost, pairs, strict=True)
                if pair in found
            ]
            rows.put_into_queue(connection, named)
        self._looked_at = lost[-1]["id"]
