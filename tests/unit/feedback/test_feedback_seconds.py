"""Blind second reviews and the agreement that they measure."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lyra_databases import NEWER, OLDER, LyraDatabase, fetch
from sqlalchemy import Engine, text

from lyra_nli.errors import ConflictError, FeedbackError
from lyra_nli.feedback.edges import edge_correct
from lyra_nli.feedback.seconds import Agreement, agreement, kappa, second_review
from lyra_nli.feedback.undo import undo_review
from lyra_nli.labels import LABELS
from lyra_nli.storage.engine import read, write
from lyra_nli.storage.generation import inspect_database
from lyra_nli.storage.reviews import read_reviews
from lyra_nli.storage.scores import DISPUTED, replace_scores
from lyra_nli.storage.upgrade import upgrade

PAIRS = list(product(LABELS, LABELS))


class World:
    def __init__(self, database: LyraDatabase) -> None:
        self.database = database
        for number in range(4):
            database.add_edge(f"e{number}", "supports", 0.9)
        database.add_edge("o", relation="origin")
        self.engine: Engine = database.open()
        upgrade(self.engine, backup=False)

    def fetch(self, sql: str, *parameters: object) -> list[tuple[Any, ...]]:
        return fetch(self.database.path, sql, *parameters)

    def second(self, edge: str, label: str, reviewer: str = "bob", **more: Any) -> dict[str, Any]:
        return second_review(self.engine, edge, label, reviewer=reviewer, **more)

    def agreement(self) -> Agreement:
        with read(self.engine) as connection:
            return agreement(connection)


@pytest.fixture(params=[OLDER, NEWER], ids=["older", "newer"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    world = World(LyraDatabase(tmp_path / "lyra.db", request.param))
    yield world
    world.engine.dispose()


def test_a_second_review_changes_nothing_but_is_counted(world: World) -> None:
    first = edge_correct(world.engine, "e0", "refutes", reviewer="ann")
    queries = ("SELECT * FROM edges", "SELECT * FROM nli_reviews", "SELECT * FROM nli_corrections")
    before = [world.fetch(query) for query in queries]
    answer = world.second("e0", "refutes", reason="agreed")
    assert (answer["ok"], answer["agrees"], answer["first_label"]) == (True, True, "refutes")
    assert [world.fetch(query) for query in queries] == before
    assert world.fetch(
        "SELECT id, review_id, edge_id, label, reviewer, reason FROM nli_second_reviews"
    ) == [(answer["second_review_id"], first.review_id, "e0", "refutes", "bob", "agreed")]
    assert world.fetch("SELECT count(*) FROM nli_queue_scores") == [(0,)]


def test_who_agrees_is_counted_among_the_people_behind_a_label(world: World) -> None:
    for edge in ("e0", "e1", "e2"):
        edge_correct(world.engine, edge, "refutes", reviewer="ann")
    world.second("e0", "refutes")
    world.second("e0", "refutes", reviewer="eve")
    world.second("e1", "neutral")
    with read(world.engine) as connection:
        found = read_reviews(connection, inspect_database(world.engine)).reviews
    assert {review.edge_id: review.people for review in found} == {"e0": 3, "e1": 1, "e2": 1}


def test_a_disagreement_makes_the_edge_the_first_suspect(world: World) -> None:
    edge_correct(world.engine, "e0", "refutes", reviewer="ann")
    with write(world.engine) as connection:
        connection.execute(
            text(
                "INSERT INTO nli_queue_scores (kind, edge_id, score, at)"
                " VALUES ('suspect', 'e0', 0.2, '2026'), ('suspect', 'e1', 9.5, '2026')"
            )
        )
    answer = world.second("e0", "neutral")
    assert not answer["agrees"]
    assert world.fetch(
        "SELECT edge_id, detail_json FROM nli_queue_scores WHERE kind = 'suspect'"
        " ORDER BY score DESC"
    ) == [("e0", '{"first": "refutes", "second": "neutral"}'), ("e1", "{}")]


def test_the_verdict_that_stands_is_the_first_one(world: World) -> None:
    edge_correct(world.engine, "e0", "refutes", reviewer="ann")
    newest = edge_correct(world.engine, "e0", "neutral", reviewer="cleo")
    assert world.second("e0", "neutral", "ann")["agrees"]
    undo_review(world.engine, newest.review_id, who="cleo")
    assert world.agreement().n == 0  # what it was compared with is undone
    assert not world.second("e0", "neutral", "bob")["agrees"]
    assert world.agreement().n == 1


def test_who_cannot_give_a_second_verdict(world: World) -> None:
    edge_correct(world.engine, "e0", "refutes", reviewer="ann")
    with pytest.raises(FeedbackError, match="takes a second person") as caught:
        world.second("e0", "refutes", "ann")
    assert caught.value.parameter == "reviewer"
    world.second("e0", "refutes", "bob")
    with pytest.raises(ConflictError, match="already"):
        world.second("e0", "neutral", "bob")
    assert world.second("e0", "neutral", "cleo")["ok"]


@pytest.mark.parametrize(
    ("arguments", "code", "parameter"),
    [
        ({"edge": "nowhere"}, "unknown_edge", "edge_id"),
        ({"edge": "o"}, "not_nli", "edge_id"),
        ({"edge": "e1"}, "wrong_value", "edge_id"),
        ({"label": "maybe"}, "wrong_value", "label"),
        ({"reviewer": ""}, "missing", "reviewer"),
        ({"reason": "x" * 1_000_000}, "too_long", "reason"),
        ({"lease": "for-a-first"}, "wrong_value", "lease"),
    ],
)
def test_bad_arguments_change_nothing(
    world: World, arguments: dict[str, str], code: str, parameter: str
) -> None:
    edge_correct(world.engine, "e0", "refutes", reviewer="ann")
    with write(world.engine) as connection:
        connection.execute(
            text(
                "INSERT INTO nli_leases (edge_id, token, purpose, sampling, expires_at)"
                " VALUES ('e0', 'for-a-first', 'first', 'queue', '2026')"
            )
        )
    before = world.database.dump()
    given = {"edge": "e0", "label": "refutes", **arguments}
    with pytest.raises(FeedbackError) as caught:
        world.second(given.pop("edge"), given.pop("label"), **given)
    assert (caught.value.code, caught.value.parameter) == (code, parameter)
    assert world.database.dump() == before


def test_a_lease_for_a_second_review_ends_with_it(world: World) -> None:
    edge_correct(world.engine, "e0", "refutes", reviewer="ann")
    with write(world.engine) as connection:
        connection.execute(
            text(
                "INSERT INTO nli_leases (edge_id, token, purpose, sampling, expires_at)"
                " VALUES ('e0', 't', 'second', 'queue', '2026')"
            )
        )
    world.second("e0", "refutes", lease="t")
    assert world.fetch("SELECT count(*) FROM nli_leases") == [(0,)]


def test_sent_twice_it_is_one(world: World) -> None:
    edge_correct(world.engine, "e0", "refutes", reviewer="ann")
    answers = [world.second("e0", "neutral", idempotency_key="k") for _ in range(2)]
    assert answers[0] == answers[1]
    assert world.agreement().n == 1


# --- kappa --------------------------------------------------------------------------------


def test_without_second_reviews_there_is_no_agreement_to_speak_of(world: World) -> None:
    assert world.agreement() == Agreement(0, None, None, None, None)
    assert world.agreement().text == "no second reviews yet"


def test_kappa_of_a_table_worked_by_hand() -> None:
    table = {("supports", "supports"): 20, ("supports", "refutes"): 5}
    table |= {("refutes", "supports"): 10, ("refutes", "refutes"): 15}
    found = kappa(table)
    assert (found.n, found.observed) == (50, 0.7)
    assert found.kappa == pytest.approx(0.4)  # chance: 0.5 * 0.6 + 0.5 * 0.4 = 0.5
    assert found.text.startswith("70% of 50 second reviews agree, kappa 0.40 (95%: ")


@pytest.mark.parametrize("seed", range(5))
def test_the_interval_is_that_of_the_delta_method(seed: int) -> None:
    """Fleiss, Cohen and Everitt's formula is the delta method on the multinomial: do it."""
    rng = np.random.default_rng(seed)
    counts = rng.integers(1, 30, 9)
    counts[[0, 4, 8]] += 40
    n, p = counts.sum(), counts / counts.sum()

    def of(shares: np.ndarray) -> float:
        square = shares.reshape(3, 3) / shares.sum()
        chance = square.sum(1) @ square.sum(0)
        return float((np.trace(square) - chance) / (1 - chance))

    step = 1e-6
    slope = np.array([(of(p + step * e) - of(p - step * e)) / (2 * step) for e in np.eye(9)])
    error = math.sqrt((slope**2 @ p - (slope @ p) ** 2) / n)
    found = kappa({pair: int(count) for pair, count in zip(PAIRS, counts, strict=True)})
    assert found.kappa == pytest.approx(of(p))
    assert found.low is not None
    assert found.high is not None
    assert found.low == pytest.approx(of(p) - 1.959964 * error, abs=1e-5)
    assert found.high == pytest.approx(of(p) + 1.959964 * error, abs=1e-5)


def test_perfect_agreement_is_not_certainty() -> None:
    found = kappa({("supports", "supports"): 15, ("refutes", "refutes"): 15})
    assert (found.kappa, found.high) == (1.0, 1.0)
    assert found.low is not None
    assert 0.7 < found.low < 0.8


def test_a_few_reviews_have_no_interval() -> None:
    found = kappa({("supports", "supports"): 5, ("refutes", "refutes"): 4})
    assert (found.kappa, found.low, found.high) == (1.0, None, None)
    assert found.text.endswith("an interval needs 20")


def test_one_label_alone_has_no_kappa() -> None:
    found = kappa({("supports", "supports"): 50})
    assert found == Agreement(50, 1.0, None, None, None)
    assert "needs more than one label" in found.text


def test_what_was_suspect_already_is_disputed_now(world: World) -> None:
    edge_correct(world.engine, "e0", "refutes", reviewer="ann")
    with write(world.engine) as connection:
        replace_scores(connection, "suspect", "v1", {"e0": 0.7}, {})
    world.second("e0", "neutral")
    assert world.fetch("SELECT score, source FROM nli_queue_scores") == [
        (DISPUTED, "second review")
    ]
    with write(world.engine) as connection:  # what people said of it stands
        replace_scores(connection, "suspect", "v2", {"e0": 0.9}, {})
    assert world.fetch("SELECT score FROM nli_queue_scores") == [(DISPUTED,)]
