"""How fast verdicts are written, alone and by many at once.

    python benchmarks/feedback_writers.py [--edges 10000] [--processes 8] [--writes 100]

Makes a database in a temporary folder; prints milliseconds per `edge_correct` (the action that
MCP, HTTP and Python share) for one writer, and for many processes at one SQLite file: how many
were written, lost, doubled, refused. Both in the journal mode of our own databases (WAL) and
in the one that Lyra's have.
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from itertools import chain
from pathlib import Path

import numpy as np
from sqlalchemy import Engine, text

from lyra_nli.errors import LyraNliError
from lyra_nli.feedback.actions import perform
from lyra_nli.storage.engine import open_database, write
from lyra_nli.storage.upgrade import init_database

LABELS = ("supports", "refutes", "neutral")


def main() -> None:
    """Measure both journal modes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--edges", type=int, default=10_000)
    parser.add_argument("--processes", type=int, default=8)
    parser.add_argument("--writes", type=int, default=100)
    options = parser.parse_args()
    for mode in ("wal", "delete"):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "lyra.db"
            make(path, options.edges, mode)
            one_writer(path, options.writes, mode)
            many_writers(path, options.processes, options.writes, mode)


def make(path: Path, edges: int, mode: str) -> None:
    """Make a database of unreviewed edges."""
    init_database(str(path))
    engine = open_database(str(path))
    with write(engine) as connection:
        connection.execute(text("INSERT INTO pages VALUES ('p', 'https://a.example', 'a', '')"))
        for table, sql in {
            "fragments": "INSERT INTO fragments VALUES (:f, 'p', :text)",
            "claims": "INSERT INTO claims (id, claim_text) VALUES (:c, :text)",
            "edges": "INSERT INTO edges (id, source_type, source_id, target_type, target_id,"
            " relation, nli_label, nli_confidence, created_at) VALUES (:e, 'fragment', :f,"
            " 'claim', :c, :label, :label, :confidence, :at)",
        }.items():
            connection.execute(text(sql), [_row(table, number) for number in range(edges)])
    engine.dispose()
    engine = open_database(str(path))
    with engine.connect() as connection:
        raw = connection.connection.dbapi_connection
        assert raw is not None
        raw.execute(f"PRAGMA journal_mode = {mode}")
    engine.dispose()


def one_writer(path: Path, writes: int, mode: str) -> None:
    """Time one writer, in one process."""
    seconds = correct(str(path), [f"e{number}" for number in range(writes)])
    print(f"{mode:6}  1 writer,  {writes} verdicts:  {_figures(seconds)}")


def many_writers(path: Path, processes: int, writes: int, mode: str) -> None:
    """Time many processes, each verdict on an edge of its own; then count what there is."""
    edges = [f"e{writes + number}" for number in range(writes)]
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=spawn) as pool:
        list(pool.map(correct, [str(path)] * processes, [[]] * processes))  # the imports
        start = time.perf_counter()
        shares = [edges[number::processes] for number in range(processes)]
        seconds = list(chain.from_iterable(pool.map(correct, [str(path)] * processes, shares)))
        total = time.perf_counter() - start
    engine = open_database(str(path), read_only=True)
    with engine.connect() as connection:
        rows, distinct = connection.execute(
            text("SELECT count(*), count(DISTINCT edge_id) FROM nli_reviews")
        ).one()
    engine.dispose()
    print(
        f"{mode:6} {processes:2} processes, {len(seconds)} verdicts:  {_figures(seconds)}  "
        f"{total:.2f} s in all; lost {2 * writes - distinct}, doubled {rows - distinct}, "
        f"refused {sum(second < 0 for second in seconds)}"
    )


def correct(path: str, edges: list[str]) -> list[float]:
    """Give a verdict on each edge; the seconds that each took, -1 for one that was refused."""
    engine = open_database(path)
    seconds = [_one(engine, edge) for edge in edges]
    engine.dispose()
    return seconds


def _one(engine: Engine, edge: str) -> float:
    start = time.perf_counter()
    try:
        args = {"edge_id": edge, "correct_relation": "refutes", "reason": "a benchmark"}
        perform(engine, "edge_correct", args, who="bench", idempotency_key=f"key-{edge}")
    except LyraNliError:
        return -1.0
    return time.perf_counter() - start


def _row(table: str, number: int) -> dict[str, object]:
    return {
        "e": f"e{number}",
        "f": f"f{number}",
        "c": f"c{number}",
        "text": f"Sentence {number} of {table}. " * 5,
        "label": LABELS[number % 3],
        "confidence": 0.4 + number % 600 / 1000,
        "at": f"2026-01-01T00:00:{number % 60:02}",
    }


def _figures(seconds: list[float]) -> str:
    p50, p95 = np.percentile(seconds, [50, 95]) * 1000
    return f"p50 {p50:5.1f} ms  p95 {p95:6.1f} ms  max {max(seconds) * 1000:6.1f} ms"


if __name__ == "__main__":
    main()
