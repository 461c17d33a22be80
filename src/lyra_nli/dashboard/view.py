"""A view: one look at the database, in which no part that fails takes the others with it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeAlias, TypeVar

from sqlalchemy import Connection, Engine

from lyra_nli.dashboard.memory import Memory
from lyra_nli.errors import LyraNliError
from lyra_nli.registry.versions import Registry
from lyra_nli.settings import Settings
from lyra_nli.storage.engine import UNREADABLE, now, read
from lyra_nli.storage.generation import Generation, inspect_database
from lyra_nli.workspace import Workspace

logger = logging.getLogger(__name__)

T = TypeVar("T")
Fields: TypeAlias = dict[str, Any]
Stamp: TypeAlias = Callable[[Connection, Generation], Hashable]

PATIENCE: Final = 0.1
"""Seconds. Figures of a hundred thousand reviews take longer to count than a page should take."""


@dataclass
class View:
    """What a page reads from, and the sentences that it gathers on the way.

    Attributes:
        base_model: whose figures are shown.
        workspace: None when there is no database to read; `missing` says why.
        memory: of what was computed for the same rows before.
        until: on the monotonic clock: so long the page may wait for figures that it has from
            before.
        stale: some of those are shown as they were before the last changes.
        missing: what is not there, and what to do about it.
        notes: what to know about the figures.
    """

    settings: Settings
    base_model: str
    workspace: Workspace | None
    memory: Memory
    until: float
    stale: bool = False
    missing: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def generation(self) -> Generation:
        """What the database is; without one, a database that has nothing."""
        return self.workspace.generation if self.workspace else Generation({})

    def attempt(self, what: str, default: T, work: Callable[[Workspace], T]) -> T:
        """Do a piece of work, or give `default` and say in `missing` why.

        Args:
            what: is shown by it, for the sentence: ``the versions``.
            work: gets the workspace; without one there is nothing to do.
        """
        if self.workspace is None:
            return default
        try:
            return work(self.workspace)
        except UNREADABLE as error:
            logger.warning("the dashboard can't show %s", what, exc_info=error)
            self.missing.append(f"{what.capitalize()} can't be shown: {reason(error)}")
            return default

    def ask(
        self,
        what: str,
        default: T,
        query: Callable[[Connection, Generation], T],
        *,
        needs: Mapping[str, tuple[str, ...]],
        stamp: Stamp | None = None,
    ) -> T:
        """Ask the database, as in `attempt`.

        Args:
            what: is shown by it, for the sentence.
            query: is asked on a connection of its own; computes the same for the same rows.
            needs: tables with the columns without which there is nothing to ask.
            stamp: tells when those rows have changed; the answer is remembered until then.
        """
        if not all(self.generation.has(table, *columns) for table, columns in needs.items()):
            return default

        def compute(workspace: Workspace) -> T:
            with read(workspace.engine) as connection:
                return query(connection, workspace.generation)

        def work(workspace: Workspace) -> T:
            if stamp is None:
                return compute(workspace)
            with read(workspace.engine) as connection:
                rows = (workspace.engine, stamp(connection, workspace.generation))
            value, fresh = self.memory.recall(
                (what, self.base_model),
                rows,
                lambda: compute(workspace),
                max(0.0, self.until - time.monotonic()),
            )
            self.stale |= not fresh
            return value

        return self.attempt(what, default, work)

    def answer(self, fields: Mapping[str, Any]) -> Fields:
        """The page's fields in the envelope that all pages have."""
        nli = self.settings.nli
        if self.stale:
            self.notes.append("Some figures are still being counted anew: look again in a moment.")
        return {
            "ok": True,
            "at": now(),
            "base_model": self.base_model,
            "bases": [
                {"role": "fast", "name": nli.fast_model},
                {"role": "slow", "name": nli.slow_model},
            ],
            "stale": self.stale,
            "missing": list(dict.fromkeys(self.missing)),
            "notes": list(dict.fromkeys(self.notes)),
            **fields,
        }


def open_view(
    settings: Settings,
    base_model: str,
    engine: Callable[[], Engine],
    memory: Memory,
    patience: float = PATIENCE,
) -> View:
    """Look at the database, whatever it is.

    Args:
        engine: gives the engine, or raises `StorageError`.
        patience: seconds that the page may wait for figures that it has from before.
    """
    view = View(settings, base_model, None, memory, time.monotonic() + patience)
    try:
        opened = engine()
        registry = Registry(opened, Path(settings.nli.adapters_dir))
        view.workspace = Workspace(settings, opened, inspect_database(opened), registry)
    except UNREADABLE as error:
        view.missing.append(reason(error))
        return view
    if not view.generation.migrated:
        view.missing.append(
            f"This database ({view.generation.name}) lacks tables of this release: add them with "
            "`lyra-nli db upgrade`. Until then their figures are not here."
        )
    return view


def reason(error: BaseException) -> str:
    """Say why something could not be read, and what to do, in one line."""
    if isinstance(error, LyraNliError):
        return " ".join(filter(None, (_sentence(error.message), *error.problems[:3], error.hint)))
    return _sentence(f"what is stored there can't be read ({type(error).__name__}: {error})")


def _sentence(text: str) -> str:
    text = " ".join(text.split())
    return f"{text[:1].upper()}{text[1:]}{'' if text.endswith(('.', '!', '?')) else '.'}"
