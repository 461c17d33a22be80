"""32 clients over HTTP, to ours and to a server like Lyra's, of `serving`."""

from __future__ import annotations

import statistics
import tempfile
import threading
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from serving_processes import load, running
from serving_tools import Ground, Target, project
from transformers import pipeline

from lyra_nli.ml_server.main import create_app
from lyra_nli.models import starter

PIPELINE, OURS = "one pipeline call a pair", "ours"
TURNS, SECONDS = 3, 10


def server(ground: Ground) -> list[Target]:
    """Requests a second and latencies with 32 clients, single pairs, by turns.

    Ours as it is installed: a version answers, and every answer is written down.
    """
    times: dict[str, list[float]] = {PIPELINE: [], OURS: []}
    speeds: dict[str, list[float]] = {PIPELINE: [], OURS: []}
    with tempfile.TemporaryDirectory() as folder:
        settings = project(ground.base, Path(folder), ground.threads)
        with running(pair_by_pair) as peer, running(create_app, settings) as ours:
            for turn in range(1 + TURNS):
                for name, url in ((PIPELINE, peer), (OURS, ours)):
                    speed, found = load(url, ground.pairs, seconds=SECONDS if turn else 2)
                    if turn:  # the first one warms up
                        speeds[name].append(speed)
                        times[name] += found
    print("\n| server | pairs a second | p50 ms | p99 ms |\n|---|---|---|---|")
    for name, found in times.items():
        cut = statistics.quantiles(found, n=100)
        print(
            f"| {name} | {statistics.mean(speeds[name]):.1f} "
            f"| {1000 * cut[49]:.0f} | {1000 * cut[98]:.0f} |"
        )
    faster = statistics.mean(speeds[OURS]) / statistics.mean(speeds[PIPELINE])
    return [
        Target(
            "32 clients, single pairs: 5x a server that judges pair by pair",
            f"{faster:.1f}x, p99 {1000 * cut[98]:.0f} ms",
            faster >= 5,
        )
    ]


def pair_by_pair() -> FastAPI:
    """A server to the letter of Lyra's: one pipeline call a pair, the texts joined."""
    app = FastAPI()
    judge = pipeline("text-classification", model=str(starter.materialise()), top_k=None)
    busy = threading.Lock()

    @app.get("/readyz")
    def readyz() -> dict[str, bool]:
        return {"ready": True}

    @app.post("/nli")
    def nli(request: dict[str, Any]) -> dict[str, Any]:
        with busy:
            texts = [f"{pair['premise']} [SEP] {pair['hypothesis']}" for pair in request["pairs"]]
            return {"ok": True, "results": [judge(text) for text in texts]}

    return app
