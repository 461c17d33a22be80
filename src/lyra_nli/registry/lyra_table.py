"""Lyra's own ``adapters`` table, kept in step so that Lyra sees our versions.

It is Lyra's: an older database has none, another has fewer columns or stricter rules. What is
there gets filled; what can't be filled is logged and never stops a registration.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, case, insert, inspect, select, update
from sqlalchemy.exc import DataError, IntegrityError, ProgrammingError

from lyra_nli.registry.manifest import Manifest
from lyra_nli.storage.tables import adapters

logger = logging.getLogger(__name__)


def add_row(
    connection: Connection, manifest: Manifest, path: str, samples: int, metrics: Mapping[str, Any]
) -> None:
    """Tell Lyra about a version; not active yet."""
    columns = _columns(connection)
    values = {
        "version_name": manifest.name,
        "adapter_path": path,
        "base_model": manifest.base_model,
        "samples_used": samples,
        "brier_before": _number(metrics.get("brier_before")),
        "brier_after": _number(metrics.get("brier_after")),
        "created_at": manifest.created_at,
        "is_active": 0,
    }
    if {"id", "version_name"} <= columns:
        present = {name: value for name, value in values.items() if name in columns}
        with _courtesy(connection):
            connection.execute(insert(adapters).values(present))


def set_active(connection: Connection, base_model: str, version: str | None) -> None:
    """Mark `version` as the active one of its base; None: the base itself serves."""
    if {"version_name", "base_model", "is_active"} <= _columns(connection):
        flag = case((adapters.c.version_name == version, 1), else_=0) if version else 0
        of_base = adapters.c.base_model == base_model
        with _courtesy(connection):
            connection.execute(update(adapters).where(of_base).values(is_active=flag))


def row_ids(connection: Connection) -> dict[str, int]:
    """Version name -> primary key, which ``nli_corrections.trained_adapter_id`` points to."""
    if not {"id", "version_name"} <= _columns(connection):
        return {}
    rows = connection.execute(select(adapters.c.version_name, adapters.c.id))
    return {name: key for name, key in rows if isinstance(key, int)}


def _columns(connection: Connection) -> set[str]:
    inspector = inspect(connection)
    if not inspector.has_table(adapters.name):
        return set()
    return {column["name"] for column in inspector.get_columns(adapters.name)}


@contextmanager
def _courtesy(connection: Connection) -> Iterator[None]:
    """Set a savepoint: what Lyra's table refuses is undone, and the rest goes on."""
    try:
        with connection.begin_nested():
            yield
    except (DataError, IntegrityError, ProgrammingError) as error:
        logger.warning("Lyra's adapters table was left as it is: %s", error.orig)


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None
