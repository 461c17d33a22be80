"""What a shadow leaves behind: how often two versions agree, and the pairs on which they don't."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import Connection, delete, insert, select, update

from lyra_nli.labels import LABELS
from lyra_nli.records import Judgement, Pair
from lyra_nli.registry.trial_rows import Trial
from lyra_nli.storage.engine import insert_into, new_id, now
from lyra_nli.storage.tables import nli_comparisons, nli_disagreements, nli_queue_scores

Row = dict[str, Any]

MAX_CHARS: Final = 20_000
"""A longer pair is counted and its texts are not kept; no model reads that far."""

SOURCE: Final = "shadow"
"""Who put an edge into the queue."""


@dataclass(frozen=True, slots=True)
class JudgedTwice:
    """A live pair that two versions judged.

    Attributes:
        at: ISO-8601, UTC.
        one: what it was answered, by the active version.
        other: what the shadow says.
        pair_id: what the caller calls it; Lyra sends the edge's id.
        source: the URL that the premise comes from; empty where nobody said.
    """

    at: str
    trial: Trial
    pair: Pair
    one: Judgement
    other: Judgement
    pair_id: str
    source: str


@dataclass(slots=True)
class Period:
    """What one server counted in some time: one row of ``nli_comparisons``.

    Attributes:
        one: the active version.
        labels: how many pairs got which labels: the active version's by the shadow's.
        shift: sum over the pairs of the shadow's confidence less the active version's.
        skipped: pairs that were drawn and not judged.
        began: monotonic seconds.
    """

    trial: Trial
    one: str
    began: float
    id: str = field(default_factory=lambda: new_id("ncmp"))
    at: str = field(default_factory=now)
    labels: list[list[int]] = field(default_factory=lambda: [[0] * len(LABELS) for _ in LABELS])
    shift: float = 0.0
    skipped: int = 0

    def add(self, judged: JudgedTwice) -> None:
        """Count a pair."""
        self.labels[LABELS.index(judged.one.label)][LABELS.index(judged.other.label)] += 1
        self.shift += judged.other.confidence - judged.one.confidence

    def values(self) -> Row:
        """The row, as `comparison` writes it too."""
        compared = sum(map(sum, self.labels))
        agreed = sum(self.labels[i][i] for i in range(len(LABELS)))
        details = {
            "labels": self.labels,
            "confidence_shift": self.shift / compared if compared else None,
            "skipped": self.skipped,
            "trial": self.trial.id,
        }
        return {
            "id": self.id,
            "at": self.at,
            "kind": "shadow",
            "base_model": self.trial.base_model,
            "one": self.one,
            "other": self.trial.version,
            "compared": compared,
            "disagreed": compared - agreed,
            "details_json": json.dumps(details),
        }


def write_period(connection: Connection, row: Row) -> None:
    """Write what was counted so far: again and again, into one row."""
    own = nli_comparisons.c.id == row["id"]
    if not connection.execute(update(nli_comparisons).where(own).values(row)).rowcount:
        connection.execute(insert(nli_comparisons).values(row))


def disagreement(judged: JudgedTwice, edge_id: str | None) -> Row | None:
    """The row of a pair that got two labels; None for a text that is too long or can't be kept."""
    one, other = judged.one, judged.other
    texts = judged.pair.premise + judged.pair.hypothesis
    if len(texts) > MAX_CHARS or not storable(texts + judged.source):
        return None
    distance = sum(abs(one.probabilities[label] - other.probabilities[label]) for label in LABELS)
    answers = {
        name: {label: round(said.probabilities[label], 4) for label in LABELS}
        for name, said in ((one.adapter, one), (other.adapter, other))
    }
    return {
        "trial_id": judged.trial.id,
        "at": judged.at,
        "pair_key": judged.pair.key,
        "edge_id": edge_id,
        "premise": judged.pair.premise,
        "hypothesis": judged.pair.hypothesis,
        "source_url": judged.source,
        "score": distance / 2,
        "answers_json": json.dumps(answers),
    }


def write_disagreements(connection: Connection, rows: Sequence[Row], keep: int) -> None:
    """Keep pairs that got two labels, each once a trial, and let the oldest go.

    Args:
        keep: rows that the table may hold.
    """
    table = nli_disagreements
    if rows:
        statement = insert_into(connection, table)
        connection.execute(statement.on_conflict_do_nothing(), list(rows))
    newest = select(table.c.id).order_by(table.c.id.desc()).offset(keep).limit(1)
    surplus = connection.scalar(newest)
    if surplus is not None:
        connection.execute(delete(table).where(table.c.id <= surplus))


def put_into_queue(connection: Connection, rows: Iterable[Row]) -> None:
    """Put the edges of disagreements into the queue's order ``disagree``; who is there stays."""
    scores = [
        {
            "kind": "disagree",
            "edge_id": row["edge_id"],
            "score": row["score"],
            "detail_json": row["answers_json"],
            "source": SOURCE,
            "at": row["at"],
        }
        for row in rows
        if row["edge_id"]
    ]
    if scores:
        statement = insert_into(connection, nli_queue_scores)
        connection.execute(statement.on_conflict_do_nothing(), scores)


def without_edge(connection: Connection, after: int, limit: int) -> list[Row]:
    """Read disagreements whose edge is not known, oldest first, from an id on."""
    table = nli_disagreements
    query = select(table).where(table.c.id > after, table.c.edge_id.is_(None))
    found = connection.execute(query.order_by(table.c.id).limit(limit))
    return [dict(row) for row in found.mappings()]


def name_edge(connection: Connection, row: Row, edge_id: str) -> Row:
    """Write down the edge of a disagreement."""
    table = nli_disagreements
    connection.execute(update(table).where(table.c.id == row["id"]).values(edge_id=edge_id))
    return {**row, "edge_id": edge_id}


def storable(text: str) -> bool:
    """No database holds half surrogate pairs, PostgreSQL no NUL."""
    return "\0" not in text and not any("\ud800" <= letter <= "\udfff" for letter in text)
