"""Everything humans said about the model's judgements: read it, count it, mark it as used."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, cast

from sqlalchemy import Connection, Row, select, update

from lyra_nli.labels import LABELS, Label
from lyra_nli.records import Pair, Review
from lyra_nli.storage.engine import batches, utc
from lyra_nli.storage.generation import Generation
from lyra_nli.storage.runs import last_training_began
from lyra_nli.storage.tables import nli_corrections, nli_reviews, nli_versions
from lyra_nli.storage.verdicts import Trained, Verdicts


@dataclass(frozen=True, slots=True)
class ReviewSet:
    """What `read_reviews` found.

    Attributes:
        reviews: newest last.
        unusable: rows that say nothing we can read, each with its id and why.
    """

    reviews: list[Review]
    unusable: list[str]


@dataclass(frozen=True, slots=True)
class ReviewCounts:
    """How much there is to learn from. A judgement counts once, by its newest verdict.

    Attributes:
        reviewed: judgements that a human has confirmed or changed.
        corrected: those that were changed.
        corrected_unused: those that no adapter, or none of one base, was trained on.
    """

    reviewed: int
    corrected: int
    corrected_unused: int

    @property
    def correction_rate(self) -> float:
        """``corrected / reviewed``; 0 without reviews."""
        return self.corrected / self.reviewed if self.reviewed else 0.0


def read_reviews(connection: Connection, generation: Generation) -> ReviewSet:
    """Read all human verdicts: reviews, corrections without a review, agreed edges.

    Rows with empty texts are among them. A prediction that can't be read (older Lyra writes
    ``unknown``) is None; a verdict that can't be read makes the row unusable.
    """
    unusable: list[str] = []
    reviews = list(stream_reviews(connection, generation, unusable))
    reviews.sort(key=lambda review: (review.reviewed_at, review.id))
    return ReviewSet(reviews, unusable)


def stream_reviews(
    connection: Connection, generation: Generation, unusable: list[str]
) -> Iterator[Review]:
    """Read the same verdicts one by one, in memory for a few hundred.

    Ours come first, then corrections, then agreed edges, each by time and id.

    Args:
        connection: kept open until the last one is read.
        generation: what the database is.
        unusable: gets a line for each row that says nothing we can read.
    """
    for table, statement in _statements(generation, Verdicts(generation)):
        ordered = statement.order_by("reviewed_at", "id")
        for row in connection.execute(ordered, execution_options={"yield_per": 500}):
            try:
                yield _review(table, row)
            except ValueError as error:
                unusable.append(f"{table}:{row.id}: {error}")


def read_withdrawn(connection: Connection, generation: Generation) -> dict[str, list[str]]:
    """Read `Review.id` of the reviews that were taken back, by `Pair.key`."""
    found: dict[str, list[str]] = defaultdict(list)
    if generation.has("nli_reviews", "undone_at"):
        row = nli_reviews.c
        for key, name in connection.execute(
            select(row.pair_key, row.id).where(row.undone_at.is_not(None))
        ):
            found[key].append(f"nli_reviews:{name}")
    return found


def count_reviews(
    connection: Connection, generation: Generation, base_model: str | None = None
) -> ReviewCounts:
    """Count what `read_reviews` would read, in the database.

    Args:
        base_model: whose versions may have been trained on a row; None: those of any base.
    """
    trained = _trained(connection, base_model) if base_model and generation.has_reviews else None
    statement = Verdicts(generation).counts(trained)
    reviewed, corrected, unused = connection.execute(statement).one()
    return ReviewCounts(reviewed, corrected, unused)


def mark_trained(
    connection: Connection,
    generation: Generation,
    review_ids: Iterable[str],
    version_name: str,
    adapters_row_id: int | None,
) -> int:
    """Note on the rows that were trained on which adapter did it.

    Args:
        connection: in a transaction for writing.
        generation: what the database is.
        review_ids: `Review.id` of each; ids of edges and replayed pairs have no row to mark.
        version_name: the adapter version.
        adapters_row_id: its id in Lyra's ``adapters``, for ``trained_adapter_id``.

    Returns:
        How many rows of ``nli_reviews`` and ``nli_corrections`` were marked.
    """
    ids: dict[str, list[str]] = {"nli_reviews": [], "nli_corrections": []}
    for review_id in review_ids:
        table, _, key = review_id.partition(":")
        ids.get(table, []).append(key)
    marked = 0
    for keys in batches(ids["nli_reviews"]):
        linked = select(nli_reviews.c.correction_id).where(
            nli_reviews.c.id.in_(keys), nli_reviews.c.correction_id.is_not(None)
        )
        ids["nli_corrections"] += connection.scalars(linked)
        marked += connection.execute(
            update(nli_reviews)
            .where(nli_reviews.c.id.in_(keys))
            .values(trained_version=version_name)
        ).rowcount
    values: dict[str, int] = {"used_for_training": 1} if generation.has_used_for_training else {}
    if generation.has_trained_adapter_id and adapters_row_id is not None:
        values["trained_adapter_id"] = adapters_row_id
    if values:
        for keys in batches(ids["nli_corrections"]):
            marked += connection.execute(
                update(nli_corrections).where(nli_corrections.c.id.in_(keys)).values(**values)
            ).rowcount
    return marked


def _trained(connection: Connection, base_model: str) -> Trained:
    version = nli_versions.c
    names = connection.scalars(select(version.name).where(version.base_model == base_model))
    return Trained(tuple(names), last_training_began(connection, base_model) or "")


def graph_anchors(row: Row[Any]) -> list[str]:
    """Name what a row's edge stands on: ``page:…``, ``fragment:…``, ``claim:…``."""
    keys = {"page": row.page_id, "fragment": row.fragment_id, "claim": row.claim_id}
    return [f"{kind}:{key}" for kind, key in keys.items() if key is not None]


def _statements(generation: Generation, verdicts: Verdicts) -> Iterable[tuple[str, Any]]:
    if generation.has_reviews:
        yield "nli_reviews", verdicts.reviews()
    if generation.has_corrections:
        yield "nli_corrections", verdicts.corrections()
    if generation.has("edges", "edge_human_corrected"):
        yield "edges", verdicts.agreed_edges()


def _review(table: str, row: Row[Any]) -> Review:
    """Build a review from a row.

    Raises:
        ValueError: what of it can't be read.
    """
    if row.correct_label not in LABELS:
        raise ValueError(f"correct_label {row.correct_label!r} is none of {', '.join(LABELS)}")
    own = table == "nli_reviews"
    known = row.predicted_label in LABELS
    return Review(
        id=f"{table}:{row.id}",
        pair=Pair(_text(row.premise), _text(row.hypothesis)),
        label=cast("Label", row.correct_label),
        predicted_label=cast("Label", row.predicted_label) if known else None,
        predicted_confidence=_confidence(table, row.predicted_confidence) if known else None,
        reviewed_at=utc(row.reviewed_at),
        anchors=_anchors(row, row.anchors_json if own else "[]"),
        reviewer=row.reviewer if own else "",
        reason=row.reason or "",
        sampling=row.sampling if own else "unknown",
        source_url=(row.source_url if own else "") or row.page_url or "",
        edge_id=row.edge_id or "",
        predicted_by=(row.predicted_by if own else "") or "",
        people=row.people if own else 1,
    )


def _text(value: object) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise ValueError(f"a text is stored as {type(value).__name__}")
    return value


def _confidence(table: str, value: object) -> float | None:
    """Read a confidence; None where the number stands for something else.

    Lyra writes 0.0 in a correction when it kept none, and an agreed edge's 1.0 is what a
    review may have left there.
    """
    if not isinstance(value, int | float) or not 0.0 <= value <= 1.0:
        return None
    absent = {"nli_corrections": 0.0, "edges": 1.0}.get(table)
    return None if value == absent else float(value)


def _anchors(row: Row[Any], anchors_json: str) -> frozenset[str]:
    try:
        anchors = json.loads(anchors_json)
    except ValueError as error:
        raise ValueError("anchors_json is no JSON") from error
    if not isinstance(anchors, list) or not all(isinstance(anchor, str) for anchor in anchors):
        raise ValueError("anchors_json is no list of texts")
    return frozenset([*anchors, *graph_anchors(row)])
