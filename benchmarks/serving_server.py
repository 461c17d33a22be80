"""32 clients over HTTP, to ours and to a server like Lyra's, of `serving`."""

from __future__ import annotations

import statistics
import threading
from typing import Any

from fastapi import FastAPI
from serving_tools import Ground, Target, load, running
from transformers import pipeline

from lyra_nli.ml_server.main import create_app
from lyra_nli.models import starter
from lyra_nli.settings import Settings


def server(ground: Ground) -> list[Target]:
    """Requests a second and latencies with 32 clients, single pairs."""
    print("\n| server | pairs a second | p50 ms | p99 ms |")
    print("|---|---|---|---|")
    settings = {
        "nli": {"fast_model": "starter"},
        "ml_server": {"threads": ground.threads},
        "storage": {"database_path": "nowhere.db"},  # no version, and no log of these pairs
    }
    speeds = []
    for name, app in (
        ("one pipeline call a pair", pair_by_pair()),
        ("ours", create_app(Settings.model_validate(settings))),
    ):
        with running(app) as url:
            speed, times = load(url, ground.pairs, seconds=20)
        speeds.append(speed)
        cut = statistics.quantiles(times, n=100)
        print(f"| {name} | {speed:.1f} | {1000 * cut[49]:.0f} | {1000 * cut[98]:.0f} |")
    faster = speeds[1] / speeds[0]
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
