"""The queries for everything humans said: one set of selects, used to read and to count.

A human verdict is a row of ``nli_reviews``, a row of ``nli_corrections`` that no review is
linked to, or an edge that was reviewed without either: then the human agreed. A review that
was undone is no verdict, and neither is the correction that it wrote.

Rows that have no partner in another table are found by an outer join with its distinct ids,
not by a correlated EXISTS: a database that was never upgraded may have no index for that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    ColumnElement,
    FromClause,
    Select,
    Subquery,
    TableClause,
    and_,
    case,
    column,
    false,
    func,
    literal,
    null,
    or_,
    select,
    table,
    true,
    union,
    union_all,
)

from lyra_nli.labels import LABELS
from lyra_nli.storage.generation import Generation


def edge_label(edge: FromClause) -> ColumnElement[Any]:
    """Tell an edge's judgement: the model's label, or the relation where it has none."""
    return case((edge.c.nli_label.in_(LABELS), edge.c.nli_label), else_=edge.c.relation)


@dataclass(frozen=True, slots=True)
class Trained:
    """What the versions of one base have learned from.

    Attributes:
        versions: their names.
        until: when the last training of that base began, ISO-8601; empty: there was none.
    """

    versions: tuple[str, ...]
    until: str


class Verdicts:
    """The selects for one database, under the names that it uses.

    Attributes:
        review, correction, edge, fragment, claim, page: the tables; one that the database
            has not is there without columns.
    """

    def __init__(self, generation: Generation) -> None:
        self.generation = generation
        self.review = self._table("nli_reviews")
        self.correction = self._table("nli_corrections")
        self.edge = self._table("edges")
        self.fragment = self._table("fragments")
        self.claim = self._table("claims")
        self.page = self._table("pages")

    def reviews(self) -> Select[Any]:
        """Select the rows of ``nli_reviews`` that stand."""
        review = self.review
        origin = self._with_edge(review, review.c.edge_id)
        return (
            select(review, (1 + self._seconded()).label("people"), *self._anchors())
            .select_from(self._with_source(origin))
            .where(self.stands())
        )

    def _seconded(self) -> ColumnElement[int]:
        """Count the blind second looks at a review that came to the same label."""
        if not self.generation.has("nli_second_reviews", "label"):
            return literal(0)
        second = self._table("nli_second_reviews")
        same = (second.c.review_id == self.review.c.id) & (
            second.c.label == self.review.c.correct_label
        )
        return select(func.count()).select_from(second).where(same).scalar_subquery()

    def stands(self) -> ColumnElement[bool]:
        """Tell whether a row of ``nli_reviews`` was not undone."""
        if "undone_at" not in self.review.c:
            return true()
        return self.review.c.undone_at.is_(None)

    def correction_stands(self, row: FromClause) -> ColumnElement[bool]:
        """Tell whether a row of ``nli_corrections`` is not that of an undone review."""
        if "undone_at" not in self.review.c:
            return true()
        undone = self._table("nli_reviews").alias("undone")
        return row.c.id.not_in(
            select(undone.c.correction_id).where(
                undone.c.undone_at.is_not(None), undone.c.correction_id.is_not(None)
            )
        )

    def corrections(self) -> Select[Any]:
        """Select the rows of ``nli_corrections`` that no row of ``nli_reviews`` is linked to."""
        row, model = self.correction, self._model_predictions()
        has_reason = self.generation.has("nli_corrections", "reason")
        rows, unlinked = self._unlinked(row.join(model, model.c.id == row.c.id))
        return (
            select(
                row.c.id,
                row.c.edge_id,
                row.c.premise,
                row.c[self.generation.corrections_hypothesis].label("hypothesis"),
                model.c.predicted_label,
                model.c.predicted_confidence,
                row.c.correct_label,
                (row.c.reason if has_reason else null()).label("reason"),
                row.c.corrected_at.label("reviewed_at"),
                *self._anchors(),
            )
            .select_from(self._with_source(self._with_edge(rows, row.c.edge_id)))
            .where(unlinked)
        )

    def agreed_edges(self) -> Select[Any]:
        """Select the reviewed edges that have neither a correction nor a review."""
        edge, claim = self.edge, self.claim
        noted = self.generation.has("edges", "edge_correction_reason", "edge_corrected_at")
        edges, agreed = self._agreed()
        origin = self._with_claim(self._with_source(edges))
        return (
            select(
                edge.c.id,
                edge.c.id.label("edge_id"),
                self.fragment.c.text_content.label("premise"),
                claim.c.claim_text.label("hypothesis"),
                edge_label(edge).label("correct_label"),
                edge_label(edge).label("predicted_label"),
                edge.c[self.generation.edge_confidence].label("predicted_confidence"),
                (edge.c.edge_correction_reason if noted else null()).label("reason"),
                (edge.c.edge_corrected_at if noted else null()).label("reviewed_at"),
                *self._anchors(),
            )
            .select_from(origin)
            .where(agreed)
        )

    def edge_texts(self) -> Select[Any]:
        """Select an edge as a reviewer needs it: its judgement, its texts, its state."""
        edge, fragment, claim = self.edge, self.fragment, self.claim
        has_task = self.generation.has("claims", "task_id")
        origin = self._with_claim(self._with_source(edge))
        return select(
            edge.c.id,
            edge.c.relation,
            edge_label(edge).label("label"),
            edge.c[self.generation.edge_confidence].label("confidence"),
            edge.c.nli_label,
            edge.c.edge_human_corrected,
            edge.c.get("edge_correction_reason", null()).label("edge_correction_reason"),
            edge.c.get("edge_corrected_at", null()).label("edge_corrected_at"),
            func.coalesce(fragment.c.text_content, "").label("premise"),
            func.coalesce(claim.c.claim_text, "").label("hypothesis"),
            (claim.c.task_id if has_task else null()).label("task_id"),
            *self._anchors(),
        ).select_from(origin)

    def counts(self, trained: Trained | None = None) -> Select[int, int, int]:
        """Count judgements that were reviewed, corrected, and corrected but not trained on.

        A judgement counts once, however many people reviewed it; the newest verdict
        decides. Verdicts whose label can't be read don't count.

        Args:
            trained: of which base a version must have been trained on it; None: of any.
        """
        newest = self._newest(trained)
        changed = and_(
            newest.c.predicted_label.in_(LABELS),
            newest.c.predicted_label != newest.c.correct_label,
        )
        unused = and_(changed, newest.c.trained == 0)
        agreed: ColumnElement[int] = literal(0)
        if self.generation.has("edges", "edge_human_corrected"):
            edges, condition = self._agreed()
            agreed = select(func.count()).select_from(edges).where(condition).scalar_subquery()
        return select(
            (func.count() + agreed).label("reviewed"),
            func.count(case((changed, 1))).label("corrected"),
            func.count(case((unused, 1))).label("corrected_unused"),
        ).select_from(newest)

    def _newest(self, trained: Trained | None) -> Subquery:
        """Select each judgement's newest readable verdict."""
        parts = []
        if self.generation.has_reviews:
            parts.append(self._review_marks(trained))
        if self.generation.has_corrections:
            parts.append(self._correction_marks(trained))
        if not parts:
            names = ("predicted_label", "correct_label", "trained")
            return select(*(null().label(name) for name in names)).where(false()).subquery()
        every = union_all(*parts).subquery("every")
        rank = func.row_number().over(
            partition_by=every.c.judgement,
            order_by=(every.c.reviewed_at.desc(), every.c.id.desc()),
        )
        readable = every.c.correct_label.in_(LABELS)
        ranked = select(every, rank.label("rank")).where(readable).subquery("ranked")
        return select(ranked).where(ranked.c.rank == 1).subquery("newest")

    def _review_marks(self, of: Trained | None) -> Select[Any]:
        review, row = self.review, self.correction
        trained: ColumnElement[bool] = review.c.trained_version.is_not(None)
        origin: FromClause = review
        if self.generation.has_corrections:
            origin = review.outerjoin(row, row.c.id == review.c.correction_id)
            trained = or_(trained, self._is_trained())
        if of is not None:
            # Only the last version to learn from a row is noted: of a row that another base's
            # version learned from later, the time of the review tells (none is kept of an import).
            before = and_(trained, review.c.reviewed_at <= of.until)
            trained = or_(review.c.trained_version.in_(of.versions), before)
        return (
            select(
                func.coalesce(
                    literal("edge:") + review.c.edge_id, literal("review:") + review.c.id
                ).label("judgement"),
                review.c.id,
                review.c.predicted_label,
                review.c.correct_label,
                review.c.reviewed_at,
                case((trained, 1), else_=0).label("trained"),
            )
            .select_from(origin)
            .where(self.stands())
        )

    def _correction_marks(self, of: Trained | None) -> Select[Any]:
        row, model = self.correction, self._model_predictions()
        trained = self._is_trained()
        if of is not None:
            trained = and_(trained, row.c.corrected_at <= of.until)
        rows, unlinked = self._unlinked(row.join(model, model.c.id == row.c.id))
        return (
            select(
                func.coalesce(
                    literal("edge:") + row.c.edge_id, literal("correction:") + row.c.id
                ).label("judgement"),
                row.c.id,
                model.c.predicted_label,
                row.c.correct_label,
                row.c.corrected_at.label("reviewed_at"),
                case((trained, 1), else_=0).label("trained"),
            )
            .select_from(rows)
            .where(unlinked)
        )

    def _is_trained(self) -> ColumnElement[bool]:
        row = self.correction
        marks: list[ColumnElement[bool]] = []
        if self.generation.has_trained_adapter_id:
            marks.append(row.c.trained_adapter_id.is_not(None))
        if self.generation.has_used_for_training:
            marks.append(row.c.used_for_training != 0)
        return or_(false(), *marks)

    def _model_predictions(self) -> Subquery:
        """Tell for each correction what the model had said.

        When an edge is corrected twice, Lyra notes the first human's label, at confidence
        1.0, as the second row's "prediction". The model's own is in the edge's first row.
        """
        row = self._table("nli_corrections").alias("each")
        each_edge: dict[str, Any] = {
            "partition_by": func.coalesce(row.c.edge_id, row.c.id),
            "order_by": (row.c.corrected_at, row.c.id),
        }
        first_label = func.first_value(row.c.predicted_label).over(**each_edge)
        first_confidence = func.first_value(row.c.predicted_confidence).over(**each_edge)
        by_human = and_(
            row.c.predicted_confidence >= 1.0,
            row.c.predicted_label == func.lag(row.c.correct_label).over(**each_edge),
        )
        return (
            select(
                row.c.id,
                case((by_human, first_label), else_=row.c.predicted_label).label("predicted_label"),
                case((by_human, first_confidence), else_=row.c.predicted_confidence).label(
                    "predicted_confidence"
                ),
            )
            .where(self.correction_stands(row))
            .subquery("model")
        )

    def _unlinked(self, rows: FromClause) -> tuple[FromClause, ColumnElement[bool]]:
        """Join what tells corrections that a review is linked to; the condition drops them."""
        if not self.generation.has_reviews:
            return rows, literal(1) == 1
        linked = select(self.review.c.correction_id).distinct().subquery("linked")
        joined = rows.outerjoin(linked, linked.c.correction_id == self.correction.c.id)
        return joined, linked.c.correction_id.is_(None)

    def _agreed(self) -> tuple[FromClause, ColumnElement[bool]]:
        """Join what tells edges that have a row of their own; the condition drops them."""
        edge = self.edge
        reviewed = and_(edge.c.edge_human_corrected == 1, edge_label(edge).in_(LABELS))
        rows = []
        if "edge_id" in self.correction.c:
            standing = self.correction_stands(self.correction)
            rows.append(select(self.correction.c.edge_id).where(standing))
        if "edge_id" in self.review.c:
            rows.append(select(self.review.c.edge_id).where(self.stands()))
        if not rows:
            return edge, reviewed
        seen = union(*rows).subquery("seen")
        joined = edge.outerjoin(seen, seen.c.edge_id == edge.c.id)
        return joined, and_(reviewed, seen.c.edge_id.is_(None))

    def _with_edge(self, origin: FromClause, edge_id: ColumnElement[Any]) -> FromClause:
        if not self.generation.has_edges:
            return origin
        return origin.outerjoin(self.edge, self.edge.c.id == edge_id)

    def _with_source(self, origin: FromClause) -> FromClause:
        """Join an edge's fragment, and that fragment's page."""
        if not self.generation.has_edges:
            return origin
        edge, fragment, page = self.edge, self.fragment, self.page
        origin = origin.outerjoin(
            fragment, and_(edge.c.source_type == "fragment", fragment.c.id == edge.c.source_id)
        )
        if "url" in page.c:
            origin = origin.outerjoin(page, page.c.id == fragment.c.page_id)
        return origin

    def _with_claim(self, origin: FromClause) -> FromClause:
        edge, claim = self.edge, self.claim
        return origin.outerjoin(
            claim, and_(edge.c.target_type == "claim", claim.c.id == edge.c.target_id)
        )

    def _anchors(self) -> list[ColumnElement[Any]]:
        """Select what a verdict stands on."""
        if not self.generation.has_edges:
            names = ("fragment_id", "claim_id", "page_id", "page_url")
            return [null().label(name) for name in names]
        edge, url = self.edge, self.page.c.get("url", null())
        return [
            case((edge.c.source_type == "fragment", edge.c.source_id)).label("fragment_id"),
            case((edge.c.target_type == "claim", edge.c.target_id)).label("claim_id"),
            self.fragment.c.page_id.label("page_id"),
            url.label("page_url"),
        ]

    def _table(self, name: str) -> TableClause:
        return table(name, *map(column, sorted(self.generation.columns.get(name, ()))))
