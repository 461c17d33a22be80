"""A clock: what took how long."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Clock:
    """Seconds by step; `say` is told of every step as it begins."""

    def __init__(self, say: Callable[[str], None] = lambda _: None) -> None:
        self.seconds: dict[str, float] = {}
        self._say = say

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Time a block."""
        self._say(name)
        started = time.monotonic()
        try:
            yield
        finally:
            self.seconds[name] = time.monotonic() - started
