"""Alerts: what the watch found. An open one is not raised again, a resolved one stays."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass

from sqlalchemy import Connection, insert, select, update

from lyra_nli.storage.engine import lock, new_id, now
from lyra_nli.storage.generation import Generation
from lyra_nli.storage.tables import nli_alerts


@dataclass(frozen=True, slots=True)
class Alert:
    """One alert.

    Attributes:
        at: when it was raised.
        rule: see `lyra_nli.monitoring.rules`.
        value, threshold: the figure that was too high, and from where it is.
        action: what was done about it, and what could not be done.
        resolved_at: when the watch found that it holds no more; None while it is open.
    """

    id: str
    at: str
    rule: str
    base_model: str
    version: str
    value: float | None
    threshold: float | None
    message: str
    action: str = ""
    resolved_at: str | None = None


@dataclass(frozen=True, slots=True)
class Finding:
    """What one rule says now.

    Attributes:
        exceeded: the figure is over its bound; None when nobody can tell: then an open alert
            stays open.
        since: when what it judges began; empty if that is no moment. An alert from before is
            about something else: it is resolved.
    """

    rule: str
    base_model: str
    version: str
    exceeded: bool | None
    value: float | None
    threshold: float
    message: str
    since: str = ""


def open_alerts(
    connection: Connection, generation: Generation, base_model: str | None = None
) -> list[Alert]:
    """Read what is open, newest first; none where the database was never upgraded."""
    return _read(connection, generation, base_model, only_open=True)


def recent_alerts(
    connection: Connection, generation: Generation, base_model: str | None = None, limit: int = 50
) -> list[Alert]:
    """Read the newest alerts, open and resolved, newest first."""
    return _read(connection, generation, base_model, limit=limit)


def note(
    connection: Connection,
    base_model: str,
    findings: Sequence[Finding],
    failed: Collection[str] = (),
) -> tuple[list[Alert], list[Alert]]:
    """Raise what is new, resolve what holds no more; all findings are of one base.

    An open alert about a version or a rule that was not looked at is resolved too: that version
    serves no more.

    Args:
        connection: in a transaction for writing.
        failed: rules, or what their names begin with, that could not be judged: nobody can
            tell whether their alerts still hold, so these stay open.

    Returns:
        The alerts that were raised, and those that were resolved.
    """
    lock(connection, nli_alerts)
    table = nli_alerts
    standing = select(table).where(table.c.resolved_at.is_(None), table.c.base_model == base_model)
    alerts = [Alert(**row._mapping) for row in connection.execute(standing)]
    holds = {(f.rule, f.version): f.since for f in findings if f.exceeded is not False}
    over, known = [], set()
    for alert in alerts:
        key = alert.rule, alert.version
        if key in holds and alert.at >= holds[key]:
            known.add(key)
        elif not alert.rule.startswith(tuple(failed)):
            over.append(alert)
    raised = [
        _raise(connection, finding)
        for finding in findings
        if finding.exceeded and (finding.rule, finding.version) not in known
    ]
    connection.execute(
        update(table).where(table.c.id.in_([alert.id for alert in over])).values(resolved_at=now())
    )
    return raised, over


def note_action(connection: Connection, alert_id: str, done: Sequence[str]) -> None:
    """Write down what was done about an alert, after what is there; nothing is said twice.

    Args:
        connection: in a transaction for writing.
    """
    own = nli_alerts.c.id == alert_id
    # What another watch wrote meanwhile must stay: read in the same transaction, and locked.
    before = select(nli_alerts.c.action).where(own).with_for_update()
    action: str = connection.scalar(before) or ""
    for words in done:
        if words not in action:
            action = f"{action}; {words}" if action else words
    connection.execute(update(nli_alerts).where(own).values(action=action))


def _raise(connection: Connection, finding: Finding) -> Alert:
    alert = Alert(
        id=new_id("nla"),
        at=now(),
        rule=finding.rule,
        base_model=finding.base_model,
        version=finding.version,
        value=finding.value,
        threshold=finding.threshold,
        message=finding.message,
    )
    connection.execute(insert(nli_alerts).values(asdict(alert)))
    return alert


def _read(
    connection: Connection,
    generation: Generation,
    base_model: str | None,
    *,
    only_open: bool = False,
    limit: int | None = None,
) -> list[Alert]:
    table = nli_alerts
    if not generation.has(table.name):
        return []
    statement = select(table).order_by(table.c.at.desc(), table.c.id).limit(limit)
    if base_model is not None:
        statement = statement.where(table.c.base_model == base_model)
    if only_open:
        statement = statement.where(table.c.resolved_at.is_(None))
    return [Alert(**row._mapping) for row in connection.execute(statement)]
