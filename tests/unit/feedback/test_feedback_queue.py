from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from typing import Any

import pytest
from lyra_databases import NEWER, SHAPES, LyraDatabase, fetch
from sqlalchemy import Engine, insert, update

from lyra_nli.errors import FeedbackError, StorageError
from lyra_nli.feedback.actions import perform
from lyra_nli.feedback.draws import Draws, statement
from lyra_nli.feedback.edges import edge_correct
from lyra_nli.feedback.queue import ORDERS, QueueItem, next_items, release, show_again
from lyra_nli.feedback.sampling import count_sampling
from lyra_nli.feedback.undo import undo_review
from lyra_nli.storage.engine import now, open_database, read, write
from lyra_nli.storage.generation import inspect_database
from lyra_nli.storage.tables import nli_leases, nli_queue_scores, nli_reviews
from lyra_nli.storage.upgrade import upgrade

PLAIN: dict[str, Any] = {"random_share": 0.0, "second_share": 0.0}


class World:
    """Five open edges of rising confidence, newest last, one without; and what can't be judged."""

    def __init__(self, database: LyraDatabase) -> None:
        self.database = database
        for number, confidence in enumerate((0.5, 0.6, 0.7, 0.8, 0.9, None)):
            database.add_edge(f"e{number}", "supports", confidence, page=f"p{number}")
        database.add_edge("origin", relation="origin")
        database.add_edge("cites", relation="cites")
        database.add_edge("blank", "refutes", 0.4)
        database.add_edge("unjudged", "neutral", None)
        with database.connect() as connection:
            connection.execute("UPDATE fragments SET text_content = ' \n\t ' WHERE id = 'f-blank'")
            connection.execute("UPDATE edges SET nli_label = NULL WHERE id = 'unjudged'")
            connection.execute("UPDATE edges SET edge_human_corrected = 1 WHERE id = 'cites'")
            for number in range(6):
                connection.execute(
                    "UPDATE edges SET created_at = ? WHERE id = ?",
                    (f"2026-01-0{number + 1}T00:00:00+00:00", f"e{number}"),
                )
            # An index that Lyra may have, and that the planner must not fall for.
            connection.execute("CREATE INDEX idx_edges_relation ON edges (relation)")
            connection.execute("UPDATE pages SET title = 'A <b>title</b>' WHERE id = 'p0'")
        self.engine: Engine = database.open()
        upgrade(self.engine, backup=False)

    def next(self, order: str = "uncertain", **more: Any) -> list[QueueItem]:
        return next_items(self.engine, **{**PLAIN, "order": order, **more})

    def ids(self, order: str = "uncertain", **more: Any) -> list[str]:
        return [item.edge_id for item in self.next(order, **{"limit": 50, **more})]

    def review(self, edge: str, label: str = "supports", reviewer: str = "ada", **more: Any) -> str:
        args = {"edge_id": edge, "correct_relation": label, "reviewer": reviewer, **more}
        return str(perform(self.engine, "edge_correct", args)["review_id"])

    def score(self, kind: str, **scores: float) -> None:
        rows = [
            {
                "kind": kind,
                "edge_id": edge,
                "score": score,
                "detail_json": '{"why": 1}',
                "at": now(),
            }
            for edge, score in scores.items()
        ]
        with write(self.engine) as connection:
            connection.execute(insert(nli_queue_scores), rows)

    def expire_leases(self) -> None:
        with write(self.engine) as connection:
            connection.execute(update(nli_leases).values(expires_at=f"{now()[:4]}-01-01"))


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


def test_an_item_has_all_that_a_reviewer_needs(world: World) -> None:
    [item] = world.next(reviewer="ada")
    assert (item.edge_id, item.relation, item.confidence) == ("e0", "supports", 0.5)
    assert (item.premise, item.hypothesis) == ("Premise of e0.", "Claim c-e0.")
    assert (item.source_url, item.page_title) == ("https://example.org/p0", "A <b>title</b>")
    assert (item.task_id, item.purpose, item.reviewed_before) == ("t1", "first", None)
    assert (item.reason_for, item.sampling) == ("uncertain", "queue")
    perform(
        world.engine,
        "edge_correct",
        {
            "edge_id": "e0",
            "correct_relation": "refutes",
            "edge_version": item.edge_version,
            "lease": item.lease,
        },
    )
    assert fetch(world.database.path, "SELECT sampling, predicted_confidence FROM nli_reviews") == [
        ("queue", 0.5)
    ]


def test_the_orders(world: World) -> None:
    assert world.ids("uncertain", lease=False) == ["e0", "e1", "e2", "e3", "e4", "e5"]
    assert world.ids("recent", lease=False) == ["e5", "e4", "e3", "e2", "e1", "e0"]
    world.score("disagree", e3=0.9, e1=0.2, origin=1.0, blank=1.0, gone=2.0)
    assert world.ids("disagree", lease=False, limit=2) == ["e3", "e1"]
    world.review("e4")
    world.score("suspect", e4=0.5, e0=0.9, cites=1.0)
    [item] = world.next("suspect", lease=False)
    assert (item.edge_id, item.score, item.detail) == ("e4", 0.5, {"why": 1})


def test_an_order_that_is_empty_falls_back_and_says_so(world: World) -> None:
    assert [item.reason_for for item in world.next("disagree")] == ["uncertain"]
    found = world.next("uncertain", limit=50)
    assert {item.edge_id: item.reason_for for item in found}["e5"] == "recent"
    assert world.next() == []


def test_a_suspect_label_is_shown_as_reviewed_before(world: World) -> None:
    world.review("e2", "refutes", "bob")
    world.score("suspect", e2=0.5)
    [item] = world.next("suspect")
    assert item.relation == "refutes"
    assert item.confidence is None  # the 1.0 that stands there is no model's
    assert item.reviewed_before is not None
    assert (item.reviewed_before["label"], item.reviewed_before["reviewer"]) == ("refutes", "bob")
    world.review("e2", "neutral", "eve", edge_version=item.edge_version)
    assert world.next("suspect")[0].reason_for == "uncertain"


def test_the_random_draw_is_uniform_and_blind_to_the_model(newer: World) -> None:
    rng = Random(3)
    drawn = Counter(newer.next("random", lease=False, rng=rng)[0].edge_id for _ in range(300))
    assert set(drawn) == {"e0", "e1", "e2", "e3", "e4", "e5"}
    chi_squared = sum((count - 50) ** 2 / 50 for count in drawn.values())
    assert chi_squared < 20.5  # 5 degrees of freedom, p = 0.001


def test_the_random_draw_finds_the_few_that_are_left(newer: World) -> None:
    with newer.database.connect() as connection:
        connection.execute("UPDATE edges SET rowid = 50000000 WHERE id = 'e3'")
    assert newer.ids("random", lease=False, limit=6, rng=Random(1)).count("e3") == 1


def test_a_share_is_drawn_at_random_and_marked_so(newer: World) -> None:
    rng = Random(5)
    marks = Counter(
        (item.reason_for, item.sampling)
        for _ in range(200)
        for item in newer.next(lease=False, random_share=0.3, rng=rng)
    )
    assert set(marks) == {("random", "random"), ("uncertain", "queue")}
    assert 40 <= marks["random", "random"] <= 80
    [item] = newer.next("random", reviewer="ada")
    newer.review(item.edge_id, "refutes", sampling="queue", lease=item.lease)
    with read(newer.engine) as connection:
        counts = count_sampling(connection, inspect_database(newer.engine))
    assert (counts.random, counts.queue, counts.correction_rate) == (1, 0, 1.0)


def test_a_judgement_counts_once_by_its_first_random_verdict(world: World) -> None:
    def counts() -> tuple[int, int, int, int]:
        with read(world.engine) as connection:
            found = count_sampling(connection, inspect_database(world.engine))
        return found.random, found.random_corrected, found.queue, found.unknown

    assert counts() == (0, 0, 0, 0)
    first = edge_correct(world.engine, "e0", "refutes", sampling="random").review_id
    edge_correct(world.engine, "e0", "supports", sampling="queue")
    again = edge_correct(world.engine, "e0", "supports", sampling="random").review_id
    assert counts() == (1, 1, 1, 0)
    edge_correct(world.engine, "e1", "supports", sampling="random")
    edge_correct(world.engine, "e2", "refutes")
    assert counts() == (2, 1, 1, 1)
    with write(world.engine) as connection:
        connection.execute(
            update(nli_reviews).where(nli_reviews.c.id == first).values(undone_at=now())
        )
    assert counts() == (2, 0, 1, 1)  # the next one is the first that stands
    undo_review(world.engine, again, who="ada")
    assert counts() == (1, 0, 1, 1)


def test_a_leased_edge_is_handed_to_nobody_else(world: World) -> None:
    first, second = world.next(reviewer="ada"), world.next(reviewer="bob")
    assert (first[0].edge_id, second[0].edge_id) == ("e0", "e1")
    assert first[0].lease != second[0].lease
    assert world.ids("random", limit=2, lease=False).count("e0") == 0
    assert release(world.engine, str(first[0].lease))
    assert not release(world.engine, str(first[0].lease))
    assert world.next(reviewer="eve")[0].edge_id == "e0"


def test_a_lease_that_ran_out_binds_nobody(world: World) -> None:
    [late] = world.next("random", reviewer="ada", skip=["e1", "e2", "e3", "e4", "e5"])
    world.expire_leases()
    [item] = world.next(reviewer="bob")
    assert item.edge_id == late.edge_id == "e0"
    [(token, who)] = fetch(world.database.path, "SELECT token, reviewer FROM nli_leases")
    assert (token, who) == (item.lease, "bob")


def test_without_leases_nothing_is_written(newer: World, tmp_path: Path) -> None:
    before = newer.database.dump()
    assert newer.ids("uncertain", lease=False) == newer.ids("uncertain", lease=False)
    assert newer.database.dump() == before
    copy = tmp_path / "copy.db"
    shutil.copyfile(newer.database.path, copy)
    engine = open_database(str(copy), read_only=True)
    assert next_items(engine, lease=False, **PLAIN)[0].edge_id == "e0"
    with pytest.raises(StorageError, match="refused"):
        next_items(engine, **PLAIN)
    engine.dispose()


def test_many_reviewers_at_once_never_get_the_same_edge(newer: World) -> None:
    for number in range(40):
        newer.database.add_edge(f"n{number}", "neutral", 0.3)

    def take(number: int) -> list[str]:
        engine = newer.database.open()
        try:
            return [
                next_items(engine, order=order, reviewer=f"r{number}", **PLAIN)[0].edge_id
                for order in ("uncertain", "random", "recent", "uncertain", "random")
            ]
        finally:
            engine.dispose()

    with ThreadPoolExecutor(8) as pool:
        taken = [edge for edges in pool.map(take, range(8)) for edge in edges]
    assert len(set(taken)) == 40


def test_a_second_look_is_blind_and_another_persons(world: World) -> None:
    world.review("e1", "refutes", "ada")
    for nobody in ("ada", ""):
        [item] = world.next(reviewer=nobody, second_share=1.0, lease=False)
        assert item.purpose == "first"
    [item] = world.next(reviewer="bob", second_share=1.0)
    assert (item.edge_id, item.purpose, item.reason_for) == ("e1", "second", "second")
    assert (item.relation, item.confidence, item.reviewed_before) == (None, None, None)
    assert "refutes" not in repr(item)
    [other] = world.next(reviewer="eve", second_share=1.0)
    assert other.purpose == "first"  # bob has it on the screen


def test_a_second_look_goes_through_a_stretch_of_the_ledger_only(newer: World) -> None:
    review = newer.review("e1", "refutes", "ada")
    with newer.database.connect() as connection:
        connection.execute("UPDATE nli_reviews SET id = 'nlr_8' WHERE id = ?", (review,))
        connection.executemany(
            "INSERT INTO nli_reviews (id, pair_key, premise, hypothesis, predicted_label,"
            " correct_label, reviewer, reviewed_at)"
            " VALUES (?, 'k', 'P', 'H', 'neutral', 'neutral', 'cleo', '2026-01-01')",
            ((f"nlr_{number * 16**12:016x}",) for number in range(1, 16**4, 16)),  # without an edge
        )

    def looks() -> Counter[str]:
        draws = (
            newer.next(reviewer="bob", second_share=1.0, lease=False, rng=Random(seed))
            for seed in range(40)
        )
        return Counter(item.purpose for [item] in draws)

    found = looks()["second"]
    assert 0 < found < 30  # from a quarter of the ledger it is within reach
    with newer.database.connect() as connection:
        connection.execute("DELETE FROM nli_reviews WHERE id > 'nlr_2' AND edge_id IS NULL")
    assert looks()["second"] == 40  # from everywhere, around the circle, when so few are there


def test_an_undone_review_gets_no_second_look(world: World) -> None:
    review = world.review("e1", "refutes", "ada")
    undo_review(world.engine, review, who="ada")
    assert world.next(reviewer="bob", second_share=1.0)[0].purpose == "first"


def test_an_undone_edge_comes_back_as_it_was_drawn(world: World) -> None:
    [item] = world.next("random", reviewer="ada")
    review = world.review(item.edge_id, "refutes", lease=item.lease)
    undo_review(world.engine, review, who="ada")
    again = show_again(world.engine, review, reviewer="ada", lease_seconds=60)
    assert again is not None
    assert (again.edge_id, again.sampling) == (item.edge_id, "random")
    assert (again.edge_version, again.relation) == (item.edge_version, item.relation)
    assert show_again(world.engine, review, reviewer="bob", lease_seconds=60) is None
    # The answer got lost, and its reader asks once more: the edge is on the same screen.
    repeated = show_again(world.engine, review, reviewer="ada", lease_seconds=60)
    assert repeated is not None
    assert repeated.lease != again.lease
    assert not release(world.engine, again.lease)
    assert release(world.engine, repeated.lease)
    nameless = show_again(world.engine, review, reviewer="", lease_seconds=60)
    assert nameless is not None
    assert show_again(world.engine, review, reviewer="", lease_seconds=60) is None
    assert show_again(world.engine, "nlr_none", reviewer="bob", lease_seconds=60) is None


def test_skipped_edges_are_not_given(world: World) -> None:
    hostile = ["e0", "e1", "'); DROP TABLE edges; --", ""]
    assert world.next(skip=hostile)[0].edge_id == "e2"


@pytest.mark.parametrize(
    ("arguments", "parameter"),
    [({"order": "best"}, "order"), ({"limit": 0}, "limit"), ({"limit": 101}, "limit")],
)
def test_bad_arguments_are_named(newer: World, arguments: dict[str, Any], parameter: str) -> None:
    with pytest.raises(FeedbackError) as caught:
        next_items(newer.engine, **arguments)
    assert (caught.value.code, caught.value.parameter) == ("wrong_value", parameter)


def test_a_database_without_our_tables_says_what_to_do(tmp_path: Path) -> None:
    database = LyraDatabase(tmp_path / "lyra.db")
    database.add_edge("e1")
    engine = database.open()
    with pytest.raises(StorageError) as caught:
        next_items(engine)
    assert "db upgrade" in caught.value.hint
    engine.dispose()


def test_no_order_reads_a_table_whole_or_sorts(world: World) -> None:
    with read(world.engine) as connection:
        draws = Draws(connection, inspect_database(world.engine), moment=now())
        values: dict[str, Any] = {
            "kind": "suspect",
            "rowids": [1, 2],
            "point": "nlr_",
            "reviewer": "bob",
        }
        values["end"] = "nlr_8"
        for name, sql in {
            "uncertain": draws.ordered("uncertain"),
            "recent": draws.ordered("recent"),
            "disagree": draws.scored("disagree"),
            "suspect": draws.scored("suspect"),
            "random": draws.rows(),
            "few left": draws.listing(),
            "window": draws.window(),
            "second": draws.second(),
        }.items():
            plan = [
                str(row.detail)
                for row in connection.execute(
                    statement(f"EXPLAIN QUERY PLAN {sql}"),
                    {**draws.shared(), **{key: values[key] for key in values if f":{key}" in sql}},
                )
            ]
            scans = [
                step for step in plan if step.startswith("SCAN") and "INDEX ix_nli" not in step
            ]
            sorts = [step for step in plan if "TEMP B-TREE" in step]
            assert not scans + sorts, (name, plan)
            assert not any("idx_edges_relation" in step for step in plan), (name, plan)


def test_every_order_can_be_asked(newer: World) -> None:
    assert set(ORDERS) == {"uncertain", "disagree", "suspect", "random", "recent"}
    for order in ORDERS:
        json.dumps(newer.next(order, lease=False)[0].detail)
