"""The deadline of a request: whatever it waits for, and what waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from lyra_nli.errors import LateError


@asynccontextmanager
async def deadline(limit: float, asked: float | None) -> AsyncIterator[None]:
    """Give up what is not done in time: it is cancelled, and what it waits for with it.

    Args:
        limit: seconds, of the settings.
        asked: seconds, of the request, which may only shorten it.

    Raises:
        LateError: the time is over.
    """
    seconds = limit if asked is None else min(limit, asked)
    scope = asyncio.timeout(seconds)
    try:
        async with scope:
            yield
    except TimeoutError as error:
        if not scope.expired():  # somebody else's
            raise
        whose = "ml_server.deadline_seconds" if seconds == limit else "as the request asked"
        raise LateError(
            f"not judged within {seconds:g} seconds, {whose}",
            hint="Send fewer pairs at a time, or allow more time: deadline_seconds of the request, "
            f"up to {limit:g}, or ml_server.deadline_seconds of the settings.",
        ) from error
