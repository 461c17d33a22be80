"""Repeating: the same training again gives the same bytes, on a machine that rounds alike."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import transformers


@contextmanager
def deterministic(seed: int, threads: int | None) -> Iterator[None]:
    """Fix seed, thread count and algorithms; put everything back afterwards."""
    before = torch.get_num_threads()
    strict = torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(threads or before)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what cuBLAS asks for then
    torch.use_deterministic_algorithms(True)
    # Every new tensor would be filled with NaN first; nothing here reads what it did not write.
    memory: Any = torch.utils.deterministic
    filled, memory.fill_uninitialized_memory = memory.fill_uninitialized_memory, False
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(strict)
            memory.fill_uninitialized_memory = filled
            torch.set_num_threads(before)


def rounding(threads: int | None) -> str:
    """A short hash of what products round by: releases, the processor's abilities, threads."""
    facts = {
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "cpu": {name: str(value) for name, value in torch.cpu.get_capabilities().items()},
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "",
        "threads": threads or torch.get_num_threads(),
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:12]
