from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from lyra_databases import NEWER, OLDER, SHAPES, LyraDatabase, fetch
from sqlalchemy import Engine

from lyra_nli.errors import InputError, StorageError
from lyra_nli.feedback.edges import EdgeCorrection, EdgeReview, correct_edges, edge_correct
from lyra_nli.storage.upgrade import upgrade


class World:
    """An upgraded Lyra database with a few edges nobody has reviewed."""

    def __init__(self, database: LyraDatabase) -> None:
        self.database = database
        database.add_edge("e1", "supports", 0.9)
        database.add_edge("e2", "neutral", None)
        database.add_edge("o", relation="origin")
        database.add_edge("c", relation="cites")
        self.engine: Engine = database.open()
        upgrade(self.engine, backup=False)

    def edge(self, key: str) -> tuple[object, ...]:
        return self.fetch(
            f"SELECT relation, nli_label, {self.database.shape.edge_confidence},"
            " edge_human_corrected, edge_correction_reason FROM edges WHERE id = ?",
            key,
        )[0]

    def corrections(self, key: str) -> list[tuple[object, ...]]:
        return self.fetch(
            f"SELECT id, task_id, premise, {self.database.shape.hypothesis}, predicted_label,"
            " predicted_confidence, correct_label, reason FROM nli_corrections"
            " WHERE edge_id = ? ORDER BY corrected_at",
            key,
        )

    def reviews(self, key: str) -> list[tuple[object, ...]]:
        return self.fetch(
            "SELECT correction_id, predicted_label, predicted_confidence, predicted_by,"
            " correct_label FROM nli_reviews WHERE edge_id = ? ORDER BY reviewed_at",
            key,
        )

    def fetch(self, sql: str, *parameters: object) -> list[tuple[object, ...]]:
        return fetch(self.database.path, sql, *parameters)


@pytest.fixture(params=SHAPES)
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    world = World(LyraDatabase(tmp_path / "lyra.db", SHAPES[request.param]))
    yield world
    world.engine.dispose()


@pytest.fixture
def newer(tmp_path: Path) -> Iterator[World]:
    world = World(LyraDatabase(tmp_path / "lyra.db", NEWER))
    yield world
    world.engine.dispose()


def test_a_changed_label_becomes_a_correction(world: World) -> None:
    answer = edge_correct(
        world.engine,
        "e1",
        "refutes",
        reason="the interval holds 1",
        reviewer="ann",
        sampling="random",
        predicted_by="lora-lyra-v2",
    )
    assert answer == EdgeCorrection(
        ok=True,
        action="edge_correct",
        edge_id="e1",
        previous_relation="supports",
        new_relation="refutes",
        sample_id=answer.sample_id,
        message="Edge corrected: supports -> refutes. Saved for training.",
        review_id=answer.review_id,
    )
    assert answer.review_id.startswith("nlr_")
    assert str(answer.sample_id).startswith("nlc_")
    assert world.edge("e1") == ("refutes", "refutes", 1.0, 1, "the interval holds 1")
    assert world.corrections("e1") == [
        (
            answer.sample_id,
            "t1",
            "Premise of e1.",
            "Claim c-e1.",
            "supports",
            0.9,
            "refutes",
            "the interval holds 1",
        )
    ]
    assert world.reviews("e1") == [(answer.sample_id, "supports", 0.9, "lora-lyra-v2", "refutes")]
    assert world.fetch("SELECT reviewer, reason, sampling, source_url FROM nli_reviews") == [
        ("ann", "the interval holds 1", "random", "https://example.org/p1")
    ]
    assert world.fetch("PRAGMA foreign_key_check") == []


def test_an_unchanged_label_is_reviewed_and_agreed(world: World) -> None:
    answer = edge_correct(world.engine, "e1", "supports")
    older = world.database.shape.hypothesis == "hypothesis" and world.database.shape.mark is None
    assert (answer.sample_id is not None) == older
    assert [row[4:7] for row in world.corrections("e1")] == (
        [("supports", 0.9, "supports")] if older else []
    )
    assert world.edge("e1") == ("supports", "supports", 0.9, 1, None)
    assert world.reviews("e1") == [(answer.sample_id, "supports", 0.9, None, "supports")]
    assert answer.message == "Edge reviewed: supports confirmed. Saved for training."


def test_a_second_correction_keeps_what_the_model_said(world: World) -> None:
    edge_correct(world.engine, "e1", "refutes", predicted_by="v1")
    answer = edge_correct(world.engine, "e1", "neutral", predicted_by="v9")
    assert (answer.previous_relation, answer.new_relation) == ("refutes", "neutral")
    assert [row[4:7] for row in world.corrections("e1")] == [
        ("supports", 0.9, "refutes"),
        ("supports", 0.9, "neutral"),
    ]
    assert [row[1:] for row in world.reviews("e1")] == [
        ("supports", 0.9, "v1", "refutes"),
        ("supports", 0.9, "v1", "neutral"),
    ]


def test_a_second_correction_after_lyras_own_keeps_what_the_model_said(world: World) -> None:
    world.database.correct("e1", "refutes", "2026-01-01T00:00:00+00:00")
    edge_correct(world.engine, "e1", "neutral")
    assert [row[4:7] for row in world.corrections("e1")][1] == ("supports", 0.9, "neutral")


def test_a_correction_after_lyras_agreement_keeps_what_the_model_said(world: World) -> None:
    world.database.agree("e1", "2026-01-01T00:00:00+00:00")
    edge_correct(world.engine, "e1", "neutral")
    assert world.corrections("e1")[-1][4:7] == ("supports", 0.9, "neutral")


def test_confirming_another_humans_correction_changes_nothing_but_is_kept(newer: World) -> None:
    edge_correct(newer.engine, "e1", "refutes")
    answer = edge_correct(newer.engine, "e1", "refutes")
    assert answer.sample_id is None
    assert len(newer.corrections("e1")) == 1
    assert [row[1:] for row in newer.reviews("e1")] == [("supports", 0.9, None, "refutes")] * 2


def test_a_confidence_that_nobody_kept_is_zero_only_where_it_must_be(world: World) -> None:
    edge_correct(world.engine, "e2", "refutes")
    assert world.corrections("e2")[0][5] == 0.0  # Lyra's column can't be NULL
    assert world.reviews("e2")[0][2] is None


@pytest.mark.parametrize(("key", "why"), [("o", "taken"), ("c", "citation")])
def test_edges_that_are_no_judgement_are_refused_with_the_reason(
    newer: World, key: str, why: str
) -> None:
    before = newer.database.dump()
    with pytest.raises(InputError, match=rf"can't be corrected: .*{why}"):
        edge_correct(newer.engine, key, "supports")
    assert newer.database.dump() == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"edge_id": "nowhere"}, "no edge 'nowhere'"),
        ({"edge_id": "' OR 1=1 --"}, "no edge"),
        ({"edge_id": ""}, "edge_id: is empty"),
        ({"edge_id": "e1\x00"}, "edge_id: holds a NUL"),
        ({"correct_relation": "entailment"}, "unknown label 'entailment'"),
        ({"correct_relation": "origin"}, "unknown label 'origin'"),
        ({"reason": "x" * 1_000_000}, "reason: has 1,000,000 characters"),
        ({"reason": "a\x00b"}, "reason: holds a NUL character"),
        ({"reviewer": "\ud800"}, "reviewer: is not valid Unicode"),
        ({"sampling": "guess"}, "sampling: unknown value 'guess'"),
    ],
)
def test_bad_arguments_change_nothing(newer: World, arguments: dict[str, str], words: str) -> None:
    before = newer.database.dump()
    full = {"edge_id": "e1", "correct_relation": "refutes", **arguments}
    with pytest.raises(InputError, match=words):
        edge_correct(newer.engine, **full)  # type: ignore[arg-type]
    assert newer.database.dump() == before


def test_strange_reasons_are_kept_as_they_are(newer: World) -> None:
    reason = "'); DROP TABLE edges; --\n<script>alert(1)</script> مرحبا 🙂 [SEP]"
    edge_correct(newer.engine, "e1", "refutes", reason=reason)
    assert newer.edge("e1")[4] == reason


def test_an_edge_without_text_is_recorded_and_says_so(newer: World) -> None:
    with newer.database.connect() as connection:
        connection.execute("DELETE FROM fragments WHERE id = 'f-e1'")
    answer = edge_correct(newer.engine, "e1", "refutes")
    assert "nothing can be learned" in answer.message
    assert newer.corrections("e1")[0][2] == ""


def test_a_database_that_was_not_upgraded_is_sent_there(tmp_path: Path) -> None:
    database = LyraDatabase(tmp_path / "lyra.db", OLDER)
    database.add_edge("e1")
    engine = database.open()
    with pytest.raises(StorageError, match="lyra-nli db upgrade"):
        edge_correct(engine, "e1", "refutes")
    engine.dispose()


def test_a_read_only_database_is_said_to_be_one(newer: World) -> None:
    engine = newer.database.open(read_only=True)
    with pytest.raises(StorageError, match="can be written"):
        edge_correct(engine, "e1", "refutes")
    engine.dispose()


def test_many_corrections_are_all_or_none(newer: World) -> None:
    before = newer.database.dump()
    with pytest.raises(InputError, match="no edge 'nowhere'"):
        correct_edges(newer.engine, [EdgeReview("e1", "refutes"), EdgeReview("nowhere", "neutral")])
    assert newer.database.dump() == before
    answers = correct_edges(
        newer.engine, [EdgeReview("e1", "refutes"), EdgeReview("e2", "neutral")]
    )
    assert [answer.new_relation for answer in answers] == ["refutes", "neutral"]


def test_hundreds_of_corrections_are_quick(newer: World) -> None:
    for number in range(300):
        newer.database.add_edge(f"n{number}")
    start = time.perf_counter()
    correct_edges(newer.engine, [EdgeReview(f"n{number}", "refutes") for number in range(300)])
    assert (time.perf_counter() - start) / 300 < 0.05
