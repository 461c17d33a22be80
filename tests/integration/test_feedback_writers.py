"""Several processes that correct edges of one SQLite file at once."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest
from lyra_databases import LyraDatabase, fetch

from lyra_nli.feedback.edges import edge_correct
from lyra_nli.storage.engine import open_database
from lyra_nli.storage.upgrade import upgrade

pytestmark = pytest.mark.integration


def _work(path: str, name: str, edges: list[str]) -> None:
    engine = open_database(path)
    for edge in edges:
        edge_correct(engine, edge, "refutes", reviewer=name)
    engine.dispose()


def test_writers_in_many_processes_lose_and_double_nothing(tmp_path: Path) -> None:
    database = LyraDatabase(tmp_path / "lyra.db")
    engine = database.open()
    upgrade(engine, backup=False)
    engine.dispose()
    edges = [f"n{number}" for number in range(40)]
    for edge in edges:
        database.add_edge(edge)
    spawn = multiprocessing.get_context("spawn")
    workers = [
        spawn.Process(target=_work, args=(str(database.path), f"w{n}", edges[n::4]))
        for n in range(4)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0] * 4
    assert fetch(
        database.path, "SELECT count(*), count(DISTINCT edge_id) FROM nli_corrections"
    ) == [(40, 40)]
    assert fetch(database.path, "SELECT count(*) FROM edges WHERE nli_label = 'refutes'") == [(40,)]
    reviewers = fetch(
        database.path, "SELECT reviewer, count(*) FROM nli_reviews GROUP BY 1 ORDER BY 1"
    )
    assert reviewers == [("w0", 10), ("w1", 10), ("w2", 10), ("w3", 10)]
