"""Saturated: the active version changes a thousand times while 32 clients ask without pause.

A swap is that another process activates a version, which is a row in the registry that the service
then follows. Both versions are resident, as the active and the previous one always are.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import random
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path

from serving_tools import Ground, Target, apart, mixed, of_length, project

from lyra_nli.errors import LyraNliError
from lyra_nli.ml_server.nli import NLIService
from lyra_nli.records import Judgement, Pair
from lyra_nli.registry.versions import Registry
from lyra_nli.settings import Settings
from lyra_nli.storage.engine import open_database

CLIENTS, SWAPS, ROUNDS = 32, 1000, 10
TOLERANCE = {"float32": 1e-4, "bfloat16": 0.02}

Expected = Mapping[str, Mapping[Pair, Judgement]]


@dataclass
class Seen:
    """What the clients saw in one kind of phase; seconds."""

    times: list[float] = field(default_factory=list)
    errors: int = 0
    wrong: int = 0

    def p(self, percent: int) -> float:
        """A percentile, in milliseconds."""
        return 1000 * statistics.quantiles(self.times, n=100)[percent - 1]


def saturated(ground: Ground, seconds: float = 400) -> list[Target]:
    """Phases with and without swaps in turn, the same load in both."""
    base = ground.base
    some = of_length(base, mixed(ground.pairs), 64, seed=4)
    with tempfile.TemporaryDirectory() as folder:
        settings = project(base, Path(folder), ground.threads)
        calm, swapping, precision = asyncio.run(measured(settings, some, seconds))
    print(f"\n| {CLIENTS} clients, {precision} | answers | p50 ms | p99 ms | errors | wrong |")
    print("|---|---|---|---|---|---|")
    for name, seen in (("no swaps", calm), (f"{SWAPS} swaps", swapping)):
        counts = f"{seen.errors} | {seen.wrong}"
        print(f"| {name} | {len(seen.times)} | {seen.p(50):.0f} | {seen.p(99):.0f} | {counts} |")
    more = swapping.p(99) / calm.p(99)
    return [
        Target(
            f"{SWAPS:,} swaps under saturating load: no error, no answer of another version, "
            "p99 at most 1.2x",
            f"{swapping.errors} and {swapping.wrong} of {len(swapping.times)}, {more:.2f}x",
            not swapping.errors and not swapping.wrong and more <= 1.2,
        )
    ]


async def measured(
    settings: Settings, pairs: Sequence[Pair], seconds: float
) -> tuple[Seen, Seen, str]:
    """The calm phases, those with swaps, and the precision of the answers."""
    service = NLIService(settings)
    other = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))
    other.submit(int).result()  # is there, before anything is timed
    await service.start()
    try:
        precision = service.status()["precision"]
        names = [version.name for version in await service.versions()]
        expected = {name: await alone(service, name, pairs) for name in names}
        tolerance = TOLERANCE[precision]
        told_apart = [p for p in pairs if apart(*(expected[n][p] for n in names)) > 5 * tolerance]
        print(
            f"\n{len(told_apart)} of {len(pairs)} pairs tell the two versions apart, and are asked"
        )
        calm, swapping = Seen(), Seen()
        swap = partial(swapped, service, settings, other)
        for _ in range(ROUNDS):
            for seen, swaps in ((calm, 0), (swapping, SWAPS // ROUNDS)):
                phase = Phase(service, told_apart, expected, tolerance, seen)
                turns = [partial(swap, names[(n + 1) % 2]) for n in range(swaps)]
                await phase.run(seconds / ROUNDS / 2, turns)
        return calm, swapping, precision
    finally:
        other.shutdown()
        await service.close()


async def swapped(service: NLIService, settings: Settings, other: Executor, name: str) -> None:
    """Have another process activate a version, and the service look."""
    place = (settings.storage.database_path, settings.nli.adapters_dir)
    await asyncio.get_running_loop().run_in_executor(other, activate, *place, name)
    await service.follow()
    if service.status()["version"] != name:
        raise RuntimeError(service.status()["follow_error"])


def activate(database: str, adapters: str, name: str) -> None:
    """What the other process does."""
    registry_at(database, adapters).activate(name, who="benchmark", reason="a swap")


@cache
def registry_at(database: str, adapters: str) -> Registry:
    """Kept open, as by another server in which people activate versions."""
    return Registry(open_database(database), Path(adapters))


async def alone(service: NLIService, name: str, pairs: Sequence[Pair]) -> dict[Pair, Judgement]:
    """What a version says to each pair, judged by itself."""
    return {p: (await service.judge([p], adapters=[name])).judgements[0] for p in pairs}


@dataclass
class Phase:
    """Clients that ask without pause, and perhaps somebody who activates versions meanwhile."""

    service: NLIService
    pairs: Sequence[Pair]
    expected: Expected
    tolerance: float
    seen: Seen
    over: bool = False

    async def run(self, seconds: float, swaps: Sequence[Callable[[], Awaitable[None]]]) -> None:
        """Swap evenly over the time; no client ends before the last swap."""
        end = time.monotonic() + seconds
        clients = [asyncio.create_task(self._client(number)) for number in range(CLIENTS)]
        for number, swap in enumerate(swaps):
            await asyncio.sleep(max(0.0, end - time.monotonic()) / (len(swaps) - number))
            await swap()
        await asyncio.sleep(max(0.0, end - time.monotonic()))
        self.over = True
        await asyncio.gather(*clients)

    async def _client(self, number: int) -> None:
        own = random.Random(number)
        while not self.over:
            pair = own.choice(self.pairs)
            began = time.perf_counter()
            try:
                [said] = (await self.service.judge([pair])).judgements
            except LyraNliError:
                self.seen.errors += 1
                continue
            self.seen.times.append(time.perf_counter() - began)
            known = self.expected.get(said.adapter, {}).get(pair)
            if known is None or apart(said, known) > self.tolerance:
                self.seen.wrong += 1
