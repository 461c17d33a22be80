"""Memory: what a slow base takes, and whether the system gets it back, of `serving`."""

from __future__ import annotations

import asyncio

import psutil
from serving_tools import Ground, Target

from lyra_nli.ml_server.nli import NLIService
from lyra_nli.models import starter
from lyra_nli.records import Pair
from lyra_nli.settings import Settings

MB = 2**20
PAIR = Pair("The trial met its primary end point.", "The trial succeeded.")


def memory(_: Ground) -> list[Target]:
    """The starter as fast and as slow model; the slow one comes and goes three times."""
    print("\n| | counted MB | resident MB |\n|---|---|---|")
    for precision in ("fp32", "bf16"):
        asyncio.run(come_and_go(precision))
    return []


async def come_and_go(precision: str) -> None:
    """Print what the service counts, and what the system says."""
    nli = {
        "fast_model": str(starter.materialise()),
        "slow_model": "starter",
        "precision": precision,
        "slow_idle_minutes": 1e-6,
    }
    settings = {"nli": nli, "storage": {"database_path": "nowhere.db"}}
    service = NLIService(Settings.model_validate({**settings, "monitoring": {"log_share": 0.0}}))
    await service.start()
    await service.judge([PAIR])
    row(service, f"{precision}, the fast one")
    for _ in range(3):
        await service.judge([PAIR], use_slow=True)
        row(service, "and the slow one")
        await service.follow()
        row(service, "the slow one gone")
    await service.close()


def row(service: NLIService, name: str) -> None:
    """One line of the table."""
    counted, resident = service.status()["memory_bytes"], psutil.Process().memory_info().rss
    print(f"| {name} | {counted / MB:.0f} | {resident / MB:.0f} |")
