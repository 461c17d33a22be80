"""The same storage and feedback on a real PostgreSQL server."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from secrets import token_hex

import pytest
from postgres_server import postgres_url
from sqlalchemy import Engine, create_engine, event, inspect, text
from sqlalchemy.engine import make_url

from lyra_nli.errors import ConflictError, FeedbackError, InputError, StorageError
from lyra_nli.feedback.actions import perform
from lyra_nli.feedback.domains import explain
from lyra_nli.feedback.edges import edge_correct
from lyra_nli.feedback.exporting import export_file
from lyra_nli.feedback.importing import ImportResult, import_file
from lyra_nli.feedback.reviews import list_reviews, today
from lyra_nli.feedback.seconds import agreement, second_review
from lyra_nli.feedback.undo import undo_review
from lyra_nli.storage import tables
from lyra_nli.storage.engine import open_database, read, write
from lyra_nli.storage.generation import inspect_database
from lyra_nli.storage.reviews import ReviewCounts, count_reviews, mark_trained, read_reviews
from lyra_nli.storage.runs import finish_run, last_finished_training, start_run
from lyra_nli.storage.upgrade import init_database, plan_upgrade, upgrade

pytestmark = pytest.mark.integration

OLDER_LYRA = """
CREATE TABLE pages (id TEXT PRIMARY KEY, url TEXT NOT NULL, domain TEXT NOT NULL);
CREATE TABLE fragments (id TEXT PRIMARY KEY, page_id TEXT NOT NULL, text_content TEXT NOT NULL);
CREATE TABLE claims (id TEXT PRIMARY KEY, task_id TEXT NOT NULL, claim_text TEXT NOT NULL);
CREATE TABLE edges (
    id TEXT PRIMARY KEY, source_type TEXT NOT NULL, source_id TEXT NOT NULL,
    target_type TEXT NOT NULL, target_id TEXT NOT NULL, relation TEXT NOT NULL,
    nli_label TEXT, nli_confidence DOUBLE PRECISION, edge_human_corrected INTEGER DEFAULT 0,
    edge_correction_reason TEXT, edge_corrected_at TEXT
);
CREATE TABLE nli_corrections (
    id TEXT PRIMARY KEY, edge_id TEXT NOT NULL, task_id TEXT, premise TEXT NOT NULL,
    hypothesis TEXT NOT NULL, predicted_label TEXT NOT NULL,
    predicted_confidence DOUBLE PRECISION NOT NULL, correct_label TEXT NOT NULL, reason TEXT,
    corrected_at TEXT NOT NULL
);
"""

GRAPH = """
INSERT INTO pages (id, url, domain) VALUES ('p', 'https://example.org', 'example.org');
INSERT INTO fragments (id, page_id, text_content) VALUES ('f1', 'p', 'P1.'), ('f2', 'p', 'P2.');
INSERT INTO claims (id, task_id, claim_text) VALUES ('c', 't', 'H.');
INSERT INTO edges (id, source_type, source_id, target_type, target_id, relation, nli_label,
    nli_confidence) VALUES
    ('e1', 'fragment', 'f1', 'claim', 'c', 'supports', 'supports', 0.9),
    ('e2', 'fragment', 'f2', 'claim', 'c', 'neutral', 'neutral', 0.6),
    ('o', 'fragment', 'f2', 'claim', 'c', 'origin', NULL, NULL);
"""


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with postgres_url() as url:
        yield url


@pytest.fixture
def location(server: str) -> Iterator[str]:
    name = f"test_{token_hex(6)}"
    admin = create_engine(server, isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    yield make_url(server).set(database=name).render_as_string(hide_password=False)
    with admin.connect() as connection:
        connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    admin.dispose()


@pytest.fixture
def engine(location: str) -> Iterator[Engine]:
    init_database(location)
    engine = open_database(location)
    yield engine
    engine.dispose()


def script(engine: Engine, sql: str) -> None:
    with write(engine) as connection:
        for statement in filter(str.strip, sql.split(";")):
            connection.exec_driver_sql(statement)


def counted(engine: Engine) -> ReviewCounts:
    generation = inspect_database(engine)
    with read(engine) as connection:
        return count_reviews(connection, generation)


def rows_file(folder: Path, count: int, **changes: object) -> Path:
    file = folder / "in.jsonl"
    row = {
        "hypothesis": "H مرحبا 🙂.",
        "predicted_label": "neutral",
        "predicted_confidence": 0.5,
        "correct_label": "supports",
        "group": "g",
        **changes,
    }
    lines = [json.dumps({"premise": f"P{number}.", **row}) for number in range(count)]
    file.write_text("\n".join(lines))
    return file


def test_init_makes_every_table_once(location: str) -> None:
    made = init_database(location)
    assert sum(line.startswith("table ") for line in made) == len(tables.metadata.tables) + 1
    assert any("ix_nli_edges_random" in line for line in made)
    assert init_database(location) == []
    engine = open_database(location, read_only=True)
    names = set(inspect(engine).get_table_names())
    assert names == {*tables.metadata.tables, "nli_schema_version"}
    assert plan_upgrade(engine) == []
    assert inspect_database(engine).name == "lyra-nli"
    engine.dispose()


def test_what_goes_out_comes_back_in(engine: Engine, tmp_path: Path) -> None:
    import_file(engine, rows_file(tmp_path, 1_200, reason="r", reviewed_at="2026-01-31"))
    first, second = tmp_path / "first.jsonl", tmp_path / "second.jsonl"
    assert export_file(engine, first).exported == 1_200
    assert import_file(engine, first) == ImportResult(0, 0, 1_200, ())
    script(engine, "DELETE FROM nli_reviews")
    assert import_file(engine, first) == ImportResult(1_200, 0, 0, ())
    export_file(engine, second)
    assert second.read_bytes() == first.read_bytes()


def test_import_read_count_and_mark(engine: Engine, tmp_path: Path) -> None:
    file = rows_file(tmp_path, 450)
    assert import_file(engine, file) == ImportResult(450, 0, 0, ())
    assert import_file(engine, file) == ImportResult(0, 0, 450, ())
    assert counted(engine) == ReviewCounts(450, 450, 450)
    generation = inspect_database(engine)
    with write(engine) as connection:
        found = read_reviews(connection, generation)
        assert found.reviews[0].pair.hypothesis == "H مرحبا 🙂."
        assert found.reviews[0].anchors == {"group:g"}
        ids = [review.id for review in found.reviews[:100]]
        assert mark_trained(connection, generation, ids, "lora-lyra-v1", None) == 100
    assert counted(engine) == ReviewCounts(450, 450, 350)


def test_edges_are_corrected_and_agreed(engine: Engine) -> None:
    script(engine, GRAPH)
    first = edge_correct(engine, "e1", "refutes", reason="why")
    edge_correct(engine, "e1", "neutral")
    edge_correct(engine, "e2", "neutral")
    with pytest.raises(InputError, match="can't be corrected"):
        edge_correct(engine, "o", "supports")
    generation = inspect_database(engine)
    with read(engine) as connection:
        reviews = read_reviews(connection, generation).reviews
        sample = connection.execute(
            text("SELECT predicted_label, predicted_confidence FROM nli_corrections WHERE id = :i"),
            {"i": first.sample_id},
        ).one()
    assert tuple(sample) == ("supports", 0.9)
    assert [(review.predicted_label, review.label) for review in reviews] == [
        ("supports", "refutes"),
        ("supports", "neutral"),
        ("neutral", "neutral"),
    ]
    assert reviews[0].anchors == {"page:p", "fragment:f1", "claim:c"}
    assert counted(engine) == ReviewCounts(2, 1, 1)


def test_reviewers_at_the_same_edge_wait_for_each_other(engine: Engine) -> None:
    script(engine, GRAPH)
    labels = ["supports", "refutes", "neutral"] * 4
    threads = [
        threading.Thread(target=edge_correct, args=(engine, "e1", label)) for label in labels
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with read(engine) as connection:
        predictions = connection.execute(
            text("SELECT predicted_label, predicted_confidence FROM nli_reviews")
        ).all()
    assert [tuple(row) for row in predictions] == [("supports", 0.9)] * len(labels)


def test_the_six_actions_and_undo(engine: Engine) -> None:
    script(engine, GRAPH)
    generation = inspect_database(engine)
    rule = {"domain_pattern": "*.example.org", "reason": "why"}
    assert perform(engine, "domain_block", rule, who="ann")["decision"] == "block"
    assert perform(engine, "domain_unblock", rule)["previous_decision"] == "block"
    with read(engine) as connection:
        assert explain(connection, generation, "a.example.org").decision == "unblock"
    assert perform(engine, "domain_clear_override", rule)["cleared_rules"] == 1
    claim = {"claim_id": "c", "reason": "why"}
    assert perform(engine, "claim_reject", claim)["new_status"] == "not_adopted"
    assert perform(engine, "claim_restore", {"claim_id": "c"})["new_status"] == "adopted"
    with pytest.raises(FeedbackError, match="there is no claim"):
        perform(engine, "claim_restore", {"claim_id": "d"})
    edge = {"edge_id": "e1", "correct_relation": "refutes"}
    review = str(perform(engine, "edge_correct", edge, who="ann")["review_id"])
    assert not second_review(engine, "e1", "neutral", reviewer="bob")["agrees"]
    with read(engine) as connection:
        assert agreement(connection).n == 1
        assert [row["id"] for row in list_reviews(connection, generation)] == [review]
        assert today(connection, "ann", "2026-01-01")["corrected"] == 1
    assert undo_review(engine, review, who="ann")["restored_relation"] == "supports"
    with pytest.raises(ConflictError, match="it was undone on"):
        undo_review(engine, review, who="ann")
    assert counted(engine) == ReviewCounts(0, 0, 0)


def test_one_request_sent_many_times_at_once_is_done_once(engine: Engine) -> None:
    script(engine, GRAPH)
    answers: list[object] = []

    def submit() -> None:
        edge = {"edge_id": "e1", "correct_relation": "refutes"}
        answers.append(perform(engine, "edge_correct", edge, idempotency_key="k")["review_id"])

    threads = [threading.Thread(target=submit) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 8
    assert len(set(answers)) == 1
    assert counted(engine).reviewed == 1


def test_undo_and_second_reviews_at_once_don_t_block_each_other(engine: Engine) -> None:
    script(engine, GRAPH)
    ended: list[str] = []

    def attempt(act: Callable[[], object]) -> None:
        try:
            act()
            ended.append("done")
        except FeedbackError as error:
            ended.append(error.code)

    for _ in range(5):
        review = edge_correct(engine, "e1", "refutes", reviewer="ann").review_id
        acts = [
            lambda review=review: undo_review(engine, review, who="ann"),
            lambda: second_review(engine, "e1", "refutes", reviewer="bob"),
            lambda review=review: undo_review(engine, review, who="cleo"),
            lambda: second_review(engine, "e1", "neutral", reviewer="dan"),
        ]
        threads = [threading.Thread(target=attempt, args=(act,)) for act in acts]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(ended) == 20
    assert set(ended) <= {"done", "conflict", "wrong_value"}
    assert counted(engine).reviewed == 0


def test_an_older_lyra_is_upgraded_and_its_reviews_are_read(location: str) -> None:
    engine = open_database(location)
    script(engine, OLDER_LYRA + GRAPH)
    script(
        engine,
        "INSERT INTO nli_corrections VALUES"
        " ('n1', 'e1', 't', 'P1.', 'H.', 'supports', 0.9, 'refutes', NULL, '2026-01-01');"
        "UPDATE edges SET edge_human_corrected = 1, nli_label = 'refutes', nli_confidence = 1.0,"
        " relation = 'refutes' WHERE id = 'e1';"
        "UPDATE edges SET edge_human_corrected = 1 WHERE id = 'e2'",
    )
    assert counted(engine) == ReviewCounts(2, 1, 1)
    plan = plan_upgrade(engine)
    assert "column nli_corrections.trained_adapter_id: the adapter that was trained on it" in plan
    with pytest.raises(StorageError, match="db upgrade"):
        init_database(location)
    assert upgrade(engine).added == tuple(plan)
    assert upgrade(engine).added == ()
    assert edge_correct(engine, "e1", "supports").sample_id is not None
    assert counted(engine) == ReviewCounts(2, 0, 0)
    engine.dispose()


def test_a_failing_step_rolls_everything_back(location: str) -> None:
    engine = open_database(location)
    script(engine, OLDER_LYRA)
    before = set(inspect(engine).get_table_names())

    @event.listens_for(engine, "before_cursor_execute", retval=True)
    def break_late(connection, cursor, statement, parameters, context, many):  # type: ignore[no-untyped-def]
        if "CREATE TABLE nli_version_events" in statement:
            statement = "CREATE TABLE pages (id TEXT)"
        return statement, parameters

    with pytest.raises(StorageError, match="already exists"):
        upgrade(engine)
    assert set(inspect(engine).get_table_names()) == before
    engine.dispose()


def test_nul_characters_are_the_callers_mistake(engine: Engine, tmp_path: Path) -> None:
    script(engine, GRAPH)
    with pytest.raises(InputError, match="bad row") as caught:
        import_file(engine, rows_file(tmp_path, 1, hypothesis="a\x00b"))
    assert caught.value.problems == ("line 1: hypothesis: holds a NUL character (at 1)",)
    with pytest.raises(InputError, match="reason: holds a NUL"):
        edge_correct(engine, "e1", "refutes", reason="\x00")
    with pytest.raises(InputError, match="NUL character"), write(engine) as connection:
        start_run(connection, "base", "forced\x00", {})


def test_runs_are_kept(engine: Engine) -> None:
    with write(engine) as connection:
        run = start_run(connection, "starter", None, {"rank": 8})
        finish_run(connection, run, "done", "", "hash", 5)
    with read(engine) as connection:
        assert last_finished_training(connection, "starter")
        assert last_finished_training(connection, "other") is None


def test_read_only_is_read_only(engine: Engine, location: str) -> None:
    script(engine, GRAPH)
    reading = open_database(location, read_only=True)
    assert counted(reading) == ReviewCounts(0, 0, 0)
    with pytest.raises(StorageError, match="can be written"):
        edge_correct(reading, "e1", "refutes")
    reading.dispose()


def test_a_reader_keeps_its_state_while_another_writes(engine: Engine) -> None:
    script(engine, GRAPH)
    query = text("SELECT count(*) FROM pages")
    with read(engine) as reader:
        assert reader.execute(query).scalar() == 1
        script(engine, "DELETE FROM edges; DELETE FROM fragments; DELETE FROM pages")
        assert reader.execute(query).scalar() == 1
