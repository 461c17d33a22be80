"""As many versions in memory as the default keeps, and one more, of `serving`."""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path

from serving_tools import Ground, Target, apart, in_turn, of_length, project

from lyra_nli.ml_server.nli import NLIService
from lyra_nli.records import Judgement, Pair
from lyra_nli.settings import NliSettings, Settings

MOST: int = NliSettings.model_fields["resident_versions"].default
ROWS = 32
GAP = 1e-4
"""In probability, float32: beside others a row is multiplied in another order."""
MB = 2**20


def residents(ground: Ground) -> list[Target]:
    """Name every version once, ask 32 of them about a row each, name one more."""
    rows = of_length(ground.base, ground.pairs, ROWS, seed=5)
    with tempfile.TemporaryDirectory() as folder, asyncio.Runner() as runner:
        settings = project(ground.base, Path(folder), ground.threads, versions=MOST + 1)
        service = NLIService(exact(settings))
        ask = Asking(service, runner)
        runner.run(service.start())
        try:
            return measured(ask, rows, ground.repeat)
        finally:
            runner.run(service.close())


def exact(settings: Settings) -> Settings:
    """Float32, and no log of what is asked."""
    nli = settings.nli.model_copy(update={"precision": "fp32"})
    monitoring = settings.monitoring.model_copy(update={"log_share": 0.0})
    return settings.model_copy(update={"nli": nli, "monitoring": monitoring})


class Asking:
    """A service, asked from outside of its event loop."""

    def __init__(self, service: NLIService, runner: asyncio.Runner) -> None:
        self.service, self.runner = service, runner

    def __call__(self, pairs: Sequence[Pair], names: Sequence[str]) -> Sequence[Judgement]:
        """Judge each pair by the version of its name."""
        return self.runner.run(self.service.judge(pairs, adapters=names)).judgements

    def resident(self) -> Mapping[str, int]:
        """Bytes of every version in memory, the longest unused first."""
        return {item["version"]: item["bytes"] for item in self.service.status()["resident"]}


def measured(ask: Asking, rows: Sequence[Pair], repeat: int) -> list[Target]:
    """Print the table; v1 is the active version."""
    names = [version.name for version in ask.runner.run(ask.service.versions())]
    known, one_more = names[:MOST], names[MOST]
    first = statistics.median(seconds(partial(ask, rows[:1], [name])) for name in known[1:])
    full = ask.resident()
    some = known[-ROWS:]
    ms = in_turn(
        {"one": partial(ask, rows, some[:1] * ROWS), "many": partial(ask, rows, some)}, repeat
    )
    right = answered_alike(ask, rows, some)
    before = list(ask.resident())
    ask(rows[:1], [one_more])
    after = ask.resident()
    oldest = next(name for name in before if name != names[0])  # the active one stays
    print(
        f"\n| versions in memory | MB of their own | from disk to the first answer, ms "
        f"| {ROWS} rows of one, ms | of {ROWS} versions, ms | of one's speed |\n"
        f"|---|---|---|---|---|---|\n"
        f"| {len(full)} | {sum(full.values()) / MB:.0f} | {1000 * first:.0f} | {ms['one']:.0f} "
        f"| {ms['many']:.0f} | {ms['one'] / ms['many']:.0%} |"
    )
    kept = set(before) - {oldest} | {one_more} == set(after)
    return [
        Target(
            f"{MOST} versions in memory, {ROWS} of them asked at once, one more takes the place "
            "of the longest unused",
            f"{len(full)}, {'each as alone' if right else 'WRONG'}, {'so' if kept else 'NOT SO'}",
            len(full) == MOST and right and kept,
        ),
        Target(
            "a version is read from disk, checked, and answers: under 250 ms",
            f"{1000 * first:.0f} ms",
            first < 0.25,
        ),
    ]


def seconds(work: Callable[[], object]) -> float:
    """What a call takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def answered_alike(ask: Asking, rows: Sequence[Pair], some: Sequence[str]) -> bool:
    """Whether each row is answered by the version it names, as that answers it alone."""
    together = ask(rows, some)
    alone = [ask([row], [name])[0] for row, name in zip(rows, some, strict=True)]
    others = ask([rows[0]] * ROWS, some)
    told_apart = min(apart(*two) for two in pairwise(others)) > GAP  # or any could have answered
    named = [said.adapter for said in together] == list(some)
    return named and told_apart and max(map(apart, together, alone)) <= GAP
