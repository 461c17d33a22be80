"""The few figures of a database that a monitoring system asks for every few seconds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.exc import SQLAlchemyError

from lyra_nli.errors import StorageError
from lyra_nli.settings import Settings
from lyra_nli.storage.engine import read
from lyra_nli.storage.reviews import count_reviews
from lyra_nli.storage.tables import nli_alerts
from lyra_nli.training.due import Condition, check_due
from lyra_nli.workspace import Workspace


@dataclass(frozen=True, slots=True)
class Figures:
    """What a database says.

    Attributes:
        agreed, corrected: reviews by what became of the model's label.
        conditions: of training, for the fast model.
        open_alerts: how many of each rule.
    """

    agreed: int
    corrected: int
    conditions: tuple[Condition, ...]
    open_alerts: Mapping[str, int]


def read_figures(settings: Settings) -> Figures:
    """Read them; a database that was never upgraded has no alerts.

    Raises:
        StorageError: the database is missing, foreign or damaged.
    """
    workspace = Workspace.open(settings, read_only=True)
    generation = workspace.generation
    try:
        with read(workspace.engine) as connection:
            base = settings.nli.fast_model
            counts = count_reviews(connection, generation, base)
            due = check_due(connection, generation, settings.due, base, counts=counts)
            alerts: dict[str, int] = {}
            if generation.has(nli_alerts.name):
                rule = nli_alerts.c.rule
                found = select(rule, func.count()).where(nli_alerts.c.resolved_at.is_(None))
                alerts = {row[0]: row[1] for row in connection.execute(found.group_by(rule))}
    except (ValueError, SQLAlchemyError) as error:  # a time that is none, a text for a number
        raise StorageError(f"the database holds what can't be read: {error}") from error
    finally:
        workspace.engine.dispose()
    agreed = counts.reviewed - counts.corrected
    return Figures(agreed, counts.corrected, due.conditions, alerts)
