"""The machine: its device, its fastest float type, and how to make it repeat itself exactly."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch


def compute_dtype(wanted: Literal["auto", "fp32", "bf16"]) -> torch.dtype:
    """The type of the frozen matrices and of matrix products while training.

    ``auto`` takes bfloat16 where the hardware multiplies it natively (AVX-512 BF16 or AMX, or
    a GPU that has it) and float32 elsewhere, where bfloat16 would be emulated and slower.
    """
    if wanted == "auto":
        return torch.bfloat16 if _has_bf16() else torch.float32
    return torch.bfloat16 if wanted == "bf16" else torch.float32


def device() -> torch.device:
    """The GPU when there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


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


def _has_bf16() -> bool:
    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported())
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16"))
