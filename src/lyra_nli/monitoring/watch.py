"""The watch: look at everything, raise what is new, resolve what is over, act, and tell.

The server does so every few minutes, `lyra-nli monitor check` when it is told to; both at once
raise nothing twice.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import date

from lyra_nli.errors import LyraNliError
from lyra_nli.monitoring import webhook
from lyra_nli.monitoring.alerts import Alert, Finding, note, note_action, open_alerts
from lyra_nli.monitoring.rules import CANARY, CORRECTION_RATE, OF_INPUT, findings
from lyra_nli.monitoring.standing import Standing, read_standing
from lyra_nli.records import BASE
from lyra_nli.registry.trials import Trials
from lyra_nli.storage.engine import read, write
from lyra_nli.workspace import Workspace

logger = logging.getLogger(__name__)

WHO = "watch"
"""The name that the registry's history keeps for what is done automatically."""

TOLD = "webhook told"
"""Stands in an alert's action once the webhook has taken it; until then every look tries again."""


@dataclass(frozen=True, slots=True)
class Checked:
    """What one look found.

    Attributes:
        findings: what every rule says, of every base.
        raised, resolved: alerts that are new, and that hold no more.
        open: all that are open now, newest first.
    """

    findings: list[Finding]
    raised: list[Alert]
    resolved: list[Alert]
    open: list[Alert]


def check(workspace: Workspace, today: date | None = None) -> Checked:
    """Look once, and do what the settings say about what was found.

    Args:
        workspace: opened for writing.
        today: UTC.

    Raises:
        StorageError: the database was not upgraded, or can't be written.
    """
    workspace.generation.require_upgraded()
    settings = workspace.settings.monitoring
    found: list[Finding] = []
    raised: list[Alert] = []
    resolved: list[Alert] = []
    for standing in standings(workspace, today):
        mine = findings(standing, settings)
        with write(workspace.engine) as connection:
            new, over = note(connection, standing.base_model, mine, standing.failed)
        found, raised, resolved = found + mine, raised + new, resolved + over
    for alert in resolved:
        logger.info("resolved: %s (%s): %s", alert.rule, alert.version, alert.message)
        _tell(workspace, alert, "resolved")
    for alert in raised:
        logger.warning("alert: %s (%s): %s", alert.rule, alert.version, alert.message)
    for alert in _open(workspace):
        _act(workspace, alert, found)
    return Checked(found, raised, resolved, _open(workspace))


def standings(workspace: Workspace, today: date | None = None) -> Iterator[Standing]:
    """Where each base stands: the fast one, and the slow one if a version ever served it."""
    settings = workspace.settings
    for base in dict.fromkeys((settings.nli.fast_model, settings.nli.slow_model)):
        with read(workspace.engine) as connection:
            standing = read_standing(
                connection, workspace.generation, base, settings.monitoring, today
            )
        if standing.events or base == settings.nli.fast_model:
            yield standing


def _open(workspace: Workspace) -> list[Alert]:
    with read(workspace.engine) as connection:
        return open_alerts(connection, workspace.generation)


def _act(workspace: Workspace, alert: Alert, found: Sequence[Finding]) -> None:
    """Roll back where that is asked for, tell who was not told, and write down what was done."""
    acted = (_roll_back(workspace, alert, found), _end_canary(workspace, alert, found))
    done = [words for words in acted if words]
    if workspace.settings.monitoring.webhook_url and TOLD not in alert.action:
        problem = _tell(workspace, alert, "open", "; ".join(filter(None, [alert.action, *done])))
        done.append(f"webhook failed: {problem}" if problem else TOLD)
    if any(words not in alert.action for words in done):
        with write(workspace.engine) as connection:
            note_action(connection, alert.id, done)


def _roll_back(workspace: Workspace, alert: Alert, found: Sequence[Finding]) -> str:
    """Let a version that is worse by this very look give way.

    An alert that is merely still open is no reason: since then a person may have decided that
    its version serves all the same.

    Returns:
        What was done; empty for nothing.
    """
    automatic = workspace.settings.monitoring.auto_rollback
    if not automatic or alert.rule != CORRECTION_RATE or alert.version == BASE:
        return ""
    over = {(f.rule, f.version) for f in found if f.base_model == alert.base_model and f.exceeded}
    if (CORRECTION_RATE, alert.version) not in over:
        return ""
    moved = sorted(rule for rule, _ in over if rule in OF_INPUT)
    if moved:
        return f"no rollback while other pairs come in: {', '.join(moved)}"
    try:
        # Only from this version: a person or another watch may have been faster, and to roll
        # back twice is to be back again.
        event = workspace.registry.rollback(
            alert.base_model, who=WHO, reason=alert.message, only_from=alert.version
        )
    except LyraNliError as error:
        logger.warning("no rollback of %s: %s", alert.version, error)
        return f"no rollback: {error.message}"
    logger.warning("rolled %s back to %s", alert.version, event.to_version or BASE)
    return f"rolled back to {event.to_version or BASE}"


def _end_canary(workspace: Workspace, alert: Alert, found: Sequence[Finding]) -> str:
    """End a canary that is worse by this very look.

    Returns:
        What was done; empty for nothing.
    """
    worse = {f.version: f for f in found if f.rule == CANARY and f.exceeded}
    if alert.rule != CANARY or alert.version not in worse:
        return ""
    trials = Trials(workspace.registry)
    began = worse[alert.version].since
    for trial in trials.open(alert.base_model):
        if (trial.kind, trial.version, trial.started_at) == ("canary", alert.version, began):
            try:
                trials.end("canary", alert.base_model, who=WHO, reason=alert.message, only=trial.id)
            except LyraNliError as error:
                logger.warning("the canary %s goes on: %s", alert.version, error)
                return f"the canary goes on: {error.message}"
            logger.warning("ended the canary %s", alert.version)
            return "ended the canary"
    return ""


def _tell(workspace: Workspace, alert: Alert, state: str, action: str = "") -> str:
    """Send an alert to the webhook, if there is one; says why that failed."""
    url = workspace.settings.monitoring.webhook_url
    if not url:
        return ""
    message = asdict(alert) | {
        "state": state,
        "action": action or alert.action,
        "text": f"lyra-nli: {alert.rule} {state}: {alert.message}",
    }
    problem = webhook.post(url, message)
    if problem:
        logger.warning("the webhook did not take the alert %s: %s", alert.id, problem)
    return problem
