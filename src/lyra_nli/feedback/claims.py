"""Claims: a person takes one out of the evidence, or puts it back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from sqlalchemy import Connection, select, update

from lyra_nli.errors import FeedbackError
from lyra_nli.feedback.parameters import NEEDED_REASON, Parameter
from lyra_nli.storage.engine import now
from lyra_nli.storage.generation import Generation
from lyra_nli.storage.tables import claims

Status = Literal["adopted", "not_adopted"]

CLAIM_ID = Parameter("claim_id", "the claim", required=True)
REJECT_PARAMETERS = (CLAIM_ID, NEEDED_REASON)
RESTORE_PARAMETERS = (CLAIM_ID,)


def perform_reject(
    connection: Connection, generation: Generation, values: Mapping[str, str], _: str
) -> dict[str, object]:
    """Answer the action ``claim_reject``; a claim rejected again gets the new reason."""
    previous = _status(connection, generation, values["claim_id"])
    _write(connection, values["claim_id"], "not_adopted", values["reason"], now())
    again = previous == "not_adopted"
    words = "Claim was rejected already: reason and time are new." if again else "Claim rejected."
    return _answer("claim_reject", values["claim_id"], previous, "not_adopted", words)


def perform_restore(
    connection: Connection, generation: Generation, values: Mapping[str, str], _: str
) -> dict[str, object]:
    """Answer the action ``claim_restore``: adopted again, without reason and time."""
    previous = _status(connection, generation, values["claim_id"])
    _write(connection, values["claim_id"], "adopted", None, None)
    words = "Claim restored." if previous == "not_adopted" else "Claim was not rejected."
    return _answer("claim_restore", values["claim_id"], previous, "adopted", words)


def _status(connection: Connection, generation: Generation, claim_id: str) -> str:
    """Read a claim's status, and keep others from changing it meanwhile.

    Raises:
        FeedbackError: when there is no such claim.
    """
    found = None
    if generation.has(claims.name):
        statement = select(claims.c.claim_adoption_status).where(claims.c.id == claim_id)
        found = connection.execute(statement.with_for_update()).one_or_none()
    if found is None:
        raise FeedbackError(
            f"there is no claim {claim_id!r}",
            code="unknown_claim",
            parameter=CLAIM_ID.name,
            expected="the id of a claim in this database",
        )
    return found.claim_adoption_status or "adopted"


def _write(
    connection: Connection, claim_id: str, status: Status, reason: str | None, at: str | None
) -> None:
    connection.execute(
        update(claims)
        .where(claims.c.id == claim_id)
        .values(claim_adoption_status=status, claim_rejection_reason=reason, claim_rejected_at=at)
    )


def _answer(
    action: str, claim_id: str, previous: str, status: Status, message: str
) -> dict[str, object]:
    return {
        "ok": True,
        "action": action,
        "claim_id": claim_id,
        "previous_status": previous,
        "new_status": status,
        "message": message,
    }
