"""The sample project as rows of a Lyra database, and a reviewer who knows the truth."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from random import Random
from typing import Any, Protocol

from sqlalchemy import Engine, bindparam, insert, select, update

from lyra_nli.demo.world import World
from lyra_nli.errors import InputError
from lyra_nli.labels import LABELS, Label
from lyra_nli.storage import tables
from lyra_nli.storage.engine import now, read, write

_TASK = "task_demo"


class Judged(Protocol):
    """What a model said about a pair; `lyra_nli.records.Judgement` is one."""

    @property
    def label(self) -> Label:
        """The label with the highest probability."""

    @property
    def confidence(self) -> float:
        """Its probability."""


def write_project(engine: Engine, world: World) -> None:
    """Write pages, fragments, claims and unjudged edges, in one transaction.

    As in a Lyra database in use, every claim also has an ``origin`` edge to the page that it
    was taken from: those are no judgements, and nothing may count them as such.

    Args:
        engine: a database with Lyra's tables.
        world: the project.

    Raises:
        StorageError: when the database can't be written, or holds this project already.
    """
    at = now()
    with write(engine) as connection:
        for table, rows in (
            (tables.pages, [_page(page) for page in world.pages]),
            (tables.fragments, [_fragment(fragment) for fragment in world.fragments]),
            (tables.claims, [_claim(claim) for claim in world.claims]),
            (tables.edges, _judgement_edges(world, at) + _origin_edges(world, at)),
        ):
            connection.execute(insert(table), rows)


def record_judgements(engine: Engine, judgements: Mapping[str, Judged]) -> int:
    """Keep what a model said about edges, as Lyra does after asking it.

    Edges that a human has corrected keep the human's label.

    Args:
        engine: a database with the project.
        judgements: by edge id.

    Returns:
        How many edges were changed.

    Raises:
        InputError: for ids of no edge between a fragment and a claim; nothing is written.
        StorageError: when the database can't be written.
    """
    edges = tables.edges
    with read(engine) as connection:
        known = set(
            connection.scalars(
                select(edges.c.id).where(
                    edges.c.source_type == "fragment", edges.c.target_type == "claim"
                )
            )
        )
    unknown = sorted(set(judgements) - known)
    if unknown:
        raise InputError("there are judgements of edges that do not exist", problems=unknown)
    if not judgements:
        return 0
    statement = (
        update(edges)
        .where(edges.c.id == bindparam("edge"), edges.c.edge_human_corrected == 0)
        .values(
            relation=bindparam("said"),
            nli_label=bindparam("said"),
            nli_confidence=bindparam("sure"),
        )
    )
    rows = [
        {"edge": edge, "said": judged.label, "sure": judged.confidence}
        for edge, judged in judgements.items()
    ]
    with write(engine) as connection:
        return connection.execute(statement, rows).rowcount


class Reviewer:
    """A simulated person who knows the truth and now and then slips.

    The verdict on an edge depends on the seed and the edge alone, not on the order of
    questions: asked twice, the reviewer says the same.

    Args:
        world: where the truth stands.
        slip_rate: share of verdicts that are one of the two wrong labels.
        seed: another seed, other slips.
    """

    def __init__(self, world: World, *, slip_rate: float = 0.03, seed: int = 13) -> None:
        if not 0 <= slip_rate <= 1:
            raise InputError(f"a slip rate lies between 0 and 1, not at {slip_rate}")
        self._truth = {edge.id: edge.label for edge in world.edges}
        self._slip_rate = slip_rate
        self._seed = seed

    def verdict(self, edge_id: str) -> Label:
        """The reviewer's label for an edge.

        Raises:
            InputError: for an edge of no part of the project.
        """
        if edge_id not in self._truth:
            raise InputError(f"the reviewer does not know the edge {edge_id!r}")
        truth = self._truth[edge_id]
        rng = Random(f"{self._seed}:{edge_id}")
        if rng.random() >= self._slip_rate:
            return truth
        return rng.choice([label for label in LABELS if label != truth])


def _page(page: Any) -> dict[str, Any]:
    return {"id": page.id, "url": page.url, "domain": page.domain, "title": page.title}


def _fragment(fragment: Any) -> dict[str, Any]:
    return {"id": fragment.id, "page_id": fragment.page_id, "text_content": fragment.text}


def _claim(claim: Any) -> dict[str, Any]:
    return {"id": claim.id, "task_id": _TASK, "claim_text": claim.text}


def _judgement_edges(world: World, at: str) -> list[dict[str, Any]]:
    return [
        {
            "id": edge.id,
            "source_type": "fragment",
            "source_id": edge.fragment_id,
            "target_type": "claim",
            "target_id": edge.claim_id,
            # Lyra has no word for "not judged yet"; an empty nli_label says it.
            "relation": "neutral",
            "edge_human_corrected": 0,
            "created_at": at,
        }
        for edge in world.edges
    ]


def _origin_edges(world: World, at: str) -> list[dict[str, Any]]:
    first_page = {page.topic: page.id for page in reversed(world.pages)}
    return [
        {
            "id": f"edge_{hashlib.sha256(f'origin:{claim.id}'.encode()).hexdigest()[:16]}",
            "source_type": "claim",
            "source_id": claim.id,
            "target_type": "page",
            "target_id": first_page[claim.topic],
            "relation": "origin",
            "edge_human_corrected": 0,
            "created_at": at,
        }
        for claim in world.claims
    ]
