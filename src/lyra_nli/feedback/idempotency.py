"""A write that is sent twice is done once: the second time gets the first one's answer."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, delete, select, text, update

from lyra_nli.errors import FeedbackError
from lyra_nli.feedback.parameters import IDEMPOTENCY_KEY, check
from lyra_nli.storage.engine import now
from lyra_nli.storage.tables import nli_idempotency

KEPT = timedelta(days=7)
"""Nobody repeats a request after a week."""

Answer = dict[str, object]


def once(
    connection: Connection, key: str | None, request: object, act: Callable[[], Answer]
) -> Answer:
    """Act, unless this request was answered before; then give that answer.

    Args:
        connection: in a transaction for writing; when `act` fails, the key stays unused.
        key: None acts always.
        request: all that the answer depends on, as JSON values.

    Raises:
        FeedbackError: for a key that can't be stored, or that another request has used.
    """
    if key is None:
        return act()
    check([IDEMPOTENCY_KEY], {IDEMPOTENCY_KEY.name: key})
    digest = _digest(request)
    # Taken before acting: on PostgreSQL a second one with this key waits here for the first.
    taken = connection.execute(_TAKE, {"key": key, "digest": digest, "at": now()}).rowcount
    if not taken:
        return _earlier(connection, key, digest)
    answer = act()
    table = nli_idempotency
    connection.execute(
        update(table).where(table.c.key == key).values(answer_json=json.dumps(answer))
    )
    oldest = (datetime.now(UTC) - KEPT).isoformat()
    connection.execute(delete(table).where(table.c.at < oldest))
    return answer


_TAKE = text(
    "INSERT INTO nli_idempotency (key, request_hash, answer_json, at)"
    " VALUES (:key, :digest, '', :at) ON CONFLICT (key) DO NOTHING"
)


def _earlier(connection: Connection, key: str, digest: str) -> Answer:
    table = nli_idempotency
    statement = select(table.c.request_hash, table.c.answer_json).where(table.c.key == key)
    known, answer_json = connection.execute(statement).one()
    if known != digest:
        raise FeedbackError(
            "this idempotency key was used for another request",
            code="idempotency_key_reused",
            parameter=IDEMPOTENCY_KEY.name,
            expected="a key that is new for every intended write",
        )
    answer: dict[str, Any] = json.loads(answer_json)
    return answer


def _digest(request: object) -> str:
    canonical = json.dumps(request, sort_keys=True)
    return hashlib.sha256(canonical.encode()).hexdigest()
