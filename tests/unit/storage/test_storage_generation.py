from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from lyra_databases import NEWER, OLDER, PROPOSAL, SHAPES, LyraDatabase, Shape

from lyra_nli.errors import StorageError
from lyra_nli.storage.engine import open_database
from lyra_nli.storage.generation import Generation, inspect_database
from lyra_nli.storage.upgrade import init_database


def inspect_path(path: Path) -> Generation:
    engine = open_database(str(path), read_only=True)
    try:
        return inspect_database(engine)
    finally:
        engine.dispose()


def run_sql(path: Path, sql: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(sql)


@pytest.mark.parametrize(
    ("shape", "name", "stores_agreed"),
    [
        (OLDER, "older Lyra", True),
        (NEWER, "newer Lyra", False),
        (PROPOSAL, "proposal", False),
        (SHAPES["newer edges, older corrections"], "newer Lyra and older Lyra", True),
        (SHAPES["older edges, newer corrections"], "newer Lyra and older Lyra", False),
    ],
)
def test_each_kind_is_recognised_with_its_names(
    tmp_path: Path, shape: Shape, name: str, stores_agreed: bool
) -> None:
    path = LyraDatabase(tmp_path / "lyra.db", shape).path
    generation = inspect_path(path)
    assert generation.name == name
    assert generation.corrections_hypothesis == shape.hypothesis
    assert generation.edge_confidence == shape.edge_confidence
    assert generation.has_trained_adapter_id == (shape.mark == "trained_adapter_id")
    assert generation.has_used_for_training == (shape.mark == "used_for_training")
    assert generation.stores_agreed == stores_agreed
    assert not generation.has_reviews
    assert not generation.migrated
    with pytest.raises(StorageError, match="lyra-nli db upgrade"):
        generation.require_upgraded()


def test_our_own_database(tmp_path: Path) -> None:
    init_database(str(tmp_path / "lyra.db"))
    generation = inspect_path(tmp_path / "lyra.db")
    assert generation.name == "lyra-nli"
    assert (generation.corrections_hypothesis, generation.edge_confidence) == (
        "hypothesis",
        "nli_confidence",
    )
    assert generation.has_trained_adapter_id
    assert generation.has_used_for_training
    assert not generation.stores_agreed
    generation.require_upgraded()


def test_an_empty_file_says_how_to_make_the_tables(tmp_path: Path) -> None:
    path = tmp_path / "empty.db"
    path.touch()
    with pytest.raises(StorageError, match=r"empty\n.*db init"):
        inspect_path(path)


def test_a_foreign_database_is_named_with_what_it_has_and_lacks(tmp_path: Path) -> None:
    run_sql(tmp_path / "x.db", "CREATE TABLE bookmarks (id, url); CREATE TABLE claims (id, x)")
    with pytest.raises(StorageError, match="bookmarks") as caught:
        inspect_path(tmp_path / "x.db")
    assert caught.value.problems == (
        "table nli_corrections is missing",
        "table edges is missing",
        "table fragments is missing",
        "table claims is missing",
    )


def test_every_missing_table_and_column_is_named_at_once(tmp_path: Path) -> None:
    run_sql(
        tmp_path / "x.db",
        "CREATE TABLE nli_corrections (id, edge_id, premise, predicted_label, correct_label);"
        "CREATE TABLE edges (id, source_type, source_id, target_type, target_id, relation);"
        "CREATE TABLE claims (id)",
    )
    with pytest.raises(StorageError) as caught:
        inspect_path(tmp_path / "x.db")
    assert caught.value.problems == (
        "table fragments is missing (edges point to it)",
        "column nli_corrections.hypothesis (or nli_hypothesis) is missing",
        "column nli_corrections.predicted_confidence is missing",
        "column nli_corrections.corrected_at is missing",
        "column edges.nli_label is missing",
        "column edges.nli_confidence (or nli_edge_confidence) is missing",
        "column claims.claim_text is missing",
    )


def test_a_table_that_only_has_a_known_name_is_refused(tmp_path: Path) -> None:
    run_sql(tmp_path / "x.db", "CREATE TABLE edges (source INTEGER, target INTEGER)")
    with pytest.raises(StorageError, match="not the tables that a Lyra database has"):
        inspect_path(tmp_path / "x.db")


def test_corrections_alone_are_enough(tmp_path: Path) -> None:
    run_sql(
        tmp_path / "x.db",
        "CREATE TABLE nli_corrections (id, edge_id, premise, hypothesis, predicted_label,"
        " predicted_confidence, correct_label, corrected_at, used_for_training)",
    )
    generation = inspect_path(tmp_path / "x.db")
    assert generation.name == "proposal"
    assert not generation.has_edges
