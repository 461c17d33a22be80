"""Labels that a training found hard to believe stand in the review queue."""

from __future__ import annotations

from pathlib import Path

import pytest
from lyra_databases import NEWER, OLDER, LyraDatabase, Shape, fetch

from lyra_nli.feedback.edges import edge_correct
from lyra_nli.feedback.queue import next_items
from lyra_nli.feedback.seconds import second_review
from lyra_nli.storage.engine import read, write
from lyra_nli.storage.generation import inspect_database
from lyra_nli.storage.reviews import read_reviews
from lyra_nli.storage.scores import DISPUTED
from lyra_nli.storage.suspects import note_suspects
from lyra_nli.storage.upgrade import upgrade

SCORES = "SELECT edge_id, score, source FROM nli_queue_scores ORDER BY edge_id"


@pytest.mark.parametrize("shape", [OLDER, NEWER], ids=["older", "newer"])
def test_suspects_come_first_and_give_way_to_the_next_training(
    tmp_path: Path, shape: Shape
) -> None:
    database = LyraDatabase(tmp_path / "lyra.db", shape)
    for number in range(4):
        database.add_edge(f"e{number}", "supports", 0.9)
    engine = database.open()
    upgrade(engine, backup=False)
    for number in range(4):
        edge_correct(engine, f"e{number}", "refutes", reviewer="ann")
    second_review(engine, "e3", "neutral", reviewer="bob")
    generation = inspect_database(engine)
    with read(engine) as connection:
        ids = {review.edge_id: review.id for review in read_reviews(connection, generation).reviews}

    def note(**losses: float) -> int:
        by_review = {ids[edge]: loss for edge, loss in losses.items()}
        with write(engine) as connection:
            return note_suspects(connection, generation, by_review, "lora-lyra-v1")

    assert note(e0=1.5, e1=4.0, e3=2.0) == 2
    dispute = ("e3", DISPUTED, "second review")
    assert fetch(database.path, SCORES) == [
        ("e0", 1.5, "training"),
        ("e1", 4.0, "training"),
        dispute,
    ]
    queued = next_items(engine, order="suspect", limit=3, random_share=0, second_share=0)
    assert [item.edge_id for item in queued] == ["e3", "e1", "e0"]
    assert note(e2=3.0) == 1
    assert fetch(database.path, SCORES) == [("e2", 3.0, "training"), dispute]
    assert note() == 0
    assert fetch(database.path, SCORES) == [dispute]
    engine.dispose()


def test_reviews_of_files_have_no_edge_to_look_at(tmp_path: Path) -> None:
    database = LyraDatabase(tmp_path / "lyra.db", NEWER)
    database.add_edge("e0", "supports", 0.9)
    engine = database.open()
    upgrade(engine, backup=False)
    with write(engine) as connection:
        found = note_suspects(
            connection,
            inspect_database(engine),
            {"nli_reviews:nlr_1": 1.0, "nli_corrections:nlc_1": 2.0, "edges:e0": 3.0},
            "lora-lyra-v1",
        )
    assert found == 1
    assert fetch(database.path, SCORES) == [("e0", 3.0, "training")]
    engine.dispose()
