"""The bound on memory: what bases and versions take, and what goes when it is reached.

Bytes of tensors are counted: a process takes some hundred megabytes beside them, for Python and
torch, and for the batch that is judged.
"""

from __future__ import annotations

import ctypes
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch

from lyra_nli.errors import ModelError
from lyra_nli.ml_server.slot import Slot
from lyra_nli.storage.engine import now

MB = 2**20


class Usage:
    """Who uses a base right now, and when somebody did last. Written on the event loop alone.

    Attributes:
        last_used: ISO-8601, UTC; None: never yet.
    """

    def __init__(self, last_used: str | None = None) -> None:
        self.last_used = last_used
        self._users = 0
        self._idle_since = time.monotonic()

    @contextmanager
    def by_one(self) -> Iterator[None]:
        """Somebody uses it."""
        self._users += 1
        try:
            yield
        finally:
            self._users -= 1
            self.last_used, self._idle_since = now(), time.monotonic()

    @property
    def idle_seconds(self) -> float:
        """How long nobody has used it; 0 while somebody does."""
        return 0.0 if self._users else time.monotonic() - self._idle_since


class Memory:
    """Counts, and makes room where that is possible.

    Args:
        limit_mb: the bound; None: there is none.
        slots: gives the bases in memory.
        idle: gives the base that may go as a whole, if nobody uses it.
        unload: lets it go.
    """

    def __init__(
        self,
        limit_mb: float | None,
        slots: Callable[[], Sequence[Slot]],
        idle: Callable[[], Slot | None],
        unload: Callable[[], None],
    ) -> None:
        self._limit = None if limit_mb is None else int(limit_mb * MB)
        self._slots, self._idle, self._unload = slots, idle, unload

    @property
    def used(self) -> int:
        """Bytes of all that is in memory."""
        return sum(taken(slot) for slot in self._slots())

    def make_room(self, need: int, what: str, on: Slot | None = None) -> None:
        """Let versions go that nothing holds, the longest unused first, then the idle base.

        Nothing goes if all of that is not enough.

        Args:
            need: bytes.
            what: needs them.
            on: the base it is for, which stays; it may be on its way into memory.

        Raises:
            ModelError: there is not enough room.
        """
        here = list(self._slots())
        here += [on] if on and on not in here else []
        if self._limit is None or (over := sum(map(taken, here)) + need - self._limit) <= 0:
            return
        idle = self._idle()
        idle = None if idle is on else idle
        staying = [slot for slot in here if slot is not idle]
        spare = sum(served.own_bytes for slot in staying for served in slot.unpinned())
        spare += taken(idle) if idle else 0
        if over > spare:
            raise ModelError(
                f"{what} needs {need / MB:.1f} MB of memory, and {(need - over + spare) / MB:.1f} "
                f"of the {self._limit / MB:.1f} that nli.memory_mb allows can be had",
                hint="Raise nli.memory_mb; GET /nli/adapter/status shows what takes it.",
            )
        for slot in staying:
            while over > 0 and (freed := slot.shed()):
                over -= freed
        del idle, here, staying  # or the base would stay until the end of this function
        if over > 0:
            self._unload()


def give_back() -> None:
    """Let the system have what was freed: torch and glibc keep it unless they are told."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # other C libraries have none
        if trim is not None:
            trim(0)


def taken(slot: Slot) -> int:
    """Bytes of a base and its resident versions."""
    return slot.engine.base_bytes + sum(served.own_bytes for served in slot.all_resident())
