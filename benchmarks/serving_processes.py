"""Processes of their own for what `serving` compares: parts, ways, servers and their clients.

Threads of one would be in the way of another's (ADR 13).
"""

from __future__ import annotations

import json
import multiprocessing
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import httpx
import uvicorn
from fastapi import FastAPI

from lyra_nli.records import Pair

T = TypeVar("T")
SPAWN = multiprocessing.get_context("spawn")


def alone(work: Callable[..., T], *args: Any) -> T:
    """Do something in a process of its own, and give what it gives."""
    with ProcessPoolExecutor(1, mp_context=SPAWN) as own:
        return own.submit(work, *args).result()


class Apart:
    """A way to do something, made and called in a process of its own, as it is used.

    Args:
        make: gives the way; it is called there.
    """

    def __init__(self, make: Callable[..., Callable[[], Any]], *args: Any) -> None:
        self._process = ProcessPoolExecutor(
            1, mp_context=SPAWN, initializer=_make, initargs=(make, *args)
        )

    def __call__(self) -> Any:
        """What the way gives."""
        return self._process.submit(_call).result()

    def end(self) -> None:
        """End the process."""
        self._process.shutdown()


_WAYS: list[Callable[[], Any]] = []


def _make(make: Callable[..., Callable[[], Any]], *args: Any) -> None:
    _WAYS.append(make(*args))


def _call() -> Any:
    return _WAYS[0]()


@contextmanager
def running(make: Callable[..., FastAPI], *args: Any) -> Iterator[str]:
    """A real server on a free port, in a process of its own."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = SPAWN.Process(target=_serve, args=(port, make, *args))
    process.start()
    url = f"http://127.0.0.1:{port}"
    try:
        while not ready(url):
            if not process.is_alive():
                raise RuntimeError("the server did not start")
            time.sleep(0.1)
        yield url
    finally:
        process.terminate()
        process.join()


def _serve(port: int, make: Callable[..., FastAPI], *args: Any) -> None:
    uvicorn.run(make(*args), port=port, log_config=None)


def ready(url: str) -> bool:
    """Tell whether a server answers that it judges."""
    try:
        return httpx.get(f"{url}/readyz", trust_env=False, timeout=60).status_code == 200
    except httpx.TransportError:
        return False


def load(
    url: str, pairs: Sequence[Pair], *, seconds: float, clients: int = 32
) -> tuple[float, list[float]]:
    """Pairs a second, and the seconds that each took, by clients in another process."""
    bodies = [
        json.dumps({"pairs": [{"pair_id": "p", "premise": p.premise, "hypothesis": p.hypothesis}]})
        for p in pairs
    ]
    script = Path(__file__).with_name("serving_clients.py")
    done = subprocess.run(
        [sys.executable, str(script), f"{url}/nli", str(seconds), str(clients)],
        input="\n".join(bodies),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(done.stderr)
    took, times = json.loads(done.stdout)
    return len(times) / took, times
