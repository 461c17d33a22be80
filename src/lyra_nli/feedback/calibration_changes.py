"""Which calibration is current: every change of it, each with its audit row."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, Engine, Select, case, func, insert, select, update

from lyra_nli.errors import ConflictError, FeedbackError
from lyra_nli.evaluation.calibrators import Calibrator
from lyra_nli.feedback.calibration_answers import EVERY_MODEL
from lyra_nli.feedback.calibration_rows import Owner, current_number, is_of
from lyra_nli.storage.engine import lock, new_id, now, write
from lyra_nli.storage.tables import nli_calibration_events, nli_calibrations


@contextmanager
def exclusive(engine: Engine) -> Iterator[Connection]:
    """Begin a transaction in which nobody else changes which calibration is current."""
    with write(engine) as connection:
        lock(connection, nli_calibrations)
        yield connection


def add_version(
    connection: Connection,
    calibrator: Calibrator,
    owner: Owner,
    *,
    samples: int,
    metrics: Mapping[str, object],
    who: str,
) -> int:
    """Keep a calibrator as the next version and make it current; gives its number."""
    table = nli_calibrations
    highest = connection.execute(select(func.max(table.c.version))).scalar_one()
    version: int = (highest or 0) + 1
    base_model, source = owner
    connection.execute(
        insert(table).values(
            id=new_id("ncal"),
            version=version,
            base_model=base_model,
            source=source,
            method=calibrator.method,
            params_json=json.dumps(dict(calibrator.params)),
            metrics_json=json.dumps(metrics),
            samples=samples,
            created_at=now(),
        )
    )
    _switch(connection, "fit", owner, version, who, f"evaluation of {source}")
    return version


def roll_back(
    connection: Connection, owner: Owner, version: int | None, *, who: str, reason: str
) -> tuple[int, int]:
    """Make another version of the same owner current, 0 for none; gives (before, now).

    Args:
        connection: from `exclusive`.
        owner: whose calibration.
        version: None for the one that was current when the present one was fitted.
        who: for the audit row.
        reason: for the audit row.

    Raises:
        FeedbackError: `unknown_version`.
        ConflictError: when it is current already.
    """
    before = current_number(connection, owner)
    numbers = select(nli_calibrations.c.version).where(is_of(owner))
    others = [0, *sorted(connection.scalars(numbers))]
    to = _predecessor(connection, before) if version is None else version
    if to not in others:
        raise FeedbackError(
            f"there is no calibration {to} of {owner[1]}",
            code="unknown_version",
            parameter="version",
            expected=f"one of {', '.join(map(str, others))} (0: no calibration)",
        )
    if to == before:
        words = f"calibration {to} is" if to else "no calibration is in use, and that is"
        raise ConflictError(
            f"{words} current already",
            parameter="version",
            expected=f"another of {', '.join(map(str, others))}",
        )
    _switch(connection, "rollback", owner, to, who, reason)
    return before, to


def whose(
    connection: Connection, version: int | None, source: str | None, base_model: str | None
) -> Owner:
    """Whose calibration is meant: the numbered one's, or else of what changed last.

    Args:
        connection: for reading.
        version: a calibration's number; 0 and None name none.
        source: None: any.
        base_model: None: any. The source ``base`` is one of each base.

    Raises:
        ConflictError: when no such calibration ever was.
    """
    table = nli_calibrations.c
    numbered = select(table.base_model, table.source).where(table.version == version)
    owner = _owner(connection, numbered) if version else None
    if owner and base_model in (None, owner[0]) and source in (None, owner[1]):
        return owner
    if owner := _last_changed(connection, source, base_model):
        return owner
    if version:
        return base_model or "", source or EVERY_MODEL  # which has none of that number
    raise ConflictError(
        "no calibration is in use, and none ever was",
        parameter="version",
        expected="a calibration, which `evaluate` makes",
    )


def _last_changed(
    connection: Connection, source: str | None, base_model: str | None
) -> Owner | None:
    event = nli_calibration_events.c
    newest = select(event.base_model, event.source).order_by(event.id.desc()).limit(1)
    if source is not None:
        newest = newest.where(event.source == source)
    if base_model is not None:
        newest = newest.where(event.base_model == base_model)
    return _owner(connection, newest)


def _owner(connection: Connection, statement: Select[Any]) -> Owner | None:
    row = connection.execute(statement).one_or_none()
    return (row.base_model, row.source) if row else None


def _predecessor(connection: Connection, version: int) -> int:
    events = nli_calibration_events.c
    fitted = select(events.from_version).where(events.action == "fit", events.to_version == version)
    return connection.execute(fitted).scalar_one_or_none() or 0


def _switch(
    connection: Connection, action: str, owner: Owner, to: int, who: str, reason: str
) -> None:
    before = current_number(connection, owner)
    flag = case((nli_calibrations.c.version == to, 1), else_=0)
    connection.execute(update(nli_calibrations).where(is_of(owner)).values(is_current=flag))
    event = {
        "at": now(),
        "who": who,
        "action": action,
        "base_model": owner[0],
        "source": owner[1],
        "from_version": before or None,
        "to_version": to or None,
        "reason": reason,
    }
    connection.execute(insert(nli_calibration_events).values(event))
