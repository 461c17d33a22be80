"""`lyra-nli enqueue`: pairs from anywhere come before reviewers, and are learned from."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from lyra_databases import NEWER, OLDER, LyraDatabase
from serving_world import PAIRS, World, make_world
from sqlalchemy import Engine, insert, select

from lyra_nli.cli.main import cli
from lyra_nli.errors import AdapterNotFoundError, InputError, StorageError
from lyra_nli.feedback.edges import EdgeReview, correct_edges
from lyra_nli.feedback.queue import next_items
from lyra_nli.labels import LABELS
from lyra_nli.monitoring.rates import read_random_reviews
from lyra_nli.prediction import Judges, predict_one
from lyra_nli.storage.engine import open_database, read
from lyra_nli.storage.generation import inspect_database
from lyra_nli.storage.tables import nli_predictions
from lyra_nli.storage.upgrade import upgrade
from lyra_nli.workspace import Workspace

pytestmark = pytest.mark.integration

URL = "https://www.trials.org/a"


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = make_world(tmp_path)
    world.publish(seed=1), world.publish(seed=2)
    world.activate("v1")
    return world


@pytest.fixture
def engine(world: World) -> Iterator[Engine]:
    engine = open_database(world.database)
    yield engine
    engine.dispose()


def enqueue(world: World, rows: list[dict[str, Any]], *words: str) -> Result:
    file, config = world.folder / "pairs.jsonl", world.folder / "settings.yaml"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config.write_text(world.settings.model_dump_json(exclude_unset=True))
    return CliRunner().invoke(cli, ["enqueue", str(file), "--config", str(config), *words])


def lines(*pairs: Any, **more: Any) -> list[dict[str, Any]]:
    return [
        {"pair_id": str(i), "premise": pair.premise, "hypothesis": pair.hypothesis, **more}
        for i, pair in enumerate(pairs or PAIRS)
    ]


def count(engine: Engine, table: str) -> int:
    with read(engine) as connection:
        return int(connection.exec_driver_sql(f"SELECT count(*) FROM {table}").scalar())


def test_a_pair_is_reviewed_and_learned_from_as_one_of_lyras(world: World, engine: Engine) -> None:
    result = enqueue(world, lines(source_url=URL))
    assert result.stdout == "3 pairs put into the review queue, 0 known already\n"
    items = next_items(engine, order="random", limit=5, reviewer="ann", random_share=1.0)
    assert {(item.premise, item.hypothesis) for item in items} == {
        (pair.premise, pair.hypothesis) for pair in PAIRS
    }
    judge = Judges(world.settings, None).default
    for item in items:
        said = predict_one(judge, item.premise, item.hypothesis)
        assert (item.relation, item.source_url) == (said["label"], URL)
        assert item.confidence == pytest.approx(said["confidence"], abs=1e-6)
        assert said["adapter"] == "lora-lyra-v1"

    item = items[0]
    other = next(label for label in LABELS if label != item.relation)
    correct_edges(engine, [EdgeReview(item.edge_id, other, reviewer="ann", lease=item.lease)])
    [review] = Workspace.open(world.settings, read_only=True).reviews().reviews
    assert (review.label, review.predicted_label) == (other, item.relation)
    with read(engine) as connection:
        [drawn] = read_random_reviews(connection, inspect_database(engine))
    assert (drawn.version, drawn.correct) == ("lora-lyra-v1", other)

    again = enqueue(world, lines(source_url=URL))
    assert again.stdout == "0 pairs put into the review queue, 3 known already\n"
    [left] = Workspace.open(world.settings, read_only=True).reviews().reviews
    assert left == review


def test_pairs_of_a_page_or_a_claim_stand_together(world: World, engine: Engine) -> None:
    first, second, third = lines()
    rows = [
        {**first, "source_url": URL},
        {**second, "source_url": URL},
        {**third, "hypothesis": first["hypothesis"]},
        {**third, "pair_id": "3"},
        {**third, "pair_id": "4"},  # the same once more
        {**third, "pair_id": "5", "source_url": "the leaflet, page 2"},  # the same words elsewhere
    ]
    result = enqueue(world, rows)
    assert result.stdout == "5 pairs put into the review queue, 1 known already\n"
    assert [count(engine, t) for t in ("pages", "fragments", "claims", "edges")] == [3, 4, 3, 5]


def test_who_judges_is_who_is_named(world: World, engine: Engine) -> None:
    rows = lines()
    rows[0]["adapter"] = "v2"
    enqueue(world, rows, "--adapter", "base")
    with read(engine) as connection:
        rows = connection.exec_driver_sql("SELECT version FROM nli_predictions ORDER BY id")
        assert [row.version for row in rows] == ["lora-lyra-v2", "base", "base"]


def test_what_the_server_logged_is_not_logged_twice(world: World, engine: Engine) -> None:
    enqueue(world, lines())
    with engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM edges")
    assert "3 pairs" in enqueue(world, lines()).stdout
    assert (count(engine, "nli_predictions"), count(engine, "edges")) == (3, 3)


def test_without_a_log_nothing_is_logged(
    world: World, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LYRA_MONITORING__LOG_SHARE", "0")
    enqueue(world, lines())
    assert (count(engine, "edges"), count(engine, "nli_predictions")) == (3, 0)


def test_bad_rows_are_named_and_nothing_is_done(world: World, engine: Engine) -> None:
    rows = lines()
    rows[0]["premise"] += "\x00"
    rows[1]["hypothesis"] += "\ud83d"  # half of an emoji, as JavaScript cuts them
    rows[2]["source_url"] = "https://trials.org/" + "a" * 5_000
    error = enqueue(world, rows).exception
    assert isinstance(error, InputError)
    assert [problem.split(":")[:2] for problem in error.problems] == [
        ["line 1", " premise"],
        ["line 2", " hypothesis"],
        ["line 3", " source_url"],
    ]
    assert (count(engine, "edges"), count(engine, "nli_predictions")) == (0, 0)


def test_who_is_unknown_is_told_before_anything_is_done(world: World, engine: Engine) -> None:
    rows = lines()
    rows[2]["adapter"] = "v9"
    assert isinstance(enqueue(world, rows).exception, AdapterNotFoundError)
    assert (count(engine, "edges"), count(engine, "nli_predictions")) == (0, 0)


def test_a_review_counts_for_the_version_that_was_seen(world: World, engine: Engine) -> None:
    """Another one may have said the same since, less surely: the review page asks, too."""
    enqueue(world, lines(PAIRS[0]))
    [item] = next_items(engine, limit=1, reviewer="ann", random_share=1.0)
    assert item.relation is not None
    with engine.begin() as connection:
        row = dict(connection.execute(select(nli_predictions)).one()._mapping)
        row |= {"id": 2, "version": "lora-lyra-v2", item.relation: row[item.relation] - 0.1}
        connection.execute(insert(nli_predictions), row)
    review = EdgeReview(item.edge_id, item.relation, reviewer="ann", lease=item.lease)
    correct_edges(engine, [review])
    with read(engine) as connection:
        [drawn] = read_random_reviews(connection, inspect_database(engine))
    assert drawn.version == "lora-lyra-v1"


@pytest.mark.parametrize("shape", [OLDER, NEWER])
def test_lyra_fills_her_own_queue(world: World, tmp_path: Path, shape: Any) -> None:
    database = LyraDatabase(tmp_path / "lyras.db", shape)
    engine = database.open()
    upgrade(engine, backup=False)
    engine.dispose()
    error = enqueue(world, lines(), "--db", str(database.path)).exception
    assert isinstance(error, StorageError)
    assert "which fills the queue itself" in error.message
