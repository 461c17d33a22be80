"""The machine: its device, and which float type it multiplies fastest."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Literal

import torch
from torch.nn import functional

from lyra_nli.errors import SettingsError

WORTHWHILE = 1.2
"""From how many times faster on bfloat16 is taken: a little faster is not worth its rounding."""

TRIES = 12


def compute_dtype(
    wanted: Literal["auto", "fp32", "bf16", "fp16"], on: torch.device | None = None
) -> torch.dtype:
    """The type of frozen matrices and of the products with them.

    ``auto`` takes bfloat16 where it is the faster one: on a GPU that has it, and on a CPU that
    has instructions for it (AVX-512 BF16 or AMX) and multiplies faster with them, which is tried
    out. Elsewhere it takes float32, and never float16, in which large activations overflow.

    Args:
        on: where it runs; None: on what `device` gives.

    Raises:
        SettingsError: float16 is for GPUs.
    """
    on = on or device()
    if wanted == "fp16" and on.type == "cpu":
        raise SettingsError(
            "nli.precision is fp16, and nothing here multiplies that",
            hint="fp16 needs a GPU; set nli.precision to auto.",
        )
    if wanted == "auto":
        return torch.bfloat16 if _has_bf16(on) else torch.float32
    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[wanted]


def device_of(wanted: Literal["auto", "cpu", "cuda"]) -> torch.device:
    """The device that the settings ask for.

    Raises:
        SettingsError: there is no GPU that torch can use.
    """
    if wanted == "cuda" and not torch.cuda.is_available():
        raise SettingsError(
            "nli.device is cuda, and torch sees no GPU",
            hint="Install torch for CUDA (`nvidia-smi` shows the driver), or set nli.device to "
            "auto.",
        )
    return device() if wanted == "auto" else torch.device(wanted)


def device() -> torch.device:
    """The GPU when there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _has_bf16(on: torch.device) -> bool:
    if on.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    capabilities = torch.cpu.get_capabilities()
    able = any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16"))
    if not able:
        return False
    # In a thread that ends: the helpers that products leave to a thread (OpenMP) slow down those of
    # the one that judges later.
    with ThreadPoolExecutor(1) as own:
        return own.submit(_bf16_gain).result() > WORTHWHILE


@cache
def _bf16_gain() -> float:
    """How many times faster than float32 a product in bfloat16 is here; tens of milliseconds.

    Having the instructions says little: one server processor, without AMX, takes 1.8 times as long
    with them.
    """
    seconds: dict[torch.dtype, list[float]] = {torch.float32: [], torch.bfloat16: []}
    inputs = {d: (torch.ones(256, 768, dtype=d), torch.ones(768, 768, dtype=d)) for d in seconds}
    for _ in range(TRIES):
        for dtype, (rows, matrix) in inputs.items():
            started = time.perf_counter()
            functional.linear(rows, matrix)
            seconds[dtype].append(time.perf_counter() - started)
    return min(seconds[torch.float32]) / min(seconds[torch.bfloat16])
