"""The review queue: how long a reviewer waits for the next pair, with a million edges in SQLite.

    python benchmarks/feedback.py [--edges 1000000] [--requests 200]

Half a percent of the edges are reviewed, 5% are no judgements, some have no text. For each order:
`next_items` with a lease, opening the database anew each time; then over HTTP from the routes of
the review page, which keep it open; then `random` when only ten edges are left.
`CPU ms` is the mean of this process, client included: what is left of a busy machine's figures.
"""

from __future__ import annotations

import argparse
import math
import platform
import random
import socket
import sqlite3
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path

import httpx
import uvicorn
from fastapi import FastAPI

from lyra_nli.feedback.queue import ORDERS, next_items
from lyra_nli.ml_server.feedback_routes import create_feedback_router
from lyra_nli.settings import Settings
from lyra_nli.storage.engine import open_database
from lyra_nli.storage.upgrade import init_database

PAGES, CLAIMS = 2_000, 5_000

FILL = """
INSERT INTO pages SELECT 'p' || n, 'https://example.org/' || n, 'example.org', 'Page ' || n FROM pn;
INSERT INTO claims (id, task_id, claim_text)
    SELECT 'c' || n, 't1', 'Claim ' || n || ': the drug lowers the risk of stroke.' FROM cn;
INSERT INTO fragments SELECT 'f' || n, 'p' || (n % {pages}),
    CASE WHEN n % 500 = 0 THEN '' ELSE 'Fragment ' || n || ': no difference between the arms was '
    || 'found after 24 months (hazard ratio 0.98, 95% CI 0.81 to 1.19).' END FROM en;
INSERT INTO edges SELECT lower(hex(randomblob(8))), 'fragment', 'f' || n, 'claim',
    'c' || (n % {claims}), r, r, 0.34 + 0.66 * abs(random() / 9223372036854775808.0),
    reviewed, NULL, CASE WHEN reviewed THEN '2026-01-02T00:00:00+00:00' END,
    strftime('%Y-%m-%dT%H:%M:%S+00:00', 1767225600 + n, 'unixepoch')
    FROM (SELECT n, n % 200 = 0 AS reviewed, CASE WHEN n % 20 = 1 THEN 'origin'
        WHEN n % 3 = 0 THEN 'supports' WHEN n % 3 = 1 THEN 'refutes' ELSE 'neutral' END AS r
        FROM en);
INSERT INTO nli_reviews (id, edge_id, pair_key, premise, hypothesis, predicted_label,
        predicted_confidence, correct_label, reviewer, sampling, reviewed_at)
    SELECT 'nlr_' || lower(hex(randomblob(8))), id, id, 'a', 'b', relation, 0.9, relation, 'ada',
    'random', edge_corrected_at FROM edges WHERE edge_human_corrected = 1 AND relation <> 'origin';
INSERT INTO nli_queue_scores (kind, edge_id, score, at)
    SELECT 'disagree', id, abs(random() / 9223372036854775808.0), created_at FROM edges
    WHERE edge_human_corrected = 0 AND rowid % 50 = 0;
INSERT INTO nli_queue_scores (kind, edge_id, score, at)
    SELECT 'suspect', id, abs(random() / 9223372036854775808.0), created_at FROM edges
    WHERE edge_human_corrected = 1 AND rowid % 400 = 0;
"""


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--edges", type=int, default=1_000_000)
    parser.add_argument("--requests", type=int, default=200)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="lyra-nli-bench-") as folder:
        path = Path(folder) / "lyra.db"
        seconds = fill(path, options.edges)
        size = path.stat().st_size / 2**20
        print(
            f"{platform.machine()}, {options.edges:,} edges, {size:.0f} MB, {seconds:.0f} s to make"
        )
        print("\n| the next pair | p50 ms | p95 ms | most ms | CPU ms |\n|---|---|---|---|---|")
        for order in ORDERS:
            row(order, options.requests, partial(ask, path, order=order))
        row("second look", options.requests, partial(ask, path, second_share=1.0))
        settings = Settings.model_validate({"storage": {"database_path": str(path)}})
        with served(settings) as client:
            for order in ORDERS:
                url = f"/feedback/next?order={order}&reviewer=eve"
                row(f"{order}, over HTTP", options.requests, partial(get, client, url))
            url = "/feedback/progress?reviewer=eve"
            row("progress, over HTTP", options.requests // 4, partial(get, client, url))
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute("DELETE FROM nli_leases")
            connection.execute(
                "UPDATE edges SET edge_human_corrected = 1 WHERE rowid % 100000 <> 7"
            )
        row("random, ten left", options.requests, partial(ask, path, order="random", lease=False))


def fill(path: Path, edges: int) -> float:
    """Make the database by SQL; returns the seconds that it took."""
    started = time.perf_counter()
    init_database(str(path))
    with closing(sqlite3.connect(path)) as connection, connection:
        for name, count in (("pn", PAGES), ("cn", CLAIMS), ("en", edges)):
            connection.execute(f"CREATE TEMP TABLE {name} (n INTEGER PRIMARY KEY)")
            connection.executemany(f"INSERT INTO {name} VALUES (?)", ((n,) for n in range(count)))
        for one in FILL.format(pages=PAGES, claims=CLAIMS).split(";\n"):
            connection.execute(one)
    return time.perf_counter() - started


def ask(path: Path, **more: object) -> None:
    """Ask the queue on a connection of its own."""
    engine = open_database(str(path))
    shares = {"random_share": 0.0, "second_share": 0.0, "reviewer": "eve"}
    [_] = next_items(engine, **{**shares, **more})  # type: ignore[arg-type]
    engine.dispose()


def get(client: httpx.Client, url: str) -> None:
    """Ask over HTTP."""
    client.get(url).raise_for_status()


def row(name: str, requests: int, work: Callable[[], None]) -> None:
    """Time it, and print a row."""
    times = []
    work()  # the first one reads the file
    cpu = time.process_time()
    for _ in range(requests):
        started = time.perf_counter()
        work()
        times.append(1000 * (time.perf_counter() - started))
    cpu = 1000 * (time.process_time() - cpu) / requests
    times.sort()
    p95 = times[math.ceil(0.95 * len(times)) - 1]
    figures = (statistics.median(times), p95, times[-1], cpu)
    print(f"| {name} | " + " | ".join(f"{figure:.1f}" for figure in figures) + " |", flush=True)


@contextmanager
def served(settings: Settings) -> Iterator[httpx.Client]:
    """The review page's routes, without a model, on a real port."""
    app = FastAPI()
    app.include_router(create_feedback_router(settings))
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # as the server does
    server = uvicorn.Server(uvicorn.Config(app, log_config=None))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        base = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with httpx.Client(base_url=base, trust_env=False, timeout=60) as client:
            yield client
    finally:
        server.should_exit = True
        thread.join(10)
        listener.close()


if __name__ == "__main__":
    random.seed(1)
    main()
