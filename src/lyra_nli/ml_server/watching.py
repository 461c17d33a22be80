"""The watch in the server: the same look as `lyra-nli monitor check`, every few minutes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from lyra_nli.monitoring.watch import Checked, check
from lyra_nli.settings import Settings
from lyra_nli.storage.engine import DAMAGED, UNREADABLE
from lyra_nli.workspace import Workspace

logger = logging.getLogger(__name__)


class Watcher:
    """Looks, and goes on after every failure; says each failure once.

    Attributes:
        error: why it can't look, or looks no more; None: it does.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.error: str | None = None

    async def keep(self) -> None:
        """Look every `monitoring.check_minutes`; 0: never."""
        seconds = self._settings.monitoring.check_minutes * 60
        while seconds:
            # First of all: a server that is restarted often would never look otherwise.
            await asyncio.to_thread(self.look)
            await asyncio.sleep(seconds)

    def ended(self, task: asyncio.Task[None]) -> None:
        """Remember that a bug ended the looking."""
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self.error = f"the watch ended, restart the server: {error!r}"
            logger.error("the watch ended, restart the server: %s", error, exc_info=error)

    def look(self) -> Checked | None:
        """Look once, blocking; None when that failed, and then `error` says why."""
        try:
            workspace = Workspace.open(self._settings)
            try:
                checked = check(workspace)
            finally:
                workspace.engine.dispose()
        except UNREADABLE as error:
            # Damaged rows and bugs of ours raise the same: a traceback tells them apart.
            puzzling = isinstance(error, DAMAGED)
            said = repr(error) if puzzling else str(error)
            if said != self.error:
                logger.warning("the watch can't look: %s", said, exc_info=puzzling)
            self.error = said
            return None
        self.error = None
        return checked


@asynccontextmanager
async def watching(watcher: Watcher) -> AsyncIterator[None]:
    """Keep looking, in a thread. For a server's lifespan."""
    task = asyncio.create_task(watcher.keep(), name="watching")
    task.add_done_callback(watcher.ended)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
