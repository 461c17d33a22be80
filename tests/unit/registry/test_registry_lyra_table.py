from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, insert, text
from tiny_versions import BASE, OUTCOME, new_manifest, write_adapter

from lyra_nli.registry.artifact import staged
from lyra_nli.registry.versions import Registry, Version
from lyra_nli.storage.engine import open_database, read, write
from lyra_nli.storage.tables import adapters, metadata


def lyra_rows(engine: Engine) -> list[dict[str, Any]]:
    with read(engine) as connection:
        rows = connection.execute(text("SELECT * FROM adapters ORDER BY id"))
        return [dict(row) for row in rows.mappings()]


def old_database(tmp_path: Path, *statements: str) -> Registry:
    """A database with our tables, and an ``adapters`` table of another generation or none."""
    engine = open_database(str(tmp_path / "old.db"), create=True)
    metadata.create_all(engine)
    with write(engine) as connection:
        connection.execute(text("DROP TABLE adapters"))
        for statement in statements:
            connection.execute(text(statement))
    return Registry(engine, tmp_path / "adapters")


def train_in(registry: Registry) -> Version:
    with staged(registry.directory) as staging:
        write_adapter(staging)
        return registry.publish(new_manifest(), staging, **OUTCOME)


def test_lyra_learns_of_each_version(
    engine: Engine, registry: Registry, train: Callable[..., Version]
) -> None:
    version = train()
    (row,) = lyra_rows(engine)
    assert row == {
        "id": version.lyra_adapter_id,
        "version_name": "lora-lyra-v1",
        "adapter_path": str(registry.directory / "lora-lyra-v1"),
        "base_model": BASE,
        "samples_used": 120,
        "brier_before": 0.3,
        "brier_after": 0.2,
        "shadow_accuracy": None,
        "created_at": "2026-01-01T00:00:00+00:00",
        "is_active": 0,
    }


def test_metrics_that_are_no_numbers_stay_empty(
    engine: Engine, train: Callable[..., Version]
) -> None:
    train(metrics={"brier_before": float("inf"), "brier_after": "good"})
    (row,) = lyra_rows(engine)
    assert (row["brier_before"], row["brier_after"]) == (None, None)


def test_is_active_follows_the_alias(
    engine: Engine, registry: Registry, train: Callable[..., Version]
) -> None:
    lyras_own = {"version_name": "by-lyra", "adapter_path": "x", "is_active": 1}
    with write(engine) as connection:
        rows = [{**lyras_own, "base_model": base} for base in (BASE, "roberta")]
        connection.execute(insert(adapters), rows)
    train()
    train()

    def active() -> list[tuple[str, str]]:
        rows = lyra_rows(engine)
        return [(row["version_name"], row["base_model"]) for row in rows if row["is_active"]]

    registry.activate("v1", who="ann")
    assert active() == [("by-lyra", "roberta"), ("lora-lyra-v1", BASE)]
    registry.activate("v2", who="ann")
    assert active() == [("by-lyra", "roberta"), ("lora-lyra-v2", BASE)]
    registry.rollback(BASE, who="ann")
    assert active() == [("by-lyra", "roberta"), ("lora-lyra-v1", BASE)]
    registry.deactivate(BASE, who="ann")
    assert active() == [("by-lyra", "roberta")]


def test_names_that_lyra_uses_are_taken(engine: Engine, registry: Registry) -> None:
    row = {"version_name": "lora-lyra-v4", "adapter_path": "x", "base_model": BASE}
    with write(engine) as connection:
        connection.execute(insert(adapters).values(row))
    assert registry.new_name() == "lora-lyra-v5"


@pytest.mark.parametrize(
    ("statements", "has_id"),
    [
        ([], False),
        (["CREATE TABLE adapters (id INTEGER PRIMARY KEY, version_name TEXT)"], True),
        (
            [
                "CREATE TABLE adapters (id INTEGER PRIMARY KEY, version_name TEXT NOT NULL,"
                " adapter_path TEXT NOT NULL, owner TEXT NOT NULL)"
            ],
            False,
        ),
        (["CREATE TABLE adapters (name TEXT)"], False),
        (["CREATE TABLE adapters (id TEXT PRIMARY KEY, version_name TEXT)"], False),
    ],
    ids=["no table", "fewer columns", "a stricter rule", "another table", "another key"],
)
def test_no_adapters_table_stands_in_the_way(
    tmp_path: Path, statements: list[str], has_id: bool
) -> None:
    registry = old_database(tmp_path, *statements)
    version = train_in(registry)
    assert (version.lyra_adapter_id is not None) == has_id
    registry.activate("v1", who="ann")
    registry.rollback(BASE, who="ann")
    assert [event.action for event in registry.events()] == ["activate", "rollback"]
    registry.engine.dispose()


def test_a_key_that_is_no_number_is_not_ours_to_use(tmp_path: Path) -> None:
    registry = old_database(
        tmp_path, "CREATE TABLE adapters (id TEXT PRIMARY KEY, version_name TEXT)"
    )
    train_in(registry)
    with write(registry.engine) as connection:
        connection.execute(text("UPDATE adapters SET id = 'ada_1'"))
    assert registry.get("v1").lyra_adapter_id is None
    registry.engine.dispose()


def test_a_refusal_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    registry = old_database(
        tmp_path,
        "CREATE TABLE adapters (id INTEGER PRIMARY KEY, version_name TEXT, owner TEXT NOT NULL)",
    )
    train_in(registry)
    assert "NOT NULL constraint failed: adapters.owner" in caplog.text
    registry.engine.dispose()
