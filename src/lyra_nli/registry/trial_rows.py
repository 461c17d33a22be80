"""Trials as values, and how they lie in the database."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, get_args

from sqlalchemy import Connection, insert, inspect, select, update

from lyra_nli.registry.rows import Action, Event, insert_event
from lyra_nli.storage.engine import now
from lyra_nli.storage.tables import nli_trials

TrialKind = Literal["shadow", "canary"]
KINDS: tuple[TrialKind, ...] = get_args(TrialKind)


@dataclass(frozen=True, slots=True)
class Trial:
    """A version that is tried out on live traffic, beside the active one.

    Attributes:
        kind: ``shadow``: it judges pairs again and answers nobody; ``canary``: it answers.
        share: of the pairs that a shadow judges, or of the keys that a canary answers.
        ended_at: None while it is open.
    """

    id: str
    base_model: str
    kind: TrialKind
    version: str
    share: float
    started_at: str
    started_by: str
    reason: str
    ended_at: str | None = None
    ended_by: str | None = None
    end_reason: str | None = None

    def takes(self, key: str) -> bool:
        """Whether a key falls into the share: always the same answer, in every process."""
        drawn = hashlib.sha256(f"{self.id}\x1f{key}".encode("utf-8", "surrogatepass")).digest()
        return int.from_bytes(drawn[:8]) < self.share * 2**64


def open_trials(connection: Connection, **conditions: str) -> list[Trial]:
    """Read the open trials whose columns have these values; an older database has none."""
    return read_trials(connection, ended_at=None, **conditions)


def read_trials(connection: Connection, **conditions: str | None) -> list[Trial]:
    """Read the trials whose columns have these values, newest first."""
    if not inspect(connection).has_table(nli_trials.name):
        return []
    query = select(nli_trials).where(
        *(nli_trials.c[name] == value for name, value in conditions.items())
    )
    newest = query.order_by(nli_trials.c.started_at.desc(), nli_trials.c.id)
    return [Trial(**row._mapping) for row in connection.execute(newest)]


def start_trial(connection: Connection, trial: Trial) -> Trial:
    """Write a new trial, and its event."""
    connection.execute(insert(nli_trials).values(asdict(trial)))
    said = ": ".join(filter(None, [f"{100 * trial.share:.4g}% of the traffic", trial.reason]))
    _note(connection, trial, "start", trial.started_by, said)
    return trial


def end_trial(connection: Connection, trial: Trial, *, who: str, reason: str) -> Trial:
    """Close an open trial, and write its event."""
    end: dict[str, Any] = {"ended_at": now(), "ended_by": who, "end_reason": reason}
    connection.execute(update(nli_trials).where(nli_trials.c.id == trial.id).values(end))
    _note(connection, trial, "end", who, reason)
    return replace(trial, **end)


def _note(
    connection: Connection, trial: Trial, step: Literal["start", "end"], who: str, reason: str
) -> None:
    action: Action = f"{trial.kind}_{step}"  # type: ignore[assignment]
    before, after = (None, trial.version) if step == "start" else (trial.version, None)
    insert_event(connection, Event(now(), who, action, trial.base_model, before, after, reason))
