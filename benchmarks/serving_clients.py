"""Clients that send single pairs over HTTP, in a process of their own, of `serving`.

    python serving_clients.py URL SECONDS CLIENTS < BODIES

BODIES has a request a line. Each client sends one after the other, any of them; printed are the
seconds until the last answer and, as a list, those that each took. Nothing but the standard
library: clients share the processor with the server that they measure.
"""

from __future__ import annotations

import http.client
import json
import random
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from urllib.parse import urlsplit


def main() -> None:
    """Send, and print the times."""
    url, seconds, clients = sys.argv[1], float(sys.argv[2]), int(sys.argv[3])
    bodies = sys.stdin.read().splitlines()
    began = time.monotonic()
    asks = partial(client, url, bodies, began + seconds)
    with ThreadPoolExecutor(clients) as pool:
        times = [each for found in pool.map(asks, range(clients)) for each in found]
    json.dump([time.monotonic() - began, times], sys.stdout)


def client(url: str, bodies: Sequence[str], end: float, seed: int) -> list[float]:
    """One client's times."""
    where, own, times = urlsplit(url), random.Random(seed), []
    connection = http.client.HTTPConnection(where.hostname or "", where.port, timeout=120)
    while time.monotonic() < end:
        body, began = own.choice(bodies), time.perf_counter()
        connection.request("POST", where.path, body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        said = response.read()
        if response.status != http.client.OK:
            raise RuntimeError(f"{response.status}: {said.decode(errors='replace')}")
        times.append(time.perf_counter() - began)
    connection.close()
    return times


if __name__ == "__main__":
    main()
