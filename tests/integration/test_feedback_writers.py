"""Several processes that correct edges of one SQLite file at once."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest
from lyra_databases import LyraDatabase, fetch

from lyra_nli.feedback.actions import perform
from lyra_nli.storage.engine import open_database
from lyra_nli.storage.upgrade import upgrade

pytestmark = pytest.mark.integration


def _work(path: str, name: str, edges: list[str]) -> None:
    engine = open_database(path)
    for edge in edges:
        args = {"edge_id": edge, "correct_relation": "refutes"}
        perform(engine, "edge_correct", args, who=name, idempotency_key=f"key of {edge}")
    engine.dispose()


@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_writers_in_many_processes_lose_and_double_nothing(tmp_path: Path, mode: str) -> None:
    database = LyraDatabase(tmp_path / "lyra.db")
    edges = [f"n{number}" for number in range(100)]
    for edge in edges:
        database.add_edge(edge)
    with database.connect() as connection:
        connection.execute(f"PRAGMA journal_mode = {mode}")
    engine = database.open()
    upgrade(engine, backup=False)
    engine.dispose()
    spawn = multiprocessing.get_context("spawn")
    workers = [
        spawn.Process(target=_work, args=(str(database.path), f"w{n}", edges[n::8]))
        for n in range(8)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0] * 8
    assert fetch(
        database.path, "SELECT count(*), count(DISTINCT edge_id) FROM nli_corrections"
    ) == [(100, 100)]
    refuted = "SELECT count(*) FROM edges WHERE nli_label = 'refutes'"
    assert fetch(database.path, refuted) == [(100,)]
    reviewers = fetch(
        database.path, "SELECT reviewer, count(*) FROM nli_reviews GROUP BY 1 ORDER BY 1"
    )
    assert reviewers == [(f"w{n}", len(edges[n::8])) for n in range(8)]
    assert fetch(database.path, "SELECT count(*) FROM nli_idempotency") == [(100,)]
