from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lyra_databases import NEWER, OLDER, PROPOSAL, SHAPES, LyraDatabase, Shape, fetch, populate
from sqlalchemy import Engine, insert

from lyra_nli.feedback.edges import edge_correct
from lyra_nli.records import Review
from lyra_nli.storage.engine import open_database, read, write
from lyra_nli.storage.generation import inspect_database
from lyra_nli.storage.reviews import (
    ReviewCounts,
    ReviewSet,
    count_reviews,
    mark_trained,
    read_reviews,
)
from lyra_nli.storage.tables import nli_reviews
from lyra_nli.storage.upgrade import init_database, upgrade
from lyra_nli.storage.verdicts import Verdicts


def look(path: Path) -> tuple[ReviewSet, ReviewCounts]:
    engine = open_database(str(path), read_only=True)
    try:
        generation = inspect_database(engine)
        with read(engine) as connection:
            return read_reviews(connection, generation), count_reviews(connection, generation)
    finally:
        engine.dispose()


def by_id(found: ReviewSet) -> dict[str, Review]:
    return {review.id: review for review in found.reviews}


@pytest.fixture(params=SHAPES)
def shape(request: pytest.FixtureRequest) -> Shape:
    return SHAPES[request.param]


@pytest.fixture
def ours(tmp_path: Path) -> Iterator[Engine]:
    init_database(str(tmp_path / "ours.db"))
    engine = open_database(str(tmp_path / "ours.db"))
    yield engine
    engine.dispose()


# --- databases that were never upgraded ---------------------------------------------------


def test_every_generation_tells_the_same_story(tmp_path: Path, shape: Shape) -> None:
    database = LyraDatabase(tmp_path / "lyra.db", shape)
    populate(database)
    found, counts = look(database.path)
    assert found.unusable == []
    assert counts == ReviewCounts(reviewed=3, corrected=2, corrected_unused=2)
    reviews = by_id(found)
    first = reviews["nli_corrections:nlc_e1"]
    assert (first.pair.premise, first.pair.hypothesis) == ("Premise of e1.", "Claim c-e1.")
    assert (first.predicted_label, first.predicted_confidence) == ("supports", 0.9)
    assert (first.label, first.corrected) == ("refutes", True)
    assert first.reviewed_at == "2026-01-01T10:00:00+00:00"
    assert first.anchors == {"page:p1", "fragment:f-e1", "claim:c-e1"}
    assert (first.reason, first.source_url) == ("because", "https://example.org/p1")
    agreed = next(review for review in found.reviews if "fragment:f-e3" in review.anchors)
    assert (agreed.label, agreed.predicted_label, agreed.predicted_confidence) == (
        "refutes",
        "refutes",
        0.7,
    )
    assert agreed.anchors == {"page:p1", "fragment:f-e3", "claim:c-e1"}
    assert agreed.id == ("nli_corrections:nlc_e3" if shape.mark is None else "edges:e3")
    assert len(found.reviews) == 4
    assert [review.reviewed_at for review in found.reviews] == sorted(
        review.reviewed_at for review in found.reviews
    )


def test_a_second_correction_by_lyra_keeps_what_the_model_said(tmp_path: Path) -> None:
    database = LyraDatabase(tmp_path / "lyra.db")
    populate(database)
    second = by_id(look(database.path)[0])["nli_corrections:nlc_b"]
    raw = fetch(database.path, "SELECT predicted_label FROM nli_corrections WHERE id = 'nlc_b'")
    assert raw == [("supports",)]  # what the first human said
    assert (second.predicted_label, second.predicted_confidence) == ("neutral", 0.6)


def test_a_correction_taken_back_is_no_correction(tmp_path: Path) -> None:
    database = LyraDatabase(tmp_path / "lyra.db")
    database.add_edge("e1", "supports")
    database.correct("e1", "refutes", "2026-01-01T00:00:00+00:00", key="a")
    database.correct("e1", "supports", "2026-01-02T00:00:00+00:00", key="b")
    assert look(database.path)[1] == ReviewCounts(1, 0, 0)


def test_confidences_that_stand_for_nothing_are_none(tmp_path: Path) -> None:
    database = LyraDatabase(tmp_path / "lyra.db")
    database.add_edge("none", confidence=None)
    database.correct("none", "refutes", "2026-01-01")
    database.add_edge("overwritten", confidence=1.0, reviewed_at="2026-01-01")
    database.add_edge("kept", confidence=0.4, reviewed_at="2026-01-01")
    reviews = by_id(look(database.path)[0])
    assert reviews["nli_corrections:nlc_none"].predicted_confidence is None
    assert reviews["edges:overwritten"].predicted_confidence is None
    assert reviews["edges:kept"].predicted_confidence == 0.4


@pytest.mark.parametrize("name", ["newer", "proposal", "older edges, newer corrections"])
def test_corrections_that_were_used_are_not_counted_as_unused(tmp_path: Path, name: str) -> None:
    database = LyraDatabase(tmp_path / "lyra.db", SHAPES[name])
    populate(database)
    database.mark_used("nlc_e1")
    assert look(database.path)[1] == ReviewCounts(3, 2, 1)


def test_labels_that_cant_be_read_stand_apart(tmp_path: Path) -> None:
    database = LyraDatabase(tmp_path / "lyra.db")
    for key in ("a", "b", "c"):
        database.add_edge(key)
        database.correct(key, "refutes", "2026-01-01")
    with database.connect() as connection:
        connection.execute("UPDATE nli_corrections SET correct_label = 'ja' WHERE id = 'nlc_a'")
        connection.execute("UPDATE nli_corrections SET premise = x'00' WHERE id = 'nlc_b'")
        connection.execute(
            "UPDATE nli_corrections SET predicted_label = 'unknown' WHERE id = 'nlc_c'"
        )
    found, counts = look(database.path)
    assert found.unusable == [
        "nli_corrections:nlc_a: correct_label 'ja' is none of supports, refutes, neutral",
        "nli_corrections:nlc_b: a text is stored as bytes",
    ]
    (left,) = found.reviews
    assert (left.label, left.predicted_label, left.predicted_confidence) == ("refutes", None, None)
    assert not left.corrected
    assert (counts.reviewed, counts.corrected) == (2, 1)


def test_a_reviewed_edge_that_is_no_judgement_is_no_review(tmp_path: Path) -> None:
    database = LyraDatabase(tmp_path / "lyra.db")
    database.add_edge("o", relation="origin", reviewed_at="2026-01-01")
    found, counts = look(database.path)
    assert (found.reviews, counts.reviewed) == ([], 0)


def test_the_relation_counts_where_the_model_left_no_label(tmp_path: Path) -> None:
    database = LyraDatabase(tmp_path / "lyra.db")
    database.add_edge("e", "supports", reviewed_at="2026-01-01")
    with database.connect() as connection:
        connection.execute("UPDATE edges SET nli_label = NULL, relation = 'neutral'")
    assert look(database.path)[0].reviews[0].label == "neutral"


def test_reviews_whose_texts_or_edges_are_gone_are_returned(tmp_path: Path) -> None:
    database = LyraDatabase(tmp_path / "lyra.db")
    populate(database)
    with database.connect() as connection:
        connection.execute("DELETE FROM edges WHERE id = 'e1'")
        connection.execute("DELETE FROM fragments WHERE id = 'f-e3'")
        connection.execute("UPDATE edges SET edge_corrected_at = NULL WHERE id = 'e3'")
    found, counts = look(database.path)
    reviews = by_id(found)
    assert reviews["nli_corrections:nlc_e1"].anchors == frozenset()
    assert reviews["edges:e3"].pair.premise == ""
    assert reviews["edges:e3"].anchors == {"fragment:f-e3", "claim:c-e1"}
    assert found.reviews[0].id == "edges:e3"  # without a time: before all others
    assert counts == ReviewCounts(3, 2, 2)


def test_corrections_without_a_graph_can_be_read(tmp_path: Path) -> None:
    database = LyraDatabase(tmp_path / "lyra.db", PROPOSAL)
    populate(database)
    with database.connect() as connection:
        connection.executescript("DROP VIEW v_supported; DROP TABLE edges; DROP TABLE pages")
    found, counts = look(database.path)
    assert len(found.reviews) == 3
    assert all(review.anchors == frozenset() for review in found.reviews)
    assert counts == ReviewCounts(2, 2, 2)


def test_an_early_lyra_without_corrections_has_no_reviews(tmp_path: Path) -> None:
    database = LyraDatabase(tmp_path / "lyra.db", OLDER)
    database.add_edge("e1")
    with database.connect() as connection:
        connection.execute("DROP TABLE nli_corrections")
        connection.execute("ALTER TABLE edges DROP COLUMN edge_human_corrected")
    found, counts = look(database.path)
    assert (found.reviews, counts, counts.correction_rate) == ([], ReviewCounts(0, 0, 0), 0.0)


# --- our own reviews ----------------------------------------------------------------------


def add_review(engine: Engine, key: str, **changes: object) -> None:
    row = {
        "id": key,
        "pair_key": "k",
        "premise": "P.",
        "hypothesis": "H.",
        "predicted_label": "supports",
        "predicted_confidence": 0.0,
        "correct_label": "refutes",
        "anchors_json": '["group:g"]',
        "reviewed_at": "2026-01-01T00:00:00+00:00",
    }
    with write(engine) as connection:
        connection.execute(insert(nli_reviews).values({**row, **changes}))


def test_imported_reviews_are_read_as_they_were_written(ours: Engine, tmp_path: Path) -> None:
    add_review(ours, "r1", reviewer="ann", reason="why", sampling="random", source_url="http://x")
    found, counts = look(tmp_path / "ours.db")
    (review,) = found.reviews
    assert review.id == "nli_reviews:r1"
    assert review.anchors == {"group:g"}
    assert review.predicted_confidence == 0.0
    assert (review.reviewer, review.reason, review.sampling, review.source_url) == (
        "ann",
        "why",
        "random",
        "http://x",
    )
    assert counts == ReviewCounts(1, 1, 1)


@pytest.mark.parametrize("anchors", ["[", "{}", "[1]"])
def test_broken_anchors_make_a_review_unusable(ours: Engine, tmp_path: Path, anchors: str) -> None:
    add_review(ours, "r1", anchors_json=anchors)
    add_review(ours, "r2")
    found, _ = look(tmp_path / "ours.db")
    assert [review.id for review in found.reviews] == ["nli_reviews:r2"]
    assert found.unusable[0].startswith("nli_reviews:r1: anchors_json")


def test_a_review_and_its_correction_are_one(tmp_path: Path, shape: Shape) -> None:
    database = LyraDatabase(tmp_path / "lyra.db", shape)
    populate(database)
    engine = database.open()
    upgrade(engine, backup=False)
    edge_correct(engine, "e4", "neutral")
    engine.dispose()
    assert fetch(database.path, "SELECT count(*) FROM nli_corrections WHERE edge_id = 'e4'") == [
        (1,)
    ]
    found, counts = look(database.path)
    of_edge = [review for review in found.reviews if "fragment:f-e4" in review.anchors]
    assert [review.id.split(":")[0] for review in of_edge] == ["nli_reviews"]
    assert of_edge[0].anchors == {"page:p1", "fragment:f-e4", "claim:c-e4"}
    assert of_edge[0].source_url == "https://example.org/p1"
    assert counts == ReviewCounts(4, 3, 3)


def test_a_review_stays_grouped_when_lyra_drops_the_edge(tmp_path: Path) -> None:
    database = LyraDatabase(tmp_path / "lyra.db")
    database.add_edge("e1")
    engine = database.open()
    upgrade(engine, backup=False)
    edge_correct(engine, "e1", "supports")
    engine.dispose()
    with database.connect() as connection:
        connection.execute("DELETE FROM edges")
    (review,) = look(database.path)[0].reviews
    assert review.anchors == {"page:p1", "fragment:f-e1", "claim:c-e1"}
    assert review.source_url == "https://example.org/p1"


# --- marks --------------------------------------------------------------------------------


def mark_all(path: Path, *, adapter: int | None) -> int:
    engine = open_database(str(path))
    generation = inspect_database(engine)
    with write(engine) as connection:
        ids = [review.id for review in read_reviews(connection, generation).reviews]
        marked = mark_trained(connection, generation, [*ids, "replay:1"], "lora-lyra-v1", adapter)
    engine.dispose()
    return marked


def test_marked_reviews_are_used_in_every_generation(tmp_path: Path, shape: Shape) -> None:
    database = LyraDatabase(tmp_path / "lyra.db", shape)
    populate(database)
    engine = database.open()
    upgrade(engine, backup=False)
    edge_correct(engine, "e4", "neutral")
    engine.dispose()
    with database.connect() as connection:
        connection.execute(
            "INSERT INTO adapters (id, version_name, adapter_path, base_model, samples_used)"
            " VALUES (7, 'lora-lyra-v1', 'p', 'b', 1)"
        )
    assert mark_all(database.path, adapter=7) >= 5
    assert look(database.path)[1] == ReviewCounts(4, 3, 0)
    assert fetch(database.path, "SELECT DISTINCT trained_version FROM nli_reviews") == [
        ("lora-lyra-v1",)
    ]
    column = "used_for_training" if shape.mark == "used_for_training" else "trained_adapter_id"
    values = fetch(database.path, f"SELECT DISTINCT {column} FROM nli_corrections")
    assert values == [(1 if column == "used_for_training" else 7,)]


def test_many_ids_are_marked_in_batches(ours: Engine, tmp_path: Path) -> None:
    with write(ours) as connection:
        connection.execute(
            insert(nli_reviews),
            [
                {
                    "id": f"r{number}",
                    "pair_key": str(number),
                    "premise": "P",
                    "hypothesis": "H",
                    "predicted_label": "supports",
                    "correct_label": "refutes",
                    "reviewed_at": "2026-01-01",
                }
                for number in range(1234)
            ],
        )
    assert mark_all(tmp_path / "ours.db", adapter=None) == 1234
    assert look(tmp_path / "ours.db")[1] == ReviewCounts(1234, 1234, 0)


# --- counting is reading ------------------------------------------------------------------

ACTIONS = st.lists(
    st.tuples(
        st.sampled_from(["lyra corrects", "lyra agrees", "we review"]),
        st.sampled_from(["e1", "e2", "e3"]),
        st.sampled_from(["supports", "refutes", "neutral"]),
    ),
    max_size=8,
)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(name=st.sampled_from(sorted(SHAPES)), actions=ACTIONS)
def test_counts_agree_with_what_is_read(
    tmp_path_factory: pytest.TempPathFactory, name: str, actions: list[tuple[str, str, str]]
) -> None:
    database = LyraDatabase(tmp_path_factory.mktemp("d") / "lyra.db", SHAPES[name])
    said = {"e1": "supports", "e2": "refutes", "e3": "neutral"}
    for key, label in said.items():
        database.add_edge(key, label, 0.75)
    engine = database.open()
    upgrade(engine, backup=False)
    last: dict[str, str] = {}
    for number, (who, edge, label) in enumerate(actions):
        at = f"2020-01-01T00:00:{number:02}+00:00"
        (current,) = fetch(database.path, "SELECT nli_label FROM edges WHERE id = ?", edge)[0]
        if who == "we review":
            edge_correct(engine, edge, label)
            with database.connect() as connection:  # in the order in which they happen
                connection.execute(
                    "UPDATE nli_reviews SET reviewed_at = ? WHERE reviewed_at > '2021'", (at,)
                )
                connection.execute(
                    "UPDATE nli_corrections SET corrected_at = ? WHERE corrected_at > '2021'",
                    (at,),
                )
            last[edge] = label
        elif who == "lyra corrects" and label != current:
            database.correct(edge, label, at, key=f"nlc_{number}")
            last[edge] = label
        elif who == "lyra agrees":
            database.agree(edge, at, key=f"nlc_{number}")
            last[edge] = str(current)
    engine.dispose()
    found, counts = look(database.path)
    newest = {
        next(anchor for anchor in review.anchors if anchor.startswith("fragment:")): review
        for review in found.reviews
    }
    assert {edge: newest[f"fragment:f-{edge}"].label for edge in last} == last
    assert all(
        review.predicted_label == said[fragment.removeprefix("fragment:f-")]
        for fragment, review in newest.items()
    )
    corrected = sum(label != said[edge] for edge, label in last.items())
    assert counts == ReviewCounts(len(last), corrected, corrected)


def test_counting_among_many_edges_is_quick(tmp_path: Path) -> None:
    database = LyraDatabase(tmp_path / "lyra.db", NEWER)
    database.add_edge("first")
    with database.connect() as connection:
        connection.execute(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 200000)"
            " INSERT INTO edges (id, source_type, source_id, target_type, target_id, relation,"
            " nli_label, nli_edge_confidence, edge_human_corrected)"
            " SELECT 'n' || i, 'fragment', 'f-first', 'claim', 'c-first', 'supports',"
            " 'supports', 0.5, i % 100 = 0 FROM n"
        )
        connection.execute(
            "INSERT INTO nli_corrections (id, edge_id, premise, nli_hypothesis, predicted_label,"
            " predicted_confidence, correct_label, corrected_at) SELECT 'c' || id, id, 'p', 'h',"
            " 'refutes', 0.9, 'supports', '2026-01-01' FROM edges"
            " WHERE edge_human_corrected = 1 AND CAST(substr(id, 2) AS INTEGER) % 200 = 0"
        )
    start = time.perf_counter()
    _, counts = look(database.path)
    assert counts == ReviewCounts(2000, 1000, 1000)
    assert time.perf_counter() - start < 5
    engine = database.open()
    upgrade(engine, backup=False)
    with read(engine) as connection:
        statement = Verdicts(inspect_database(engine)).counts()
        compiled = statement.compile(engine, compile_kwargs={"literal_binds": True})
        plan = [row[-1] for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {compiled}")]
    engine.dispose()
    assert not [line for line in plan if line.startswith("SCAN edges") and "INDEX" not in line]
    assert any("ix_edges_human_corrected" in line for line in plan)
