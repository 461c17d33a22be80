"""Where calibrations and their evaluations are kept: Lyra's table, and two of our own."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from sqlalchemy import Connection, Engine, Row, case, func, insert, select, text, update

from lyra_nli.errors import ConflictError, FeedbackError
from lyra_nli.evaluation.calibration import Measured
from lyra_nli.storage.engine import new_id, now, write
from lyra_nli.storage.generation import Generation
from lyra_nli.storage.tables import (
    calibration_evaluations,
    nli_calibration_events,
    nli_calibrations,
)


@contextmanager
def exclusive(engine: Engine) -> Iterator[Connection]:
    """Begin a transaction in which nobody else changes which calibration is current."""
    with write(engine) as connection:
        if connection.dialect.name == "postgresql":  # SQLite has one writer anyhow
            connection.execute(text("LOCK TABLE nli_calibrations IN EXCLUSIVE MODE"))
        yield connection


def current_version(connection: Connection, generation: Generation) -> Row[Any] | None:
    """The calibration in use; None when confidences stand as the model gives them."""
    if not generation.has("nli_calibrations"):
        return None
    table = nli_calibrations
    return connection.execute(select(table).where(table.c.is_current == 1)).one_or_none()


def add_version(
    connection: Connection, measured: Measured, *, source: str, before: int, who: str
) -> int:
    """Keep a curve as the next version and make it current; gives its number."""
    table = nli_calibrations
    highest = connection.execute(select(func.max(table.c.version))).scalar_one()
    version: int = (highest or 0) + 1
    parameters = {**asdict(measured.curve), "source": source}
    connection.execute(
        insert(table).values(
            id=new_id("ncal"),
            version=version,
            method="platt",
            params_json=json.dumps(parameters),
            samples=measured.n,
            created_at=now(),
        )
    )
    _switch(connection, "fit", before, version, who, f"evaluation of {source}")
    return version


def roll_back(
    connection: Connection, before: int, version: int | None, *, who: str, reason: str
) -> int:
    """Make a version current, 0 for none; gives it.

    Args:
        connection: from `exclusive`.
        before: the version that is current now, 0 for none.
        version: None for the one that was current when `before` was fitted.
        who: for the audit row.
        reason: for the audit row.

    Raises:
        FeedbackError: `unknown_version`.
        ConflictError: when it is current already.
    """
    versions = sorted(connection.scalars(select(nli_calibrations.c.version)))
    to = _predecessor(connection, before) if version is None else version
    if to not in (0, *versions):
        raise FeedbackError(
            f"there is no calibration {to}",
            code="unknown_version",
            parameter="version",
            expected=f"one of {', '.join(map(str, (0, *versions)))} (0: no calibration)",
        )
    if to == before:
        words = f"calibration {to} is" if to else "no calibration is in use, and that is"
        raise ConflictError(
            f"{words} current already",
            parameter="version",
            expected=f"another of {', '.join(map(str, (0, *versions)))}",
        )
    _switch(connection, "rollback", before, to, who, reason)
    return to


def read_evaluations(
    connection: Connection,
    generation: Generation,
    *,
    limit: int,
    source: str | None = None,
    key: str | None = None,
) -> list[Row[Any]]:
    """Rows of ``calibration_evaluations``, newest first; a database without it has none."""
    if not generation.has("calibration_evaluations"):
        return []
    table = calibration_evaluations
    statement = select(table).order_by(table.c.evaluated_at.desc(), table.c.id).limit(limit)
    if source is not None:
        statement = statement.where(table.c.source == source)
    if key is not None:
        statement = statement.where(table.c.id == key)
    return list(connection.execute(statement))


def evaluation_facts(row: Mapping[Any, Any]) -> dict[str, object]:
    """An evaluation as plain values, without its bins."""
    version = row["calibration_version"]
    return {
        "evaluation_id": row["id"],
        "source": row["source"],
        "samples": row["samples_evaluated"],
        "brier_score": row["brier_score"],
        "brier_score_calibrated": row["brier_score_calibrated"],
        "improvement_ratio": row["improvement_ratio"],
        "expected_calibration_error": row["expected_calibration_error"],
        # A number in Lyra's databases, a text in ours.
        "calibration_version": None if version is None else int(version),
        "evaluated_at": str(row["evaluated_at"]),
    }


def version_facts(row: Row[Any]) -> dict[str, object]:
    """A calibration as plain values."""
    return {
        "version": row.version,
        "method": row.method,
        **json.loads(row.params_json),
        "samples": row.samples,
        "created_at": row.created_at,
    }


def _predecessor(connection: Connection, version: int) -> int:
    events = nli_calibration_events.c
    fitted = select(events.from_version).where(events.action == "fit", events.to_version == version)
    return connection.execute(fitted).scalar_one_or_none() or 0


def _switch(
    connection: Connection, action: str, before: int, to: int, who: str, reason: str
) -> None:
    flag = case((nli_calibrations.c.version == to, 1), else_=0)
    connection.execute(update(nli_calibrations).values(is_current=flag))
    event = {
        "at": now(),
        "who": who,
        "action": action,
        "from_version": before or None,
        "to_version": to or None,
        "reason": reason,
    }
    connection.execute(insert(nli_calibration_events).values(event))
