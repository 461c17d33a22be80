"""Versions and events as values, and how they lie in the database."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal, TypedDict

from pydantic_core import from_json, to_json
from sqlalchemy import ColumnElement, Connection, delete, insert, inspect, select

from lyra_nli.registry import lyra_table
from lyra_nli.registry.artifact import VERSION_NAME, Manifest
from lyra_nli.storage.engine import new_id, now
from lyra_nli.storage.tables import nli_aliases, nli_evaluations, nli_version_events, nli_versions

Status = Literal["passed", "rejected", "unproven", "removed"]
Action = Literal[
    "activate",
    "rollback",
    "deactivate",
    "remove",
    "shadow_start",
    "shadow_end",
    "canary_start",
    "canary_end",
]
Alias = Literal["active", "previous"]

SERVING: Final = frozenset({"activate", "rollback", "deactivate"})
"""The actions that change what serves."""


@dataclass(frozen=True, slots=True)
class Version:
    """One adapter version, as the registry knows it.

    Attributes:
        path: its folder.
        digest: SHA-256 over its manifest, which holds the digest of every file.
        run_id: the training run that made it.
        parent: the version that was active when it was trained; None: the base.
        aliases: ``active``, ``previous``, or neither.
        metrics: what its latest evaluation measured.
        verdict: what its latest evaluation concluded.
        report_path: the report of that evaluation, as a file name in `path`.
        lyra_adapter_id: its row in Lyra's ``adapters``, where the database has that table.
    """

    name: str
    base_model: str
    base_fingerprint: str
    path: Path
    digest: str
    status: Status
    run_id: str | None
    parent: str | None
    samples_used: int
    created_at: str
    aliases: tuple[str, ...] = ()
    metrics: dict[str, Any] | None = None
    verdict: str | None = None
    report_path: str | None = None
    lyra_adapter_id: int | None = None

    @property
    def domain(self) -> str:
        """The site or group that it was trained for alone; empty: for everything."""
        return str((self.metrics or {}).get("domain") or "")


@dataclass(frozen=True, slots=True)
class Event:
    """One decision in the audit log.

    ``activate``, ``rollback`` and ``deactivate`` say what served before and after; None is the
    base. The others change nothing that serves: a trial's start goes from None to its version,
    its end and ``remove`` from the version to None.
    """

    at: str
    who: str
    action: Action
    base_model: str
    from_version: str | None
    to_version: str | None
    reason: str

    @property
    def change(self) -> str:
        """From what to what, or which version it is about, for people."""
        if self.action in SERVING:
            return f"{self.from_version or 'base'} -> {self.to_version or 'base'}"
        return str(self.to_version or self.from_version)


class Outcome(TypedDict):
    """What training and the gate say about a new version; see `Version` for the fields."""

    status: Literal["passed", "rejected", "unproven"]
    run_id: str | None
    parent: str | None
    samples_used: int
    metrics: Mapping[str, Any]
    verdict: str
    report_path: str | None


def load_versions(
    connection: Connection, directory: Path, *conditions: ColumnElement[bool]
) -> list[Version]:
    """Read the versions that meet all `conditions`, in the order of their numbers.

    A database that was never upgraded has none.
    """
    if not inspect(connection).has_table(nli_versions.name):
        return []
    rows = connection.execute(select(nli_versions).where(*conditions)).all()
    names = [row.name for row in rows]
    evaluations = _latest_evaluations(connection, names)
    aliases = defaultdict(list)
    query = select(nli_aliases).where(nli_aliases.c.version.in_(names))
    for alias in connection.execute(query.order_by(nli_aliases.c.alias)):
        aliases[alias.version].append(alias.alias)
    lyra_ids = lyra_table.row_ids(connection)
    versions = [
        Version(
            # Wherever the registry's folder has moved since, its versions lie in it.
            **{**row._asdict(), "path": directory / row.name},
            aliases=tuple(aliases[row.name]),
            lyra_adapter_id=lyra_ids.get(row.name),
            **evaluations.get(row.name, {}),
        )
        for row in rows
    ]
    return sorted(versions, key=lambda version: (version_number(version.name), version.name))


def insert_version(
    connection: Connection, manifest: Manifest, path: Path, outcome: Outcome
) -> None:
    """Write a version, its evaluation and Lyra's row about it."""
    connection.execute(
        insert(nli_versions).values(
            name=manifest.name,
            base_model=manifest.base_model,
            base_fingerprint=manifest.base_fingerprint,
            path=str(path),
            digest=manifest.digest,
            status=outcome["status"],
            run_id=outcome["run_id"],
            parent=outcome["parent"],
            samples_used=outcome["samples_used"],
            created_at=manifest.created_at,
        )
    )
    connection.execute(
        insert(nli_evaluations).values(
            id=new_id("nle"),
            version=manifest.name,
            verdict=outcome["verdict"],
            metrics_json=to_json(outcome["metrics"], inf_nan_mode="null").decode(),
            report_path=outcome["report_path"],
            evaluated_at=now(),
        )
    )
    lyra_table.add_row(connection, manifest, str(path), outcome["samples_used"], outcome["metrics"])


def load_aliases(connection: Connection, base_model: str) -> dict[Alias, str]:
    """Read alias -> version of one base; an alias that is not there means the base itself."""
    query = select(nli_aliases).where(nli_aliases.c.base_model == base_model)
    return {row.alias: row.version for row in connection.execute(query)}


def replace_aliases(
    connection: Connection, base_model: str, aliases: Mapping[Alias, str | None]
) -> None:
    """Let the aliases of one base point to these versions, and mark the active one for Lyra."""
    connection.execute(delete(nli_aliases).where(nli_aliases.c.base_model == base_model))
    for alias, version in aliases.items():
        if version is not None:
            row = {"base_model": base_model, "alias": alias, "version": version}
            connection.execute(insert(nli_aliases).values(row))
    lyra_table.set_active(connection, base_model, aliases["active"])


def load_events(connection: Connection, base_model: str | None, limit: int | None) -> list[Event]:
    """Read the audit log, oldest first; `limit` keeps the newest."""
    if not inspect(connection).has_table(nli_version_events.name):
        return []
    query = select(nli_version_events).order_by(nli_version_events.c.id.desc()).limit(limit)
    if base_model is not None:
        query = query.where(nli_version_events.c.base_model == base_model)
    rows = connection.execute(query).all()
    return [
        Event(**{key: value for key, value in row._asdict().items() if key != "id"})
        for row in reversed(rows)
    ]


def insert_event(connection: Connection, event: Event) -> Event:
    """Append to the audit log."""
    connection.execute(insert(nli_version_events).values(asdict(event)))
    return event


def version_number(name: str) -> int:
    """Read the N of ``lora-lyra-vN``; 0 for other names."""
    match = VERSION_NAME.fullmatch(name)
    return int(match[1]) if match else 0


def _latest_evaluations(connection: Connection, names: list[str]) -> dict[str, dict[str, Any]]:
    table = nli_evaluations.c
    query = select(table.version, table.verdict, table.metrics_json, table.report_path)
    query = query.where(table.version.in_(names)).order_by(table.evaluated_at)
    return {
        row.version: {
            "verdict": row.verdict,
            "metrics": from_json(row.metrics_json),
            "report_path": row.report_path,
        }
        for row in connection.execute(query)
    }
