"""Following the registry: what another process activates or rolls back is served soon after.

A version and its calibration change together: both are in the one ``Served`` that is flipped to.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Final

from sqlalchemy.exc import SQLAlchemyError

from lyra_nli.errors import LyraNliError
from lyra_nli.ml_server.calibrations import Calibrations
from lyra_nli.ml_server.slot import Slot
from lyra_nli.ml_server.source import RegistrySource
from lyra_nli.registry.versions import Version

logger = logging.getLogger(__name__)

RETRY_SECONDS: Final = 5.0
"""A version that could not be loaded is tried again this much later, or when it changes."""


class Follower:
    """Makes each slot serve the version that the registry calls active.

    On failure the slot goes on with what it serves, and ``error`` says why.

    Args:
        source: the registry.
    """

    def __init__(self, source: RegistrySource) -> None:
        self._source = source
        self._failed: dict[str, tuple[Version, float, str]] = {}
        self._error: str | None = None
        self._ended: str | None = None

    @property
    def error(self) -> str | None:
        """Why the registry can't be followed, or its active version not served."""
        return self._ended or self._error

    def end(self, error: BaseException) -> None:
        """Remember that a bug ended the following: what is served stays, until a restart."""
        self._ended = f"following the registry ended, restart the server: {error!r}"

    def look(self, slots: Iterable[Slot]) -> None:
        """Look once, load what changed, flip. Blocks; never raises a LyraNliError."""
        problems = []
        try:
            with self._source.open(read_only=True) as registry:
                calibrations = Calibrations(registry.engine)
                for slot in slots:
                    wanted = registry.active(slot.base.name)
                    problem = self._serve(slot, wanted, calibrations)
                    problems += [problem] if problem else []
                    calibrations.renew(slot)
                problems += dict.fromkeys(calibrations.problems)
        except (LyraNliError, OSError, SQLAlchemyError) as error:
            problems.append(str(error))
        self._tell("\n".join(problems) or None)

    def forget(self) -> None:
        """Someone acted by hand: what failed before may be tried again at once."""
        self._failed.clear()
        self._error = None

    def _serve(self, slot: Slot, wanted: Version | None, calibrations: Calibrations) -> str | None:
        """Make `wanted` current; returns why that is not possible."""
        if slot.current.holds(wanted):
            self._failed.pop(slot.base.name, None)
            return None
        if wanted is None:
            slot.flip(slot.pristine)
            logger.info("%s: serving the base model", slot.base.name)
            return None
        failed = self._failed.get(slot.base.name)
        if failed and failed[0] == wanted and time.monotonic() < failed[1]:
            return failed[2]
        try:
            served = slot.resident(wanted) or slot.build(wanted)
            slot.flip(calibrations.renewed(served, slot.base.name))
        except (LyraNliError, OSError, RuntimeError) as error:  # torch: RuntimeError, no memory
            problem = f"{wanted.name} is active but {slot.current.name} is still served: {error}"
            self._failed[slot.base.name] = (wanted, time.monotonic() + RETRY_SECONDS, problem)
            return problem
        logger.info("%s: serving %s", slot.base.name, wanted.name)
        return None

    def _tell(self, error: str | None) -> None:
        if error != self._error:
            if error:
                logger.warning("following the registry: %s", error)
            else:
                logger.info("following the registry again: %s", self._source.shown)
        self._error = error


async def keep_following(look: Callable[[], Awaitable[None]], seconds: float) -> None:
    """Look for ever, every so many seconds, until cancelled."""
    while True:
        await asyncio.sleep(seconds)
        await look()
