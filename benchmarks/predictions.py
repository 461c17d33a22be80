"""The log of predictions: what it costs the answers, and how fast it writes.

    python benchmarks/predictions.py [--model starter] [--rounds 10] [--rows 1000000]

Three servers of one model run side by side, each a process of its own: without the log, with it,
and with it on a table that is full, so that every written row pushes out the oldest. They are
asked in turn, a block of requests each, so that what else the machine does hits all alike. Then
the log alone: rows a second into an empty and into a full table, in this process.
"""

from __future__ import annotations

import argparse
import os
import platform
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import httpx

from lyra_nli.monitoring.prediction_rows import Judged
from lyra_nli.monitoring.predictions import FLUSH_SECONDS, MAX_WAITING, PredictionLog
from lyra_nli.records import Judgement, Pair
from lyra_nli.settings import MonitoringSettings, StorageSettings
from lyra_nli.storage.engine import now
from lyra_nli.storage.upgrade import init_database

FILL = """
WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < ?)
INSERT INTO nli_predictions (at, pair_key, base_model, version, label, supports, refutes, neutral,
    premise_chars, hypothesis_chars, milliseconds)
SELECT '2026-01-01T00:00:00+00:00', lower(hex(randomblob(16))), 'starter', 'base', 'supports',
    0.9, 0.05, 0.05, 180, 60, 12.5 FROM numbers
"""

JUDGEMENT = Judgement(
    "supports",
    0.9,
    {"supports": 0.9, "refutes": 0.05, "neutral": 0.05},
    "entailment",
    False,
    "base",
)
PREMISE = "Mortality did not differ between the arms after 24 months (hazard ratio 0.98)."


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--model", default="starter")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--rows", type=int, default=1_000_000, help="in the full table")
    options = parser.parse_args()
    print(f"{platform.machine()}, {os.cpu_count()} cores, SQLite {sqlite3.sqlite_version}")
    with tempfile.TemporaryDirectory() as folder:
        empty, full = Path(folder, "empty.db"), Path(folder, "full.db")
        for file, rows in ((empty, 0), (full, options.rows)):
            make_database(file, rows)
        answers(options.model, options.rounds, options.rows, empty, full)
        writing(options.rows, empty, full)


def make_database(file: Path, rows: int) -> None:
    """A new database with that many answers in its log."""
    init_database(str(file))
    if rows:
        with closing(sqlite3.connect(file)) as connection, connection:
            connection.execute(FILL, (rows,))


def answers(model: str, rounds: int, keep: int, empty: Path, full: Path) -> None:
    """Ask the three servers in turn."""
    kinds = {"log off": (empty, "0"), "log on": (empty, "1"), "log on, full": (full, "1")}
    with ExitStack() as running:
        servers = {
            kind: running.enter_context(server(model, file, share, keep))
            for kind, (file, share) in kinds.items()
        }
        print("\n| requests | server | p50 ms | p95 ms | pairs/s |\n|---|---|---|---|---|")
        for words, pairs, at_once in (
            ("1 pair, one after another", 1, 1),
            ("1 pair, 8 at once", 1, 8),
            ("32 pairs, one after another", 32, 1),
        ):
            times: dict[str, list[float]] = {kind: [] for kind in servers}
            spent: dict[str, float] = dict.fromkeys(servers, 0.0)
            for turn in range(rounds + 1):
                for kind, client in servers.items():
                    began = time.perf_counter()
                    block = ask_block(client, pairs, at_once, seed=turn)
                    if turn:  # the first is for warming up
                        spent[kind] += time.perf_counter() - began
                        times[kind] += block
            for kind, seconds in times.items():
                cuts = statistics.quantiles(seconds, n=20)
                rate = len(seconds) * pairs / spent[kind]
                print(
                    f"| {words} | {kind} | {1000 * statistics.median(seconds):.2f}"
                    f" | {1000 * cuts[-1]:.2f} | {rate:.0f} |"
                )
        time.sleep(3 * FLUSH_SECONDS)
        for kind, client in servers.items():
            log = client.get("/nli/adapter/status").json()["prediction_log"]
            print(f"\n{kind}: {log['state']}, {log['written']} written, {log['dropped']} dropped")


def ask_block(client: httpx.Client, pairs: int, at_once: int, seed: int) -> list[float]:
    """Send 16 requests; gives the seconds that each took."""

    def ask(number: int) -> float:
        body = [
            {
                "pair_id": str(i),
                "premise": PREMISE,
                "hypothesis": f"The drug saved {seed * 1000 + number * 40 + i} lives.",
                "source_url": "https://www.example.org/trial",
            }
            for i in range(pairs)
        ]
        began = time.perf_counter()
        client.post("/nli", json={"pairs": body}).raise_for_status()
        return time.perf_counter() - began

    with ThreadPoolExecutor(at_once) as threads:
        return list(threads.map(ask, range(16)))


@contextmanager
def server(model: str, file: Path, share: str, keep: int) -> Iterator[httpx.Client]:
    """A server in a process of its own, on one core; gives a client of it."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    settings = {
        "LYRA_STORAGE__DATABASE_PATH": str(file),
        "LYRA_NLI__FAST_MODEL": model,
        "LYRA_ML_SERVER__PORT": str(port),
        "LYRA_ML_SERVER__THREADS": "1",
        "LYRA_MONITORING__LOG_SHARE": share,
        "LYRA_MONITORING__KEEP_PREDICTIONS": str(keep),
        "LYRA_MONITORING__CHECK_MINUTES": "0",
    }
    command = [sys.executable, "-m", "lyra_nli.cli.main", "serve"]
    process = subprocess.Popen(
        command,
        env={**os.environ, **settings},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        with httpx.Client(
            base_url=f"http://127.0.0.1:{port}", timeout=120, trust_env=False
        ) as client:
            wait_for(client, process)
            yield client
    finally:
        process.terminate()
        process.wait(30)


def wait_for(client: httpx.Client, process: subprocess.Popen[bytes]) -> None:
    """Until it judges pairs."""
    while process.poll() is None:
        try:
            if client.get("/readyz").status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise SystemExit("the server ended before it was ready")


def writing(keep: int, empty: Path, full: Path) -> None:
    """Write with the log's own thread: what waits is written when it is closed."""
    print("\n| table | rows | rows/s | CPU ms for 1000 rows |\n|---|---|---|---|")
    for words, file in (("empty", empty), ("full", full)):
        wall, cpu, rows = 0.0, 0.0, 0
        for block in range(5):
            log = PredictionLog(
                StorageSettings(database_path=str(file)), MonitoringSettings(keep_predictions=keep)
            )
            for part in range(MAX_WAITING // 1000):
                first = 1000 * (part + block * MAX_WAITING // 1000)
                pairs = [Pair(PREMISE, f"The drug saved {first + i} lives.") for i in range(1000)]
                log.put(Judged(now(), "starter", pairs, [JUDGEMENT] * 1000, 12.5, ()))
            began, used = time.perf_counter(), time.process_time()
            log.start()
            log.close()
            wall += time.perf_counter() - began
            cpu += time.process_time() - used
            rows += log.status().written
        print(f"| {words} | {rows} | {rows / wall:.0f} | {1e6 * cpu / rows:.1f} |")


if __name__ == "__main__":
    main()
