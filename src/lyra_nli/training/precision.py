"""Precision: which floating-point type this machine trains fastest in."""

from __future__ import annotations

from typing import Literal

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


def _has_bf16() -> bool:
    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported())
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16"))
