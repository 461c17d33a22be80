"""The review queue on PostgreSQL: the same orders, leases and random draw."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from random import Random
from secrets import token_hex
from typing import Any

import pytest
from postgres_server import postgres_url
from sqlalchemy import Engine, create_engine, insert, text, update
from sqlalchemy.engine import make_url

from lyra_nli.feedback.actions import perform
from lyra_nli.feedback.draws import Draws, statement
from lyra_nli.feedback.edges import edge_correct
from lyra_nli.feedback.enqueueing import Judged, Source, enqueue, require_ours
from lyra_nli.feedback.queue import QueueItem, next_items, release, show_again
from lyra_nli.feedback.sampling import count_sampling
from lyra_nli.feedback.undo import undo_review
from lyra_nli.records import Pair
from lyra_nli.storage import tables
from lyra_nli.storage.engine import now, open_database, read, write
from lyra_nli.storage.generation import inspect_database
from lyra_nli.storage.upgrade import init_database

pytestmark = pytest.mark.integration

PLAIN: dict[str, Any] = {"random_share": 0.0, "second_share": 0.0}


@pytest.fixture(scope="module")
def location() -> Iterator[str]:
    with postgres_url() as server:
        name = f"test_{token_hex(6)}"
        admin = create_engine(server, isolation_level="AUTOCOMMIT")
        with admin.connect() as connection:
            connection.execute(text(f"CREATE DATABASE {name}"))
        location = make_url(server).set(database=name).render_as_string(hide_password=False)
        init_database(location)
        yield location
        with admin.connect() as connection:
            connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
        admin.dispose()


@pytest.fixture
def engine(location: str) -> Iterator[Engine]:
    engine = open_database(location)
    names = ", ".join(tables.metadata.tables)
    with write(engine) as connection:
        connection.execute(text(f"TRUNCATE {names} CASCADE"))
        connection.execute(insert(tables.pages).values(id="p", url="https://x.org", domain="x.org"))
        for n in range(40):
            key = f"{n:02}"
            fragment = {
                "id": f"f{key}",
                "page_id": "p",
                "text_content": "\n " if n == 0 else "text",
            }
            connection.execute(insert(tables.fragments).values(fragment))
            connection.execute(insert(tables.claims).values(id=f"c{key}", claim_text="claim"))
            connection.execute(
                insert(tables.edges).values(
                    id=f"e{key}",
                    source_type="fragment",
                    source_id=f"f{key}",
                    target_type="claim",
                    target_id=f"c{key}",
                    relation="cites" if n == 1 else "supports",
                    nli_label="supports",
                    nli_confidence=0.4 + n / 100,
                    created_at=f"2026-01-01T00:00:{key}+00:00",
                )
            )
    yield engine
    engine.dispose()


def ask(engine: Engine, order: str = "uncertain", **more: Any) -> list[QueueItem]:
    return next_items(engine, **{**PLAIN, "order": order, **more})


def review(engine: Engine, edge: str, who: str, lease: str | None = None) -> str:
    args = {"edge_id": edge, "correct_relation": "refutes", "reviewer": who, "lease": lease}
    return str(perform(engine, "edge_correct", args)["review_id"])


def test_orders_leases_and_undo(engine: Engine) -> None:
    [item] = ask(engine, reviewer="ada")
    assert item.edge_id == "e02"
    assert ask(engine, reviewer="bob")[0].edge_id == "e03"
    assert ask(engine, "recent", lease=False)[0].edge_id == "e39"
    made = review(engine, "e02", "ada", item.lease)
    undo_review(engine, made, who="ada")
    again = show_again(engine, made, reviewer="ada", lease_seconds=60)
    assert again is not None
    assert again.edge_version == item.edge_version
    assert release(engine, str(again.lease))
    with write(engine) as connection:
        connection.execute(update(tables.nli_leases).values(expires_at="2026-01-01"))
    assert ask(engine, reviewer="eve")[0].edge_id == "e02"


def test_scores_and_second_looks(engine: Engine) -> None:
    review(engine, "e05", "ada")
    rows = [
        {"kind": kind, "edge_id": edge, "score": 0.5, "at": now()}
        for kind, edge in (("suspect", "e05"), ("disagree", "e07"))
    ]
    with write(engine) as connection:
        connection.execute(insert(tables.nli_queue_scores), rows)
    assert ask(engine, "suspect", lease=False)[0].edge_id == "e05"
    assert ask(engine, "disagree", lease=False)[0].edge_id == "e07"
    assert ask(engine, reviewer="ada", second_share=1.0, lease=False)[0].purpose == "first"
    [item] = ask(engine, reviewer="bob", second_share=1.0)
    assert (item.edge_id, item.purpose, item.relation) == ("e05", "second", None)


def test_the_random_draw_reaches_every_open_edge(engine: Engine) -> None:
    rng = Random(2)
    drawn = Counter(ask(engine, "random", lease=False, rng=rng)[0].edge_id for _ in range(250))
    assert set(drawn) == {f"e{n:02}" for n in range(2, 40)}


def test_reviewers_at_once_never_get_the_same_edge(engine: Engine) -> None:
    def take(number: int) -> list[str]:
        return [
            ask(engine, order, reviewer=f"r{number}")[0].edge_id
            for order in ("uncertain", "random", "recent", "uncertain")
        ]

    with ThreadPoolExecutor(8) as pool:
        taken = [edge for edges in pool.map(take, range(8)) for edge in edges]
    assert len(set(taken)) == len(taken) == 32


@pytest.mark.parametrize(
    ("which", "index"),
    [
        ("uncertain", "ix_nli_edges_confidence"),
        ("recent", "ix_nli_edges_created"),
        ("random", "ix_nli_edges_random"),
    ],
)
def test_the_indexes_serve_the_orders(engine: Engine, which: Any, index: str) -> None:
    with read(engine) as connection:
        # A few rows are read faster whole; a million are not.
        connection.execute(text("SET LOCAL enable_seqscan = off"))
        connection.execute(text("SET LOCAL enable_sort = off"))
        draws = Draws(connection, inspect_database(engine), moment=now())
        sql = draws.hashes() if which == "random" else draws.ordered(which)
        values = {"point": "8", "limit": 1} if which == "random" else {}
        rows = connection.execute(statement(f"EXPLAIN {sql}"), {**draws.shared(), **values})
        plan = "\n".join(rows.scalars())
    assert f"using {index} on edges" in plan.replace("Backward ", "")
    assert "Sort" not in plan


def test_undo_brings_scores_back_and_judgements_count_once(engine: Engine) -> None:
    row = {"kind": "disagree", "edge_id": "e07", "score": 0.5, "at": now()}
    with write(engine) as connection:
        connection.execute(insert(tables.nli_queue_scores), [row])
    made = review(engine, "e07", "ada")
    assert ask(engine, "disagree", lease=False)[0].reason_for == "uncertain"
    undo_review(engine, made, who="ada")
    assert ask(engine, "disagree", lease=False)[0].edge_id == "e07"
    for label in ("refutes", "neutral"):
        edge_correct(engine, "e07", label, sampling="random")
    with read(engine) as connection:
        counts = count_sampling(connection, inspect_database(engine))
    assert (counts.random, counts.random_corrected) == (1, 1)


def test_of_two_that_enqueue_the_same_at_once_each_pair_is_there_once(engine: Engine) -> None:
    require_ours(inspect_database(engine))
    pairs = [Pair(f"premise {n % 5}", f"hypothesis {n % 7}") for n in range(35)]
    judged = [Judged(Source(pair, "https://trials.org/"), "supports", 0.6) for pair in pairs]
    with ThreadPoolExecutor(4) as pool:
        new = list(pool.map(lambda order: enqueue(engine, order), [judged, judged[::-1]] * 2))
    assert sum(new) == 35
    assert enqueue(engine, judged) == 0
    items = next_items(engine, order="recent", limit=3, **PLAIN)
    assert all(item.premise.startswith("premise") for item in items)
