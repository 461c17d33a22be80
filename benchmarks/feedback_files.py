"""Reviews out and in: seconds and peak memory for a million rows, format by format.

    python benchmarks/feedback_files.py [--rows 1000000] [--formats jsonl csv ...]

Each export and each import into a fresh SQLite database is a process of its own. ``peak`` is the
largest resident set (what `datasets` maps from disk counts too, though the system may take it
back); ``own`` is the largest private part of it.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import platform
import random
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import insert

from lyra_nli.feedback.exporting import export_file
from lyra_nli.feedback.formats import FORMATS, Format
from lyra_nli.feedback.importing import import_file
from lyra_nli.storage.engine import batches, open_database, write
from lyra_nli.storage.tables import nli_reviews
from lyra_nli.storage.upgrade import init_database

WORDS = "aspirin lowered the risk of stroke in patients given a daily dose of placebo for months"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--formats", nargs="+", choices=FORMATS, default=FORMATS)
    options = parser.parse_args()
    print(f"{platform.machine()}, {options.rows:,} rows")
    print("| format | size MB | out s | peak MB | own MB | in s | peak MB | own MB |")
    print("|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        source = str(Path(folder) / "source.db")
        make_reviews(source, options.rows)
        for kind in options.formats:
            path = Path(folder) / f"out-{kind}"
            there = apart(_export, source, path, kind)
            size = sum(file.stat().st_size for file in [path, *path.rglob("*")] if file.is_file())
            target = str(Path(folder) / "target.db")
            back = apart(_import, target, path, kind)
            print(f"| {kind} | {size / 1e6:.0f} | {there} | {back} |", flush=True)
            for file in Path(folder).glob("target.db*"):
                file.unlink()


def make_reviews(location: str, count: int) -> None:
    """Fill a new database; some 350 characters of text a review."""
    init_database(location)
    with write(open_database(location)) as connection:
        for batch in batches(_reviews(count)):
            connection.execute(insert(nli_reviews), batch)


def apart(work: Callable[..., None], *arguments: object) -> str:
    """Run in a fresh process; tell seconds, peak and private memory as cells of the table."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_measured, args=(sender, work, arguments))
    process.start()
    seconds, peak, own = receiver.recv()
    process.join()
    return f"{seconds:.0f} | {peak:.0f} | {own:.0f}"


def _measured(sender: Any, work: Callable[..., None], arguments: tuple[object, ...]) -> None:
    largest = {"VmHWM": 0.0, "RssAnon": 0.0}
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.05):
            for name, megabytes in _memory().items():
                largest[name] = max(largest[name], megabytes)

    watcher = threading.Thread(target=watch)
    watcher.start()
    start = time.perf_counter()
    work(*arguments)
    seconds = time.perf_counter() - start
    done.set()
    watcher.join()
    sender.send((seconds, largest["VmHWM"], largest["RssAnon"]))


def _memory() -> dict[str, float]:
    lines = Path("/proc/self/status").read_text().splitlines()
    cells = (line.split() for line in lines if line.startswith(("VmHWM", "RssAnon")))
    return {cell[0].rstrip(":"): int(cell[1]) / 1024 for cell in cells}


def _export(source: str, path: Path, kind: Format) -> None:
    export_file(open_database(source, read_only=True), path, kind=kind)


def _import(target: str, path: Path, kind: Format) -> None:
    init_database(target)
    import_file(open_database(target), path, kind=kind)


def _reviews(count: int) -> Iterator[dict[str, object]]:
    rng = random.Random(0)
    words = WORDS.split()
    for number in range(count):
        yield {
            "id": f"nlr_{rng.getrandbits(64):016x}",
            "edge_id": f"edge_{number}",
            "pair_key": f"{rng.getrandbits(128):032x}",
            "premise": f"{number} {' '.join(rng.choices(words, k=45))}",
            "hypothesis": " ".join(rng.choices(words, k=12)),
            "predicted_label": "neutral",
            "predicted_confidence": rng.random(),
            "predicted_by": "lora-lyra-v3",
            "correct_label": rng.choice(["supports", "neutral"]),
            "anchors_json": json.dumps([f"page:p{number // 20}", f"claim:c{number // 7}"]),
            "reviewer": "ann",
            "reason": "the interval is below 1",
            "sampling": "random",
            "source_url": f"https://example.org/{number // 20}",
            "reviewed_at": f"2026-01-{number % 28 + 1:02d}T10:00:00.{number % 1_000_000:06d}+00:00",
        }


if __name__ == "__main__":
    main()
