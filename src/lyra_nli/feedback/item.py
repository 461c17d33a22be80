"""What a reviewer is handed: an edge with all there is to know about it, and its lease."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from sqlalchemy import Connection, Row, null, select

from lyra_nli.feedback import leases
from lyra_nli.feedback.draws import Drawn
from lyra_nli.feedback.leases import Purpose
from lyra_nli.feedback.ledger import edge_version
from lyra_nli.feedback.sites import describe_site
from lyra_nli.labels import Label
from lyra_nli.records import Sampling
from lyra_nli.storage.generation import Generation
from lyra_nli.storage.tables import nli_reviews
from lyra_nli.storage.verdicts import Verdicts


@dataclass(frozen=True, slots=True)
class QueueItem:
    """An edge that is worth a human's look.

    Attributes:
        relation: the label that stands; None in a second look, which is blind.
        confidence: the model's; None when nobody kept it, and in a second look.
        reason_for: the order that brought it up, ``random``, or ``second``.
        sampling: ``random`` for the share that was drawn at random, else ``queue``.
        edge_version: to be given back with the verdict, see `feedback.edges.edge_version`.
        lease: the token of the lease; None when nothing was leased.
        purpose: ``first``: judge it by `edge_correct`; ``second``: by `second_review`.
        score: how suspect or how much in dispute, in those orders.
        detail: what the score was made of.
        reviewed_before: label, reviewer and time of the verdict that stands; None without
            one, and in a second look.
        claim_adoption_status: ``not_adopted`` when a person has rejected the claim, for
            ``claim_rejection_reason``; ``adopted``, without a reason, in a second look.
        site: what the domain rules say about the source, see `feedback.sites`; None when it
            has no address, and in a second look.
    """

    edge_id: str
    premise: str
    hypothesis: str
    relation: Label | None
    confidence: float | None
    reason_for: str
    sampling: Sampling
    edge_version: str
    source_url: str
    page_title: str
    task_id: str | None
    lease: str | None
    purpose: Purpose
    score: float | None = None
    detail: Mapping[str, Any] = field(default_factory=dict)
    reviewed_before: Mapping[str, str] | None = None
    claim_id: str | None = None
    claim_adoption_status: str = "adopted"
    claim_rejection_reason: str = ""
    site: Mapping[str, str] | None = None


class Hand:
    """Hands out edges within one transaction of the caller's.

    Args:
        lease_seconds: None hands out without leases.
    """

    def __init__(
        self,
        connection: Connection,
        generation: Generation,
        reviewer: str,
        lease_seconds: float | None,
    ) -> None:
        self._connection = connection
        self._verdicts = Verdicts(generation)
        self._reviewer = reviewer
        self._lease_seconds = lease_seconds

    def out(
        self,
        drawn: Drawn,
        purpose: Purpose,
        why: str,
        sampling: Sampling | None = None,
        *,
        renew: bool = False,
    ) -> QueueItem | None:
        """Lease an edge and describe it; None when it is gone, or on somebody's screen.

        Args:
            renew: even if it is on the reviewer's own.
        """
        sampling = sampling or ("random" if why == "random" else "queue")
        token = None
        if self._lease_seconds is not None:
            token = leases.take(
                self._connection,
                drawn.edge_id,
                reviewer=self._reviewer,
                purpose=purpose,
                sampling=sampling,
                seconds=self._lease_seconds,
                renew=renew,
            )
            if token is None:
                return None
        row = self._edge(drawn.edge_id)
        if row is None:
            return None
        item = QueueItem(
            edge_id=row.id,
            premise=row.premise,
            hypothesis=row.hypothesis,
            relation=row.label,
            confidence=row.confidence,
            reason_for=why,
            sampling=sampling,
            edge_version=edge_version(row),
            source_url=row.page_url or "",
            page_title=row.page_title or "",
            task_id=row.task_id,
            lease=token,
            purpose=purpose,
            score=drawn.score,
            detail=drawn.detail,
            claim_id=row.claim_id,
        )
        if purpose == "second":
            return replace(item, relation=None, confidence=None, edge_version="")
        item = replace(
            item,
            claim_adoption_status=row.claim_adoption_status or "adopted",
            claim_rejection_reason=row.claim_rejection_reason or "",
            site=describe_site(self._connection, self._verdicts.generation, item.source_url),
        )
        if row.edge_human_corrected:
            # The confidence that stands on a reviewed edge is no longer the model's.
            item = replace(item, confidence=None, reviewed_before=self._verdict(row))
        return item

    def _edge(self, edge_id: str) -> Row[Any] | None:
        verdicts = self._verdicts
        columns, names = verdicts.claim.c, ("claim_adoption_status", "claim_rejection_reason")
        statement = verdicts.edge_texts().add_columns(
            verdicts.page.c.get("title", null()).label("page_title"),
            *(columns.get(name, null()).label(name) for name in names),
        )
        statement = statement.where(verdicts.edge.c.id == edge_id)
        return self._connection.execute(statement).one_or_none()

    def _verdict(self, edge: Row[Any]) -> dict[str, str]:
        review = nli_reviews.c
        found = self._connection.execute(
            select(review.reviewer, review.reviewed_at)
            .where(review.edge_id == edge.id, review.undone_at.is_(None))
            .order_by(review.reviewed_at.desc())
            .limit(1)
        ).one_or_none()
        who, at = found or ("", edge.edge_corrected_at or "")
        return {"label": edge.label, "reviewer": who, "reviewed_at": at}
