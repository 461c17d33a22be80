"""A thread that writes what others put somewhere: at once, every few seconds, and at the end."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

CLOSE_SECONDS: Final = 10.0
"""What may be spent on what waits when the server ends."""


class Writer:
    """Calls `write` every so many seconds, in a thread of its own, from `start` until `close`.

    Args:
        name: of the thread.
        write: writes what waits; what it raises ends the thread.
    """

    def __init__(self, name: str, seconds: float, write: Callable[[], None]) -> None:
        self._seconds, self._write = seconds, write
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    @property
    def ended(self) -> bool:
        """Whether it began to write and writes no more."""
        return self._thread.ident is not None and not self._thread.is_alive()

    def start(self) -> None:
        """Begin to write; the second time, and after `close`, it does nothing."""
        if self._thread.ident is None and not self._ending.is_set():
            self._thread.start()

    def close(self) -> None:
        """Write what waits, within `CLOSE_SECONDS`, and end the thread."""
        self._ending.set()
        if self._thread.ident is not None:
            self._thread.join(CLOSE_SECONDS)

    def _run(self) -> None:
        self._write()
        ending = False
        while not ending:
            ending = self._ending.wait(self._seconds)
            self._write()
