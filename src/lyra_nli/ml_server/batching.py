"""Batches across requests: whoever waits for the model is judged together.

While the model works, requests gather; the next batch takes a fair share of each, so that one
pair does not wait for the thousand that came before it. An idle model starts at once. All of
this runs on the event loop; only the forward pass has a thread.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from typing import Any, Final

import torch

from lyra_nli.errors import BusyError
from lyra_nli.models.encoding import EncodedPair
from lyra_nli.models.engine import Engine
from lyra_nli.settings import ServerSettings

BACKGROUND_TOKENS: Final = 512
"""In one background batch, or a single row: who comes meanwhile waits for no more than that."""


class _Task:
    """The rows of one request, judged in as many batches as it takes.

    Attributes:
        left: positions that no batch has taken yet, the longest last.
        began: when the first batch took some; monotonic seconds.
    """

    def __init__(
        self, engine: Engine, rows: Sequence[EncodedPair], variants: Sequence[Any]
    ) -> None:
        self.engine, self.rows, self.variants = engine, rows, variants
        self.left = sorted(range(len(rows)), key=lambda i: len(rows[i]))
        self.began: float | None = None
        self.answer: asyncio.Future[torch.Tensor] = asyncio.get_running_loop().create_future()
        self._logits: dict[int, torch.Tensor] = {}

    def take(self, tokens: int) -> list[int]:
        """Give positions of the longest rows left whose tokens fit."""
        taken = []
        while self.left and len(self.rows[self.left[-1]]) <= tokens:
            taken.append(self.left.pop())
            tokens -= len(self.rows[taken[-1]])
        return taken

    def put(self, positions: Sequence[int], logits: Sequence[torch.Tensor]) -> None:
        """Take the answers; the last ones make the request's answer."""
        self._logits.update(zip(positions, logits, strict=True))
        if len(self._logits) == len(self.rows) and not self.answer.done():
            self.answer.set_result(torch.stack([self._logits[i] for i in range(len(self.rows))]))


class Batcher:
    """One model thread, and the bounded queue before it.

    Args:
        executor: the model's thread.
        settings: `batch_tokens`, `batch_wait_ms` and `queue_pairs` count here.
    """

    def __init__(self, executor: Executor, settings: ServerSettings) -> None:
        self._executor, self._settings = executor, settings
        self._waiting: list[_Task] = []
        self._background: list[_Task] = []
        self._pump: asyncio.Task[None] | None = None
        self._more = asyncio.Event()
        self._expected = 0  # pairs whose texts are read now, and come next
        self._last = 0  # the engine's id: a model that is let go must not be held here
        self._speed = 0.0

    async def logits(
        self,
        engine: Engine,
        rows: Sequence[EncodedPair],
        variants: Sequence[Any],
        *,
        background: bool = False,
    ) -> tuple[torch.Tensor, float]:
        """Logits [rows, classes] in the model's own order, and when the first batch began.

        When the caller is cancelled, what no batch has taken yet is never judged.

        Args:
            background: one small batch after each batch of others. So no load starves it, and
                whoever asks for it keeps to a budget of its own.

        Raises:
            BusyError: so many pairs wait already that these are not taken.
        """
        task = _Task(engine, rows, variants)
        queue = self._background if background else self._waiting
        if not background:
            self.check_room(len(rows))
        queue.append(task)
        self._more.set()
        if self._pump is None or self._pump.done():
            self._pump = asyncio.create_task(self._run(), name="batches")
        try:
            answer = await task.answer
        finally:
            if task in queue:  # it was given up
                queue.remove(task)
        return answer, task.began or time.monotonic()

    @contextmanager
    def expecting(self, count: int, *, known: bool = False) -> Iterator[None]:
        """Count pairs as waiting while their texts are read.

        Args:
            known: their answers may be known already: only others that are read stand in their way.

        Raises:
            BusyError: too many pairs wait already.
        """
        self.check_room(count, read_alone=known)
        counted = min(count, self._most)
        self._expected += counted
        try:
            yield
        finally:
            self._expected -= counted

    @property
    def _most(self) -> int:
        """What one request counts for at most: half of the queue.

        However many windows it has, it neither shuts out the others nor waits for an empty queue.
        """
        return max(1, self._settings.queue_pairs // 2)

    def check_room(self, count: int, *, read_alone: bool = False) -> None:
        """Refuse so many more pairs if too many wait, or are read.

        Args:
            read_alone: those that wait for the model don't matter.

        Raises:
            BusyError: says when to come back.
        """
        tasks = [] if read_alone else self._waiting
        waiting = self._expected + sum(min(len(task.left), self._most) for task in tasks)
        if waiting and waiting + min(count, self._most) > self._settings.queue_pairs:
            pairs = self._expected + sum(len(task.left) for task in tasks)
            tokens = sum(len(task.rows[i]) for task in tasks for i in task.left)
            raise BusyError(
                f"{pairs} pairs wait already, {self._settings.queue_pairs} may",
                retry_after=max(1, math.ceil(tokens / self._speed)) if self._speed else 1,
                hint="Try again, or raise ml_server.queue_pairs.",
            )

    def close(self) -> None:
        """Give up what waits: those who asked are cancelled."""
        waiting = [*self._waiting, *self._background]
        self._waiting.clear()
        self._background.clear()
        for task in waiting:
            task.answer.cancel()

    async def _run(self) -> None:
        """Judge until nothing waits: a batch of those who wait, one of the background, by turns."""
        room = self._settings.batch_tokens
        company = 0
        while self._waiting or self._background:
            if company > 1:
                await self._gather()
            batch = self._next(self._waiting, room)
            company = len(batch)
            if batch:
                began = time.monotonic()
                if await self._judge(batch):
                    tokens = sum(len(task.rows[i]) for task, own in batch for i in own)
                    self._speed = tokens / (time.monotonic() - began)
            if small := self._next(self._background, min(room, BACKGROUND_TOKENS)):
                await self._judge(small)

    async def _gather(self) -> None:
        """Wait a little for those who were just answered: they tend to come back at once."""
        end = time.monotonic() + self._settings.batch_wait_ms / 1000
        while (left := end - time.monotonic()) > 0:
            waiting = sum(len(task.rows[i]) for task in self._waiting for i in task.left)
            if waiting >= self._settings.batch_tokens:
                return
            self._more.clear()
            try:
                async with asyncio.timeout(left):
                    await self._more.wait()
            except TimeoutError:
                return

    def _next(self, queue: list[_Task], tokens: int) -> list[tuple[_Task, list[int]]]:
        """A batch of one engine: a fair share of each request, the rest to who came first.

        Where two engines are asked they take turns. A row that is longer than a share would wait
        for ever beside many: the longest of who came first goes before the shares.
        """
        if not queue:
            return []
        engine = next((t.engine for t in queue if id(t.engine) != self._last), queue[0].engine)
        self._last = id(engine)
        tasks = [task for task in queue if task.engine is engine]
        taken: dict[_Task, list[int]] = {task: [] for task in tasks}
        room, first = tokens, tasks[0]
        if len(first.rows[first.left[-1]]) > room // len(tasks):
            taken[first].append(first.left.pop())
            room -= len(first.rows[taken[first][0]])
        for share in (room // len(tasks), room):
            for task in tasks:
                rows = task.take(min(share, room))
                room -= sum(len(task.rows[i]) for i in rows)
                taken[task] += rows
        batch = [(task, rows) for task, rows in taken.items() if rows]
        for task, _ in batch:
            task.began = task.began or time.monotonic()
            if not task.left:
                queue.remove(task)
        return batch

    async def _judge(self, batch: Sequence[tuple[_Task, list[int]]]) -> bool:
        """One forward pass; tells whether it went well.

        What goes wrong in it is told to those who asked, not to the others.
        """
        rows = [task.rows[i] for task, own in batch for i in own]
        variants = [task.variants[i] for task, own in batch for i in own]
        work = asyncio.wrap_future(self._executor.submit(batch[0][0].engine.logits, rows, variants))
        await asyncio.wait([work])
        error = asyncio.CancelledError() if work.cancelled() else work.exception()
        if isinstance(error, Exception) and len(batch) > 1:  # whose fault is it?
            for alone in batch:
                await self._judge([alone])
            return False
        if error is not None:
            for task, _ in batch:
                if not task.answer.done():
                    task.answer.set_exception(error)
            return False
        logits = iter(work.result())
        for task, own in batch:
            task.put(own, [next(logits) for _ in own])
        return True
