"""Training runs: when each began and ended, and why it ran although it was not due."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from sqlalchemy import Connection, Row, insert, inspect, select, update

from lyra_nli.errors import StorageError
from lyra_nli.storage.engine import new_id, now
from lyra_nli.storage.tables import nli_training_runs


def start_run(
    connection: Connection,
    base_model: str,
    forced_reason: str | None,
    recipe: Mapping[str, Any],
    domain: str = "",
) -> str:
    """Note that a training began; return its id.

    Args:
        domain: the only one it learns from; `last_finished_training` passes over it.
    """
    run_id = new_id("run")
    of_domain = {"domain": domain} if domain else {}
    connection.execute(
        insert(nli_training_runs).values(
            id=run_id,
            base_model=base_model,
            started_at=now(),
            status="running",
            forced_reason=forced_reason,
            recipe_json=json.dumps({**recipe, **of_domain}, sort_keys=True),
        )
    )
    return run_id


def finish_run(
    connection: Connection,
    run_id: str,
    status: Literal["done", "failed"],
    message: str = "",
    dataset_hash: str | None = None,
    samples: int | None = None,
) -> None:
    """Note how a training ended; one that is done stays done, whatever fails after that.

    Raises:
        StorageError: when there is no such run that could be done now.
    """
    changed = connection.execute(
        update(nli_training_runs)
        .where(nli_training_runs.c.id == run_id, nli_training_runs.c.status != "done")
        .values(
            finished_at=now(),
            status=status,
            message=message,
            dataset_hash=dataset_hash,
            samples=samples,
        )
    ).rowcount
    if not changed and status == "done":
        raise StorageError(f"there is no training run {run_id!r} that could be done now")


def last_finished_training(connection: Connection, base_model: str | None = None) -> str | None:
    """Tell when a training on all reviews was last finished, of one base model or of any.

    Returns:
        ISO-8601; None when there was none, or the database was never upgraded.
    """
    return max((run.finished_at for run in _trainings(connection, base_model)), default=None)


def last_training_began(connection: Connection, base_model: str) -> str | None:
    """Tell when the last of those trainings began, and read what there was to learn from."""
    return max((run.started_at for run in _trainings(connection, base_model)), default=None)


def _trainings(connection: Connection, base_model: str | None) -> Iterator[Row[Any, Any, Any]]:
    """Trainings on all reviews that were finished."""
    if not inspect(connection).has_table(nli_training_runs.name):
        return
    run = nli_training_runs.c
    statement = select(run.started_at, run.finished_at, run.recipe_json)
    statement = statement.where(run.status == "done")
    if base_model is not None:
        statement = statement.where(run.base_model == base_model)
    for row in connection.execute(statement):
        if "domain" not in json.loads(row.recipe_json or "{}"):
            yield row


def run_facts(connection: Connection, run_id: str | None) -> dict[str, Any]:
    """When a run was, and why it ran; empty when nothing is known of it."""
    table = nli_training_runs.c
    columns = (table.started_at, table.finished_at, table.status, table.forced_reason)
    row = connection.execute(select(*columns).where(table.id == run_id)).one_or_none()
    return dict(row._mapping) if row else {}
