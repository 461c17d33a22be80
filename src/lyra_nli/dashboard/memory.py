"""Memory: what was computed from the same rows is not computed again, and nobody waits for long."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

T = TypeVar("T")

WORKERS: Final = 2


@dataclass(frozen=True, slots=True)
class Known(Generic[T]):
    """A value, and the stamp of the rows that it was computed from."""

    stamp: Hashable
    value: T


class Memory:
    """Keeps the latest value of each key; computes a new one when its stamp has changed.

    Computing goes on behind: who has no time left gets the value before. One thread at a time
    computes a key, whoever asks for it, and what is computed may recall nothing itself.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(WORKERS, "nli-dashboard")
        self._lock = threading.Lock()
        self._known: dict[Hashable, Known[Any]] = {}
        self._running: dict[Hashable, Future[Known[Any]]] = {}

    def recall(
        self, key: Hashable, stamp: Hashable, compute: Callable[[], T], patience: float
    ) -> tuple[T, bool]:
        """Give the value of a key.

        Args:
            stamp: of the rows as they are now.
            patience: seconds to wait for a new value where there is an old one.

        Returns:
            The value, and whether it is of this stamp.
        """
        with self._lock:
            known: Known[T] | None = self._known.get(key)
            if known is not None and known.stamp == stamp:
                return known.value, True
            running = self._running.get(key)
            if running is None:
                running = self._pool.submit(self._compute, key, stamp, compute)
                self._running[key] = running
        try:
            found: Known[T] = running.result(None if known is None else patience)
        except TimeoutError:
            if known is None:
                raise
            return known.value, False
        return found.value, found.stamp == stamp

    def close(self) -> None:
        """Finish what is being computed, and end the threads."""
        self._pool.shutdown(cancel_futures=True)

    def _compute(self, key: Hashable, stamp: Hashable, compute: Callable[[], T]) -> Known[T]:
        try:
            known = Known(stamp, compute())
            with self._lock:
                self._known[key] = known
            return known
        finally:
            with self._lock:
                del self._running[key]
