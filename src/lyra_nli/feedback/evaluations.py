"""Evaluations of the confidence, in the table that Lyra has for them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from sqlalchemy import Connection, Row, Text, cast, select

from lyra_nli.storage.generation import Generation
from lyra_nli.storage.tables import calibration_evaluations


def read_evaluations(
    connection: Connection,
    generation: Generation,
    *,
    limit: int,
    source: str | None = None,
    key: str | None = None,
    kept_as: Collection[int] | None = None,
) -> list[Row[Any]]:
    """Rows of ``calibration_evaluations``, newest first; a database without it has none.

    `kept_as` picks those that made one of these calibrations.
    """
    if not generation.has("calibration_evaluations"):
        return []
    table = calibration_evaluations
    statement = select(table).order_by(table.c.evaluated_at.desc(), table.c.id).limit(limit)
    if source is not None:
        statement = statement.where(table.c.source == source)
    if key is not None:
        statement = statement.where(table.c.id == key)
    if kept_as is not None:
        version = cast(table.c.calibration_version, Text)  # a number in Lyra's databases
        statement = statement.where(version.in_([str(each) for each in kept_as]))
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
