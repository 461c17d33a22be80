"""Leases: while an edge is on one person's screen, nobody else is handed the same one."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from secrets import token_urlsafe
from typing import Final, Literal

from sqlalchemy import Connection, delete

from lyra_nli.records import Sampling
from lyra_nli.storage.engine import insert_into
from lyra_nli.storage.tables import nli_leases

Purpose = Literal["first", "second"]

KEPT: Final = timedelta(days=1)
"""A lease that ran out binds nobody, but still knows how its edge was drawn."""


def take(
    connection: Connection,
    edge_id: str,
    *,
    reviewer: str,
    purpose: Purpose,
    sampling: Sampling,
    seconds: float,
    renew: bool = False,
) -> str | None:
    """Lease an edge.

    Args:
        renew: take the place of a lease that the same person holds, whose token is then void.

    Returns:
        The token, which is all that the holder needs; None when somebody else was faster.
    """
    moment = datetime.now(UTC)
    token = token_urlsafe(18)
    values = {
        "token": token,
        "reviewer": reviewer,
        "purpose": purpose,
        "sampling": sampling,
        "expires_at": (moment + timedelta(seconds=seconds)).isoformat(),
    }
    free = nli_leases.c.expires_at <= moment.isoformat()
    if renew and reviewer:  # those without a name are not one person
        free |= nli_leases.c.reviewer == reviewer
    statement = (
        insert_into(connection, nli_leases)
        .values(edge_id=edge_id, **values)
        .on_conflict_do_update(
            index_elements=["edge_id"],
            set_=values,
            where=free,
        )
        .returning(nli_leases.c.token)
    )
    taken: str | None = connection.scalar(statement)
    return taken


def give_back(connection: Connection, token: str) -> bool:
    """End a lease early; tells whether there was one."""
    ended = connection.execute(delete(nli_leases).where(nli_leases.c.token == token))
    return ended.rowcount == 1


def forget_old(connection: Connection) -> None:
    """Delete the leases that ran out long ago."""
    oldest = (datetime.now(UTC) - KEPT).isoformat()
    connection.execute(delete(nli_leases).where(nli_leases.c.expires_at < oldest))
