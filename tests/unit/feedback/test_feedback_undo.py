"""Taking reviews back, and what that leaves to count, to read and to list."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from lyra_databases import NEWER, OLDER, SHAPES, LyraDatabase, fetch
from sqlalchemy import Engine, event, text

from lyra_nli.errors import ConflictError, FeedbackError, StorageError
from lyra_nli.feedback.edges import edge_correct
from lyra_nli.feedback.importing import import_file
from lyra_nli.feedback.reviews import list_reviews, today
from lyra_nli.feedback.undo import undo_review
from lyra_nli.storage.engine import read, write
from lyra_nli.storage.generation import inspect_database
from lyra_nli.storage.reviews import ReviewCounts, count_reviews, read_reviews
from lyra_nli.storage.upgrade import upgrade


class World:
    def __init__(self, database: LyraDatabase) -> None:
        self.database = database
        database.add_edge("e1", "supports", 0.9)
        database.add_edge("e2", "neutral", None)
        database.add_edge("e3", "refutes", 0.7)
        self.engine: Engine = database.open()
        upgrade(self.engine, backup=False)

    def fetch(self, sql: str, *parameters: object) -> list[tuple[Any, ...]]:
        return fetch(self.database.path, sql, *parameters)

    def edge(self, key: str) -> tuple[Any, ...]:
        return self.fetch("SELECT * FROM edges WHERE id = ?", key)[0]

    def correct(self, key: str, label: str, **more: Any) -> str:
        return edge_correct(self.engine, key, label, **more).review_id

    def undo(self, review_id: str, **more: Any) -> dict[str, object]:
        return undo_review(self.engine, review_id, **{"who": "ann", "reason": "slip", **more})

    def counts(self) -> ReviewCounts:
        generation = inspect_database(self.engine)
        with read(self.engine) as connection:
            return count_reviews(connection, generation)

    def readings(self) -> list[tuple[object, ...]]:
        generation = inspect_database(self.engine)
        with read(self.engine) as connection:
            found = read_reviews(connection, generation)
        assert found.unusable == []
        return [
            (review.id.partition(":")[0], review.predicted_label, review.label)
            for review in found.reviews
        ]

    def list(self, **more: Any) -> list[dict[str, Any]]:
        generation = inspect_database(self.engine)
        with read(self.engine) as connection:
            return list_reviews(connection, generation, **more)

    def today(self, reviewer: str | None, start: str) -> dict[str, int]:
        with read(self.engine) as connection:
            return today(connection, reviewer, start)


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


@pytest.mark.parametrize("label", ["supports", "refutes"])
def test_undo_puts_the_edge_back_and_keeps_the_row(world: World, label: str) -> None:
    before = world.edge("e1")
    review = world.correct("e1", label, reason="why")
    corrections = world.fetch("SELECT * FROM nli_corrections")
    answer = world.undo(review)
    assert answer == {
        "ok": True,
        "action": "undo",
        "review_id": review,
        "edge_id": "e1",
        "restored_relation": "supports",
        "message": "Review undone: the edge is supports again.",
    }
    assert world.edge("e1") == before
    assert world.fetch("SELECT id, undone_at IS NOT NULL FROM nli_reviews") == [(review, 1)]
    assert world.fetch("SELECT * FROM nli_corrections") == corrections
    assert world.fetch("SELECT who, action, review_id, edge_id, reason FROM nli_review_events") == [
        ("ann", "undo", review, "e1", "slip")
    ]
    assert world.counts() == ReviewCounts(0, 0, 0)
    assert world.readings() == []
    assert world.fetch("PRAGMA foreign_key_check") == []


def test_reviews_are_undone_newest_first(world: World) -> None:
    states, reviews = [world.edge("e2")], []
    for label in ("supports", "supports", "refutes"):
        reviews.append(world.correct("e2", label, reviewer="bob"))
        states.append(world.edge("e2"))
    with pytest.raises(ConflictError, match="bob reviewed the edge again"):
        world.undo(reviews[0])
    for review, state in zip(reviews[::-1], states[-2::-1], strict=True):
        world.undo(review)
        assert world.edge("e2") == state
    assert world.counts().reviewed == 0


def test_what_the_model_said_survives_undoing_and_reviewing_again(world: World) -> None:
    world.undo(world.correct("e1", "refutes", predicted_by="v1"))
    world.correct("e1", "neutral", predicted_by="v2")
    assert world.readings() == [("nli_reviews", "supports", "neutral")]
    assert world.fetch("SELECT predicted_by FROM nli_reviews WHERE undone_at IS NULL") == [("v2",)]
    assert world.counts().corrected == 1


def test_a_model_that_judged_again_after_an_undo_is_the_one_that_is_remembered(
    newer: World,
) -> None:
    newer.undo(newer.correct("e1", "refutes"))
    with newer.database.connect() as connection:
        connection.execute(
            "UPDATE edges SET relation = 'neutral', nli_label = 'neutral',"
            " nli_edge_confidence = 0.4 WHERE id = 'e1'"
        )
    newer.database.correct("e1", "supports", "2026-01-05T00:00:00+00:00", key="nlc_lyra")
    newer.correct("e1", "refutes")
    assert newer.fetch(
        "SELECT predicted_label, predicted_confidence FROM nli_reviews WHERE undone_at IS NULL"
    ) == [("neutral", 0.4)]


def test_undoing_over_lyras_own_reviews_leaves_those(world: World) -> None:
    world.database.correct("e1", "refutes", "2026-01-01T00:00:00+00:00")
    world.database.agree("e3", "2026-01-02T00:00:00+00:00")
    counts, readings = world.counts(), world.readings()
    states = [world.edge("e1"), world.edge("e3")]
    for edge in ("e1", "e3"):
        world.undo(world.correct(edge, "neutral"))
    assert [world.edge("e1"), world.edge("e3")] == states
    assert world.counts() == counts
    assert world.readings() == readings


def test_a_review_is_undone_once(newer: World) -> None:
    review = newer.correct("e1", "refutes")
    newer.undo(review)
    with pytest.raises(ConflictError, match="it was undone on 20"):
        newer.undo(review)
    assert newer.fetch("SELECT count(*) FROM nli_review_events") == [(1,)]


def test_an_undo_sent_twice_is_one(newer: World) -> None:
    review = newer.correct("e1", "refutes")
    assert newer.undo(review, idempotency_key="u") == newer.undo(review, idempotency_key="u")
    assert newer.fetch("SELECT count(*) FROM nli_review_events") == [(1,)]


def test_of_many_undos_at_once_one_succeeds(newer: World) -> None:
    review = newer.correct("e1", "refutes")
    done: list[object] = []

    def undo() -> None:
        try:
            done.append(newer.undo(review))
        except ConflictError as error:
            done.append(error)

    threads = [threading.Thread(target=undo) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(isinstance(answer, dict) for answer in done) == 1
    assert len(done) == 6
    assert newer.fetch("SELECT count(*) FROM nli_review_events") == [(1,)]


@pytest.mark.parametrize(
    "change",
    [
        "relation = 'neutral', nli_label = 'neutral'",
        "edge_corrected_at = '2030-01-01'",
        "edge_correction_reason = 'mine'",
        "edge_human_corrected = 0",
        "nli_edge_confidence = 0.3",
    ],
)
def test_an_edge_that_has_changed_since_is_not_overwritten(newer: World, change: str) -> None:
    review = newer.correct("e1", "refutes")
    with newer.database.connect() as connection:
        connection.execute(f"UPDATE edges SET {change} WHERE id = 'e1'")
    before = newer.database.dump()
    with pytest.raises(ConflictError, match="the edge has changed since"):
        newer.undo(review)
    assert newer.database.dump() == before


def test_a_review_from_before_undo_existed_cannot_be_undone(newer: World) -> None:
    review = newer.correct("e1", "refutes")
    with newer.database.connect() as connection:
        connection.execute("UPDATE nli_reviews SET before_json = NULL")
    with pytest.raises(ConflictError, match="older than undo"):
        newer.undo(review)


def test_a_review_whose_edge_is_gone_can_be_undone(newer: World) -> None:
    review = newer.correct("e1", "supports")
    with newer.database.connect() as connection:
        connection.execute("DELETE FROM edges WHERE id = 'e1'")
    answer = newer.undo(review)
    assert (answer["restored_relation"], newer.counts().reviewed) == (None, 0)


def test_an_imported_review_is_undone_without_an_edge(newer: World, tmp_path: Path) -> None:
    file = tmp_path / "in.jsonl"
    file.write_text(
        '{"premise": "P", "hypothesis": "H", "predicted_label": "neutral",'
        ' "predicted_confidence": 0.5, "correct_label": "supports"}\n'
    )
    import_file(newer.engine, file)
    [row] = newer.list()
    assert newer.undo(row["id"])["message"] == "Review undone: there was no edge to restore."
    assert newer.counts().reviewed == 0


@pytest.mark.parametrize("reviewed", [False, True])
def test_an_imported_review_of_an_edge_is_only_marked(
    world: World, tmp_path: Path, reviewed: bool
) -> None:
    if reviewed:
        world.correct("e1", "neutral", reviewer="bob")
    before, counts = world.edge("e1"), world.today(None, "2026-01-01")
    file = tmp_path / "in.jsonl"
    file.write_text(
        '{"premise": "Premise of e1.", "hypothesis": "Claim c-e1.", "edge_id": "e1",'
        ' "predicted_label": "supports", "predicted_confidence": 0.9,'
        ' "correct_label": "refutes", "reviewer": "cleo"}\n'
    )
    assert import_file(world.engine, file).imported == 1
    assert world.today(None, "2026-01-01") == counts
    review = world.list(reviewer="cleo")[0]["id"]
    answer = world.undo(review)
    assert (answer["edge_id"], answer["restored_relation"]) == ("e1", None)
    assert world.edge("e1") == before
    assert [row["undone_at"] is None for row in world.list(reviewer="cleo")] == [False]
    assert world.today(None, "2026-01-01") == counts


SCORES = "SELECT * FROM nli_queue_scores ORDER BY kind"


def score(world: World, kind: str, number: float) -> None:
    with world.database.connect() as connection:
        connection.execute(
            "INSERT INTO nli_queue_scores (kind, edge_id, score, detail_json, source, at)"
            """ VALUES (?, 'e1', ?, '{"why": 1}', 'training', '2026-01-01')""",
            (kind, number),
        )


def test_undo_brings_the_edge_back_into_the_queue(world: World) -> None:
    score(world, "disagree", 0.7)
    score(world, "suspect", 0.3)
    scores = world.fetch(SCORES)
    review = world.correct("e1", "refutes")
    assert world.fetch(SCORES) == []
    world.undo(review)
    assert world.fetch(SCORES) == scores
    review = world.correct("e1", "refutes")
    score(world, "suspect", 0.9)  # by a training since
    newest = world.fetch(SCORES)
    world.undo(review)
    assert world.fetch(SCORES) == [scores[0], *newest]


@pytest.mark.parametrize(
    ("arguments", "code", "parameter"),
    [
        ({"review_id": "nlr_none"}, "unknown_review", "review_id"),
        ({"review_id": "' OR 1=1 --"}, "unknown_review", "review_id"),
        ({"review_id": ""}, "missing", "review_id"),
        ({"reason": "x" * 1_000_000}, "too_long", "reason"),
        ({"who": "\x00"}, "wrong_value", "who"),
    ],
)
def test_bad_arguments_undo_nothing(
    newer: World, arguments: dict[str, str], code: str, parameter: str
) -> None:
    given = {"review_id": newer.correct("e1", "refutes"), **arguments}
    before = newer.database.dump()
    with pytest.raises(FeedbackError) as caught:
        newer.undo(given.pop("review_id"), **given)
    assert (caught.value.code, caught.value.parameter) == (code, parameter)
    assert newer.database.dump() == before


def test_a_read_only_database_is_said_to_be_one(newer: World) -> None:
    review = newer.correct("e1", "refutes")
    engine = newer.database.open(read_only=True)
    with pytest.raises(StorageError, match="can be written"):
        undo_review(engine, review, who="ann")
    engine.dispose()


# --- lists and counts ---------------------------------------------------------------------


def test_reviews_are_listed_newest_first_in_pages(world: World) -> None:
    ids = [
        world.correct("e1", "refutes", reviewer="ann", reason="<b>"),
        world.correct("e2", "neutral", reviewer="bob"),
        world.correct("e1", "neutral", reviewer="bob"),
    ]
    world.undo(ids[2])
    found = world.list()
    assert [row["id"] for row in found] == ids[::-1]
    assert [row["corrected"] for row in found] == [True, False, True]
    assert [row["undone_at"] is None for row in found] == [False, True, True]
    assert found[2]["reason"] == "<b>"
    assert found[2]["premise"] == "Premise of e1."
    assert [row["id"] for row in world.list(include_undone=False)] == ids[1::-1]
    assert [row["id"] for row in world.list(reviewer="bob")] == ids[:0:-1]
    assert [row["id"] for row in world.list(edge_id="e1")] == [ids[2], ids[0]]
    assert [row["id"] for row in world.list(limit=2)] == ids[:0:-1]
    assert [row["id"] for row in world.list(before=ids[1])] == [ids[0]]
    with pytest.raises(FeedbackError, match="no review 'nlr_x'"):
        world.list(before="nlr_x")


def test_pages_lose_nothing_among_reviews_of_one_moment(newer: World) -> None:
    for key in ("e1", "e2", "e3"):
        newer.correct(key, "neutral")
    with write(newer.engine) as connection:
        connection.execute(text("UPDATE nli_reviews SET reviewed_at = '2026-01-01T00:00:00'"))
    seen: list[str] = []
    while page := newer.list(limit=1, before=seen[-1] if seen else None):
        seen.append(page[0]["id"])
    assert len(set(seen)) == 3


def test_a_database_that_was_not_upgraded_has_no_reviews_of_ours(tmp_path: Path) -> None:
    database = LyraDatabase(tmp_path / "lyra.db", OLDER)
    engine = database.open(read_only=True)
    generation = inspect_database(engine)
    with read(engine) as connection:
        assert list_reviews(connection, generation) == []
    engine.dispose()


def test_todays_work_is_counted_by_person(newer: World, tmp_path: Path) -> None:
    newer.correct("e1", "refutes", reviewer="ann")
    newer.correct("e2", "neutral", reviewer="ann")
    newer.undo(newer.correct("e3", "neutral", reviewer="bob"))
    file = tmp_path / "in.jsonl"
    file.write_text(
        '{"premise": "P", "hypothesis": "H", "predicted_label": "neutral",'
        ' "predicted_confidence": 0.5, "correct_label": "supports"}\n'
    )
    import_file(newer.engine, file)
    start = "2026-01-01T00:00:00Z"
    assert newer.today(None, start) == {"reviewed": 2, "corrected": 1, "agreed": 1, "undone": 1}
    assert newer.today("ann", start) == {"reviewed": 2, "corrected": 1, "agreed": 1, "undone": 0}
    assert newer.today("bob", start) == {"reviewed": 0, "corrected": 0, "agreed": 0, "undone": 1}
    nothing = {"reviewed": 0, "corrected": 0, "agreed": 0, "undone": 0}
    assert newer.today(None, "2999-01-01") == nothing


@pytest.mark.parametrize("reviewer", [None, "ann"])
def test_todays_work_and_the_newest_reviews_are_found_by_index(
    newer: World, reviewer: str | None
) -> None:
    asked: list[tuple[str, Any]] = []

    @event.listens_for(newer.engine, "before_cursor_execute")
    def note(connection, cursor, statement, parameters, context, many) -> None:  # type: ignore[no-untyped-def]
        if "FROM nli_reviews" in statement:
            asked.append((statement, parameters))

    newer.today(reviewer, "2026-01-01")
    newer.list(reviewer=reviewer)
    assert len(asked) == 2
    for statement, parameters in asked:
        plan = [str(row[3]) for row in newer.fetch(f"EXPLAIN QUERY PLAN {statement}", *parameters)]
        assert all("INDEX ix_nli_reviews" in line for line in plan if "nli_reviews" in line), plan
        assert "USE TEMP B-TREE FOR ORDER BY" not in plan, plan


@pytest.mark.parametrize("day_start", ["", "2026-11-28T00:00:00 02:00", "yesterday"])
def test_what_is_no_time_is_not_taken_for_ever(newer: World, day_start: str) -> None:
    with read(newer.engine) as connection, pytest.raises(FeedbackError) as caught:
        today(connection, None, day_start)
    assert (caught.value.code, caught.value.parameter) == ("wrong_value", "day_start")
