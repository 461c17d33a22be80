"""Where calibrations are kept: every one ever made, which is current, and every change of it.

`lyra_nli.feedback.calibration_changes` writes them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, select

from lyra_nli.errors import StorageError
from lyra_nli.evaluation.calibrators import Calibrator
from lyra_nli.storage.generation import Generation
from lyra_nli.storage.tables import nli_calibration_events, nli_calibrations

Owner = tuple[str, str]
"""Whose calibration it is: (base model, source)."""


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


def is_of(owner: Owner) -> ColumnElement[bool]:
    """The rows of ``nli_calibrations`` that are its."""
    table = nli_calibrations.c
    return (table.base_model == owner[0]) & (table.source == owner[1])


def current_number(connection: Connection, owner: Owner) -> int:
    """The number of the calibration that is in use; 0: answers stand as they are."""
    table = nli_calibrations.c
    found = select(table.version).where(is_of(owner), table.is_current == 1)
    return connection.scalar(found.order_by(table.version.desc()).limit(1)) or 0


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
    row = current_rows(connection, generation, (base_model, source)).get((base_model, source))
    return read_calibrator(row) if row else None


def current_rows(
    connection: Connection, generation: Generation, owner: Owner | None = None
) -> dict[Owner, Row[Any]]:
    """Find what is in use, of one owner or of all: number, method and parameters as they stand."""
    if not generation.has("nli_calibrations", "base_model", "source"):
        return {}
    table = nli_calibrations.c
    names = ("base_model", "source", "version", "method", "params_json")
    statement = select(*(table[name] for name in names)).where(table.is_current == 1)
    if owner:
        statement = statement.where(is_of(owner))
    # Nothing in the schema stops two from being current: the newest counts, as in `current_number`.
    rows = connection.execute(statement.order_by(table.version))
    return {(row.base_model, row.source): row for row in rows}


def read_calibrator(row: Row[Any]) -> tuple[int, Calibrator]:
    """Make the calibrator of one of `current_rows`; its number too.

    Raises:
        StorageError: when what is kept there can't be read.
    """
    try:
        return row.version, Calibrator.read(row.method, json.loads(row.params_json))
    except ValueError as error:
        raise StorageError(f"calibration {row.version} can't be read: {error}") from error


def read_events(
    connection: Connection,
    generation: Generation,
    source: str | None = None,
    limit: int = 20,
    *,
    base_model: str | None = None,
) -> list[dict[str, Any]]:
    """The last changes, of one source and base or all, newest first, as their rows are."""
    table = nli_calibration_events
    if not generation.has(table.name, "source"):
        return []
    newest = select(table).order_by(table.c.id.desc()).limit(limit)
    if source is not None:
        newest = newest.where(table.c.source == source)
    if base_model is not None:
        newest = newest.where(table.c.base_model == base_model)
    return [dict(row._mapping) for row in connection.execute(newest)]


def version_facts(row: Mapping[Any, Any]) -> dict[str, Any]:
    """A calibration as plain values; one of an older schema belongs to no base model.

    Raises:
        StorageError: when what is kept there can't be read.
    """
    params = _kept(row, "params_json")
    return {
        "version": row["version"],
        "base_model": row.get("base_model", ""),
        "source": row.get("source") or params.get("source", ""),
        "method": row["method"],
        "params": params,
        "slope": params.get("slope"),
        "intercept": params.get("intercept"),
        "samples": row["samples"],
        "metrics": _kept(row, "metrics_json"),
        "created_at": row["created_at"],
        "is_current": bool(row["is_current"]),
    }


def _kept(row: Mapping[Any, Any], name: str) -> dict[str, Any]:
    try:
        kept = json.loads(row.get(name) or "{}")
    except ValueError as error:
        raise StorageError(
            f"calibration {row['version']} can't be read: {name}: {error}"
        ) from error
    if not isinstance(kept, dict):
        raise StorageError(f"calibration {row['version']} can't be read: {name} is no object")
    return kept
