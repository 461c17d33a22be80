"""Shadow: a version on trial judges live pairs again, once they are answered.

One pair at a time, between two batches of the callers, and after each pair a pause: so the model
spends no more than a set share of its time on shadows, and some of it under any load. What does
not fit is skipped and counted.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from lyra_nli.errors import LyraNliError
from lyra_nli.ml_server.on_trial import OnTrial
from lyra_nli.ml_server.served import Served
from lyra_nli.ml_server.slot import Slot
from lyra_nli.monitoring.shadow_log import ShadowLog
from lyra_nli.monitoring.shadow_rows import JudgedTwice
from lyra_nli.records import Judgement, Pair
from lyra_nli.storage.engine import now

logger = logging.getLogger(__name__)

MAX_WAITING: Final = 64
"""Pairs that may wait for a shadow: few, so that a busy hour is not judged the hour after."""

MAX_WINDOWS: Final = 4
"""Of a pair that a shadow judges: what is longer would take the model for too long at a stretch."""

PAUSE_SECONDS: Final = 0.005
"""Between an answer and its shadow: the answer leaves first, and who comes at once is not held."""

Judging = Callable[[Slot, Served, Pair], Awaitable[tuple[Judgement, float]]]
"""Judges a pair in the background; gives the judgement, and the seconds that the model took."""


@dataclass(frozen=True, slots=True)
class _Seen:
    """A live pair, its answer, and the trial that drew it."""

    slot: Slot
    on: OnTrial
    pair: Pair
    said: Judgement
    pair_id: str
    source: str


class Shadow:
    """Draws from what was answered, and judges it again. On the event loop.

    Args:
        judge: judges a pair in the background.
        log: keeps what comes of it.
        cpu: share of the model's time that it may take, 0 to 1; 0: none.
    """

    def __init__(self, judge: Judging, log: ShadowLog, cpu: float) -> None:
        self._judge, self._log, self._cpu = judge, log, cpu
        self._waiting: deque[_Seen] = deque()
        self._worker: asyncio.Task[None] | None = None

    def saw(
        self,
        slot: Slot,
        live: Iterable[int],
        pairs: Sequence[Pair],
        judgements: Sequence[Judgement],
        pair_ids: Sequence[str],
        sources: Sequence[str],
    ) -> None:
        """Draw from a request that was answered. Takes microseconds, can't fail.

        Args:
            live: positions of the pairs that the active version judged.
            pair_ids, sources: one for each pair, or none at all.
        """
        on = slot.trials.get("shadow")
        if on is None:
            return
        for i in live:
            if random.random() >= on.trial.share:
                continue
            too_long = judgements[i].windows > MAX_WINDOWS
            if not self._cpu or too_long or len(self._waiting) >= MAX_WAITING:
                on.tally.skipped += 1
                self._log.skip(on.trial, judgements[i].adapter)
                continue
            names = (pair_ids[i] if pair_ids else "", sources[i] if sources else "")
            self._waiting.append(_Seen(slot, on, pairs[i], judgements[i], *names))
        if self._waiting and (self._worker is None or self._worker.done()):
            self._worker = asyncio.create_task(self._work(), name="shadow")

    async def close(self) -> None:
        """Drop what waits."""
        if self._worker is not None:
            self._worker.cancel()
            await asyncio.gather(self._worker, return_exceptions=True)

    async def _work(self) -> None:
        """Judge until nothing waits, and rest as long as the share asks for."""
        while self._waiting:
            await asyncio.sleep(PAUSE_SECONDS)
            seen = self._waiting.popleft()
            now_on = seen.slot.trials.get("shadow")
            if now_on is not None and now_on.trial == seen.on.trial:
                began = time.monotonic()
                took = await self._again(seen)
                spent = time.monotonic() - began - took
                await asyncio.sleep(max(0.0, took * (1 / self._cpu - 1) - spent))

    async def _again(self, seen: _Seen) -> float:
        """Judge one pair; gives the seconds that the model took."""
        tally = seen.on.tally
        began = time.monotonic()
        try:
            judgement, took = await self._judge(seen.slot, seen.on.served, seen.pair)
        except (LyraNliError, RuntimeError) as error:  # torch: RuntimeError
            if not tally.failed:
                logger.warning("the shadow %s can't judge: %s", seen.on.trial.version, error)
            tally.failed += 1
            tally.problem = str(error)
            return time.monotonic() - began
        tally.judged += 1
        tally.disagreed += judgement.label != seen.said.label
        self._log.put(
            JudgedTwice(
                now(), seen.on.trial, seen.pair, seen.said, judgement, seen.pair_id, seen.source
            )
        )
        return took
