"""Threads of their own for work that would block, awaited from the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

import torch

P = ParamSpec("P")
T = TypeVar("T")


def worker(name: str, cores: int = 1) -> ThreadPoolExecutor:
    """One thread, whose products take so many cores.

    Only the thread that judges should have more than one. Each thread of which torch uses several
    cores has helpers of its own (OpenMP), and where all of them together are more than there are
    cores, helpers sleep between products instead of waiting for the next: with two such threads
    on two cores, batches take a quarter longer.
    """
    return ThreadPoolExecutor(1, name, initializer=torch.set_num_threads, initargs=(cores,))


async def on(
    executor: ThreadPoolExecutor, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs
) -> T:
    """Do the work there, and give what it gives or raises."""
    return await asyncio.wrap_future(executor.submit(work, *args, **kwargs))
