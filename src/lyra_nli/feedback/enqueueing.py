"""Judged pairs into the review queue, in a database where no Lyra puts them there.

A pair becomes what Lyra would have made of it: a page, a fragment of it (the premise), a claim (the
hypothesis) and an edge between these, with the model's judgement. Ids are made of the texts, so a
pair is known again, and two pairs of one page or claim stand together when rows are split.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Engine, Table, insert, select

from lyra_nli.errors import StorageError
from lyra_nli.feedback.fields import MAX_NOTE_CHARS, fault
from lyra_nli.hosts import site_of
from lyra_nli.labels import Label
from lyra_nli.records import MAX_TEXT_CHARS, Pair
from lyra_nli.storage import tables
from lyra_nli.storage.engine import lock, now, read, write
from lyra_nli.storage.generation import Generation


@dataclass(frozen=True, slots=True)
class Source:
    """A pair and the URL that its premise comes from, empty where nobody knows.

    Without a URL a premise is a page of its own.
    """

    pair: Pair
    url: str = ""

    @property
    def page_id(self) -> str:
        """The id of the page."""
        return _id("page", self.url or ["", self.pair.premise])

    @property
    def fragment_id(self) -> str:
        """The id of the fragment: the same words on two pages are two."""
        return _id("frag", [self.page_id, self.pair.premise])

    @property
    def claim_id(self) -> str:
        """The id of the claim."""
        return _id("claim", self.pair.hypothesis)

    @property
    def edge_id(self) -> str:
        """The id of the edge."""
        return _id("edge", [self.fragment_id, self.claim_id])

    def faults(self) -> Iterator[str]:
        """Tell why it can't be stored."""
        limit = MAX_NOTE_CHARS["source_url"]
        for name, text, most in (
            ("premise", self.pair.premise, MAX_TEXT_CHARS),
            ("hypothesis", self.pair.hypothesis, MAX_TEXT_CHARS),
            ("source_url", self.url, limit),
        ):
            if words := fault(text, most):
                yield f"{name}: {words}"


@dataclass(frozen=True, slots=True)
class Judged:
    """A pair, and what a model said of it: a label and its probability."""

    source: Source
    label: Label
    confidence: float


def require_ours(generation: Generation) -> None:
    """Stop where the evidence graph is Lyra's own: Lyra puts its pairs there itself.

    Raises:
        StorageError: the database was not made by `lyra-nli db init`, or is to be upgraded.
    """
    generation.require_upgraded()
    graph = (tables.pages, tables.fragments, tables.claims, tables.edges)
    own = all(generation.columns.get(each.name) == frozenset(each.c.keys()) for each in graph)
    if generation.name != "lyra-nli" or not own:
        raise StorageError(
            "this database is one of Lyra's, which fills the queue itself",
            hint="Make one of your own with `lyra-nli db init --db PATH`.",
        )


def queued(engine: Engine, edge_ids: Iterable[str]) -> set[str]:
    """Find which of these edges are there already, reviewed or not."""
    with read(engine) as connection:
        return _known(connection, tables.edges, edge_ids)


def enqueue(engine: Engine, judged: Sequence[Judged]) -> int:
    """Put judged pairs before the reviewers, in one transaction; those that are there stay.

    Returns:
        How many are new.

    Raises:
        StorageError: when the database can't be written.
    """
    at = now()
    with write(engine) as connection:
        lock(connection, tables.pages)  # of two that enqueue, one waits; nobody else writes there
        for table, row_of in _ROWS:
            _insert_missing(connection, table, dict(row_of(each.source) for each in judged))
        edges = {each.source.edge_id: _edge(each, at) for each in judged}
        return _insert_missing(connection, tables.edges, edges)


def _insert_missing(
    connection: Connection, table: Table, rows: Mapping[str, Mapping[str, Any]]
) -> int:
    known = _known(connection, table, rows)
    new = [{"id": key, **row} for key, row in rows.items() if key not in known]
    if new:
        connection.execute(insert(table), new)
    return len(new)


def _known(connection: Connection, table: Table, ids: Iterable[str]) -> set[str]:
    return set(connection.scalars(select(table.c.id).where(table.c.id.in_(list(ids)))))


def _page(source: Source) -> tuple[str, dict[str, Any]]:
    return source.page_id, {"url": source.url, "domain": site_of(source.url)}


def _fragment(source: Source) -> tuple[str, dict[str, Any]]:
    return source.fragment_id, {"page_id": source.page_id, "text_content": source.pair.premise}


def _claim(source: Source) -> tuple[str, dict[str, Any]]:
    return source.claim_id, {"claim_text": source.pair.hypothesis}


_ROWS = ((tables.pages, _page), (tables.fragments, _fragment), (tables.claims, _claim))


def _edge(judged: Judged, at: str) -> dict[str, Any]:
    return {
        "source_type": "fragment",
        "source_id": judged.source.fragment_id,
        "target_type": "claim",
        "target_id": judged.source.claim_id,
        "relation": judged.label,
        "nli_label": judged.label,
        "nli_confidence": judged.confidence,
        "edge_human_corrected": 0,
        "created_at": at,
    }


def _id(kind: str, content: object) -> str:
    return f"{kind}_{hashlib.sha256(json.dumps(content).encode()).hexdigest()[:24]}"
