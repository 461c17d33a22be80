"""What callers notice of a shadow, of `serving`: one server by turns without and with one."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import httpx
from serving_processes import load, running
from serving_tools import Ground, Target, project, registry_of

from lyra_nli.ml_server.main import create_app
from lyra_nli.records import Pair
from lyra_nli.registry.trials import Trials

TURN = 2.0
"""Seconds with or without a shadow: short, so that what else the machine does meets both."""


def shadow(ground: Ground) -> list[Target]:
    """A shadow that draws every pair, by one client and by four."""
    with tempfile.TemporaryDirectory() as name:
        settings = project(ground.base, Path(name), ground.threads)
        print(
            "\n| clients | pairs | p50 ms without | with | | p99 ms without | with | | shadows/s |"
        )
        print("|---|---|---|---|---|---|---|---|---|")
        with registry_of(settings) as registry, running(create_app, settings) as url:
            slower = {
                clients: row(Trials(registry), url, ground.pairs, clients, ground.repeat)
                for clients in (1, 4)
            }
    print(f"\nshadow_cpu {settings.ml_server.shadow_cpu:g}, share 1.0")
    return [
        Target(
            "a shadow costs callers at most 5% at p50, one client and four",
            ", ".join(f"{more:+.1%}" for more in slower.values()),
            max(slower.values()) <= 0.05,
        )
    ]


def row(trials: Trials, url: str, pairs: Sequence[Pair], clients: int, repeat: int) -> float:
    """Short turns: without, with, with, without; the quantiles of all requests of a kind."""
    times: dict[bool, list[float]] = {False: [], True: []}
    judged = 0
    load(url, pairs, seconds=TURN, clients=clients)
    for turn in range(2 * repeat):
        on = turn % 4 in (1, 2)
        if on:
            trials.start("shadow", "v2", share=1.0, who="bench")
        time.sleep(1)  # the server follows
        times[on] += load(url, pairs, seconds=TURN, clients=clients)[1]
        if on:
            [trial] = httpx.get(f"{url}/nli/adapter/status", trust_env=False).json()["trials"]
            judged += trial["judged"]
            trials.end("shadow", "starter", who="bench")
    cuts = {on: statistics.quantiles([1000 * t for t in times[on]], n=100) for on in times}
    cells = " | ".join(
        f"{cuts[False][p]:.1f} | {cuts[True][p]:.1f} | {cuts[True][p] / cuts[False][p] - 1:+.1%}"
        for p in (49, 98)
    )
    speed = judged / (TURN * repeat)
    print(f"| {clients} | {len(times[True])} | {cells} | {speed:.1f} |")
    return cuts[True][49] / cuts[False][49] - 1
