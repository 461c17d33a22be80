"""Where calibrations are kept: every one ever made, which is current, and every change of it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    Select,
    case,
    func,
    insert,
    select,
    text,
    update,
)

from lyra_nli.errors import ConflictError, FeedbackError, StorageError
from lyra_nli.evaluation.calibrators import Calibrator
from lyra_nli.storage.engine import new_id, now, write
from lyra_nli.storage.generation import Generation
from lyra_nli.storage.tables import nli_calibration_events, nli_calibrations

Owner = tuple[str, str]
"""Whose calibration it is: (base model, source)."""


@contextmanager
def exclusive(engine: Engine) -> Iterator[Connection]:
    """Begin a transaction in which nobody else changes which calibration is current."""
    with write(engine) as connection:
        if connection.dialect.name == "postgresql":  # SQLite has one writer anyhow
            connection.execute(text("LOCK TABLE nli_calibrations IN EXCLUSIVE MODE"))
        yield connection


def read_versions(
    connection: Connection,
    generation: Generation,
    *,
    base_model: str | None = None,
    source: str | None = None,
) -> list[dict[str, Any]]:
    """List calibrations, the newest first, as `version_facts`; any database can be asked."""
    if not generation.has("nli_calibrations"):
        return []
    known = [each for each in nli_calibrations.c if generation.has("nli_calibrations", each.name)]
    rows = connection.execute(select(*known).order_by(nli_calibrations.c.version.desc()))
    facts = [version_facts(row._mapping) for row in rows]
    if base_model is not None:
        facts = [each for each in facts if each["base_model"] == base_model]
    return [each for each in facts if source in (None, each["source"])]


def current_number(connection: Connection, owner: Owner) -> int:
    """The number of the calibration that is in use; 0: answers stand as they are."""
    table = nli_calibrations.c
    found = connection.scalar(select(table.version).where(_of(owner), table.is_current == 1))
    return found or 0


def current_calibrator(
    connection: Connection, generation: Generation, base_model: str, source: str
) -> tuple[int, Calibrator] | None:
    """Say what corrects the answers of one adapter version now.

    Args:
        connection: for reading.
        generation: what the database is; one that was never upgraded has no calibrations.
        base_model: whose version it is.
        source: the version's name, or ``base``.

    Returns:
        The calibration's number and the calibrator; None where answers stand as they are.

    Raises:
        StorageError: when what is kept there can't be read.
    """
    if not generation.has("nli_calibrations", "base_model", "source"):
        return None
    table = nli_calibrations.c
    row = connection.execute(
        select(table.version, table.method, table.params_json).where(
            table.is_current == 1, table.base_model == base_model, table.source == source
        )
    ).one_or_none()
    if row is None:
        return None
    try:
        return row.version, Calibrator.read(row.method, json.loads(row.params_json))
    except ValueError as error:
        raise StorageError(f"calibration {row.version} can't be read: {error}") from error


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
    numbers = select(nli_calibrations.c.version).where(_of(owner))
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


def owner_of(connection: Connection, version: int) -> Owner | None:
    """Whose calibration that is; None when there is none of that number."""
    table = nli_calibrations.c
    return _owner(
        connection, select(table.base_model, table.source).where(table.version == version)
    )


def last_changed(connection: Connection, source: str | None = None) -> Owner | None:
    """Whose calibration changed last, among all or those of one source; None before any did."""
    event = nli_calibration_events.c
    newest = select(event.base_model, event.source).order_by(event.id.desc()).limit(1)
    return _owner(connection, newest if source is None else newest.where(event.source == source))


def read_events(
    connection: Connection, generation: Generation, source: str | None = None, limit: int = 20
) -> list[dict[str, Any]]:
    """The last changes, of one source or all, newest first, as their rows are."""
    table = nli_calibration_events
    if not generation.has(table.name, "source"):
        return []
    newest = select(table).order_by(table.c.id.desc()).limit(limit)
    of_source = newest if source is None else newest.where(table.c.source == source)
    rows = connection.execute(of_source)
    return [dict(row._mapping) for row in rows]


def version_facts(row: Mapping[Any, Any]) -> dict[str, Any]:
    """A calibration as plain values; one of an older schema belongs to no base model."""
    params = json.loads(row["params_json"])
    return {
        "version": row["version"],
        "base_model": row.get("base_model", ""),
        "source": row.get("source") or params.get("source", ""),
        "method": row["method"],
        "params": params,
        "slope": params.get("slope"),
        "intercept": params.get("intercept"),
        "samples": row["samples"],
        "metrics": json.loads(row.get("metrics_json") or "{}"),
        "created_at": row["created_at"],
        "is_current": bool(row["is_current"]),
    }


def _of(owner: Owner) -> ColumnElement[bool]:
    table = nli_calibrations.c
    return (table.base_model == owner[0]) & (table.source == owner[1])


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
    connection.execute(update(nli_calibrations).where(_of(owner)).values(is_current=flag))
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
