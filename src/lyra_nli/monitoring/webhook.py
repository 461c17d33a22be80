"""Telling somebody else: one POST of JSON, tried a few times."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

TIMEOUT_SECONDS: Final = 5.0
ATTEMPTS: Final = 3
WAIT_SECONDS: Final = 0.5
"""Before the second attempt; twice as long before the third."""


def post(url: str, message: Mapping[str, object]) -> str:
    """Send a message; blocks for up to a quarter of a minute.

    Returns:
        Why it could not be sent; empty when it was. The URL may hold a secret: not shown.
    """
    import httpx
    from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_exponential

    attempts = Retrying(
        stop=stop_after_attempt(ATTEMPTS),
        wait=wait_exponential(multiplier=WAIT_SECONDS),
        retry=retry_if_exception(_may_pass),
        reraise=True,
    )
    try:
        for attempt in attempts:
            with attempt:
                httpx.post(url, json=message, timeout=TIMEOUT_SECONDS).raise_for_status()
    except httpx.HTTPStatusError as error:
        return f"it answered {error.response.status_code}"
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        return type(error).__name__
    return ""


def _may_pass(error: BaseException) -> bool:
    """A fault of the network or of a busy server, which may be over in a moment."""
    import httpx

    if isinstance(error, httpx.HTTPStatusError):
        return error.response.status_code == 429 or error.response.is_server_error
    return isinstance(error, httpx.TransportError) and not isinstance(
        error, httpx.UnsupportedProtocol
    )
