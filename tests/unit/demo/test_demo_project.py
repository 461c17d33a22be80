from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import Engine, func, select

from lyra_nli.demo.project import Reviewer, record_judgements, write_project
from lyra_nli.demo.world import World, build_world
from lyra_nli.errors import InputError, StorageError
from lyra_nli.labels import LABELS, Label
from lyra_nli.storage import tables
from lyra_nli.storage.engine import open_database, read, write

EDGES = tables.edges


@dataclass(frozen=True)
class Said:
    label: Label
    confidence: float


@pytest.fixture(scope="module")
def world() -> World:
    return build_world(3, 150)


@pytest.fixture
def engine(tmp_path: Path, world: World) -> Engine:
    engine = open_database(str(tmp_path / "lyra.db"), create=True)
    with write(engine) as connection:
        tables.metadata.create_all(connection)
    write_project(engine, world)
    return engine


def test_rows_of_a_new_project(engine: Engine, world: World) -> None:
    with read(engine) as connection:
        for table, rows in ((tables.pages, world.pages), (tables.fragments, world.fragments),
                            (tables.claims, world.claims)):  # fmt: skip
            assert connection.scalar(select(func.count()).select_from(table)) == len(rows)
        judged = connection.execute(select(EDGES).where(EDGES.c.source_type == "fragment")).all()
        pairs = connection.execute(
            select(EDGES.c.id, tables.fragments.c.text_content, tables.claims.c.claim_text)
            .join(tables.fragments, tables.fragments.c.id == EDGES.c.source_id)
            .join(tables.claims, tables.claims.c.id == EDGES.c.target_id)
        ).all()
    assert {(row.relation, row.nli_label, row.edge_human_corrected) for row in judged} == {
        ("neutral", None, 0)
    }
    expected = {key: (pair.premise, pair.hypothesis) for key, pair in world.pairs().items()}
    assert {row[0]: (row[1], row[2]) for row in pairs} == expected


def test_origin_edges_are_no_judgements(engine: Engine, world: World) -> None:
    with read(engine) as connection:
        rows = connection.execute(select(EDGES).where(EDGES.c.relation == "origin")).all()
    assert len(rows) == len(world.claims)
    assert {(row.source_type, row.target_type, row.nli_label) for row in rows} == {
        ("claim", "page", None)
    }
    assert {row.target_id for row in rows} <= {page.id for page in world.pages}


def test_writing_twice_is_refused_and_changes_nothing(engine: Engine, world: World) -> None:
    with pytest.raises(StorageError, match="UNIQUE"):
        write_project(engine, world)
    with read(engine) as connection:
        count = connection.scalar(select(func.count()).select_from(EDGES))
    assert count == len(world.edges) + len(world.claims)


def test_judgements_are_kept(engine: Engine, world: World) -> None:
    one, two, *_ = world.edges
    said = {one.id: Said("supports", 0.9), two.id: Said("refutes", 0.4)}
    assert record_judgements(engine, said) == 2
    with read(engine) as connection:
        rows = connection.execute(select(EDGES).where(EDGES.c.nli_label.is_not(None))).all()
    assert {row.id: (row.relation, row.nli_label, row.nli_confidence) for row in rows} == {
        one.id: ("supports", "supports", 0.9),
        two.id: ("refutes", "refutes", 0.4),
    }


def test_a_humans_label_stays(engine: Engine, world: World) -> None:
    edge = world.edges[0].id
    with write(engine) as connection:
        connection.execute(
            EDGES.update()
            .where(EDGES.c.id == edge)
            .values(edge_human_corrected=1, relation="refutes", nli_label="refutes")
        )
    assert record_judgements(engine, {edge: Said("supports", 0.9)}) == 0
    with read(engine) as connection:
        assert connection.scalar(select(EDGES.c.relation).where(EDGES.c.id == edge)) == "refutes"


def test_unknown_edges_are_all_named_and_nothing_is_written(engine: Engine, world: World) -> None:
    with read(engine) as connection:
        origin = connection.scalar(select(EDGES.c.id).where(EDGES.c.relation == "origin"))
    said = dict.fromkeys([world.edges[0].id, "edge_x", origin], Said("supports", 0.9))
    with pytest.raises(InputError) as caught:
        record_judgements(engine, said)
    assert set(caught.value.problems) == {"edge_x", origin}
    with read(engine) as connection:
        assert connection.scalar(select(func.count(EDGES.c.nli_label))) == 0


def test_no_judgements_at_all(engine: Engine) -> None:
    assert record_judgements(engine, {}) == 0


def test_a_reviewer_who_never_slips_knows_the_truth(world: World) -> None:
    reviewer = Reviewer(world, slip_rate=0)
    assert all(reviewer.verdict(edge.id) == edge.label for edge in world.edges)


def test_a_reviewer_who_always_slips_is_always_wrong(world: World) -> None:
    reviewer = Reviewer(world, slip_rate=1)
    verdicts = Counter(reviewer.verdict(edge.id) for edge in world.edges)
    assert all(reviewer.verdict(edge.id) != edge.label for edge in world.edges)
    assert set(verdicts) == set(LABELS)


def test_slips_come_at_their_rate_whatever_the_order() -> None:
    world = build_world(4, 1500)
    reviewer, again = Reviewer(world, seed=2), Reviewer(world, seed=2)
    slips = {edge.id for edge in world.edges if reviewer.verdict(edge.id) != edge.label}
    assert 0.015 < len(slips) / len(world.edges) < 0.05
    backwards = {e.id for e in reversed(world.edges) if again.verdict(e.id) != e.label}
    assert backwards == slips
    other = Reviewer(world, seed=3)
    assert {edge.id for edge in world.edges if other.verdict(edge.id) != edge.label} != slips


@pytest.mark.parametrize("rate", [-0.1, 1.5])
def test_slip_rate_out_of_range(world: World, rate: float) -> None:
    with pytest.raises(InputError, match="between 0 and 1"):
        Reviewer(world, slip_rate=rate)


def test_unknown_edge(world: World) -> None:
    with pytest.raises(InputError, match="edge_x"):
        Reviewer(world).verdict("edge_x")
