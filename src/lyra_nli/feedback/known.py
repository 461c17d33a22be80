"""Which reviews a database has already: what makes two of them the same one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection, null, or_, select

from lyra_nli.feedback.fields import ImportRow
from lyra_nli.records import Review
from lyra_nli.storage.engine import utc
from lyra_nli.storage.generation import Generation
from lyra_nli.storage.tables import nli_reviews
from lyra_nli.storage.verdicts import Verdicts

_OURS = "nli_reviews:"
_MAX_ID_CHARS = 64


class Content(NamedTuple):
    """What a review without an id is known by. Empty time or edge: not said."""

    premise: str
    hypothesis: str
    label: str
    reviewer: str
    reviewed_at: str
    edge_id: str = ""

    def may_be(self, stored: Content) -> bool:
        """Whether this row of a file can be that stored review, what it does not say aside."""
        return (
            self[:4] == stored[:4]
            and self.reviewed_at in ("", stored.reviewed_at)
            and self.edge_id in ("", stored.edge_id)
        )

    def forms(self) -> set[Content]:
        """The ways in which files tell of this review: with its edge, and without."""
        return {self, self._replace(edge_id="")}


def content_of(row: ImportRow) -> Content:
    """Tell what a row of a file is known by."""
    pair, at = row.pair, row.reviewed_at or ""
    return Content(pair.premise, pair.hypothesis, row.correct_label, row.reviewer, at, row.edge_id)


def row_id(row: ImportRow) -> str:
    """Give a row the id it brings, or one made of its content.

    So a row without a time, which gets the time of its import, is known again later.
    """
    content = content_of(row)
    return row.id or _hashed(list(content if row.edge_id else content[:5]))


def export_id(review: Review) -> str:
    """Give a review the id by which an import knows it again, in this database and others.

    That is its own in ``nli_reviews``; a correction's or an agreed edge's names the table too.
    """
    if review.id.startswith(_OURS):
        return review.id.removeprefix(_OURS)
    return review.id if len(review.id) <= _MAX_ID_CHARS else _hashed(review.id)


class Known:
    """Looks up what a database has, in ``nli_reviews`` and in Lyra's own tables."""

    def __init__(self, connection: Connection, generation: Generation) -> None:
        self.connection = connection
        self.tables = Verdicts(generation)

    def find(self, rows: Mapping[str, ImportRow]) -> tuple[dict[str, Content], set[Content]]:
        """Find the reviews that may be any of these rows.

        Args:
            rows: by `row_id`.

        Returns:
            The content of each id that is taken, and all forms of the content of what
            ``nli_reviews`` has.
        """
        keys = [row.pair.key for row in rows.values()]
        columns = nli_reviews.c
        statement = select(
            columns.id,
            columns.premise,
            columns.hypothesis,
            columns.correct_label,
            columns.reviewer,
            columns.reviewed_at,
            columns.edge_id,
        ).where(or_(columns.pair_key.in_(keys), columns.id.in_(rows)))
        ours = dict(map(_content, self.connection.execute(statement)))
        contents = {form for content in ours.values() for form in content.forms()}
        # An edge changes with every verdict: what it said before is another review.
        lyras = {
            given: content
            for given, content in (*self._corrections(rows), *self._edges(rows))
            if content_of(rows[given]).may_be(content)
        }
        return ours | lyras, contents

    def _corrections(self, ids: Iterable[str]) -> Iterator[tuple[str, Content]]:
        generation, row = self.tables.generation, self.tables.correction
        keys = _keys("nli_corrections:", ids)
        if not keys or not generation.has_corrections:
            return
        hypothesis = row.c[generation.corrections_hypothesis]
        statement = select(row.c.id, row.c.premise, hypothesis, row.c.correct_label, null())
        statement = statement.add_columns(row.c.corrected_at, row.c.edge_id)
        for found in self.connection.execute(statement.where(row.c.id.in_(keys))):
            yield _content(("nli_corrections:" + found.id, *found[1:]))

    def _edges(self, ids: Iterable[str]) -> Iterator[tuple[str, Content]]:
        edge = self.tables.edge
        keys = _keys("edges:", ids)
        if not keys or not self.tables.generation.has_edges:
            return
        statement = self.tables.edge_texts().where(edge.c.id.in_(keys))
        for found in self.connection.execute(statement.where(edge.c.edge_human_corrected == 1)):
            texts = (found.premise, found.hypothesis, found.label, "")
            yield _content((f"edges:{found.id}", *texts, found.edge_corrected_at, found.id))


def _keys(prefix: str, ids: Iterable[str]) -> list[str]:
    return [given.removeprefix(prefix) for given in ids if given.startswith(prefix)]


def _content(row: Sequence[Any]) -> tuple[str, Content]:
    key, premise, hypothesis, label, reviewer, at, edge_id = row
    return key, Content(premise, hypothesis, label, reviewer or "", utc(at), edge_id or "")


def _hashed(content: object) -> str:
    digest = hashlib.sha256(json.dumps(content).encode()).hexdigest()
    return f"nlr_{digest[:24]}"
