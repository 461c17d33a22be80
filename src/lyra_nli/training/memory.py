"""Memory: how much a pass over a batch takes, so that a training fits before it starts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import nn

MOST_TOKENS = 2048
"""Padded tokens per pass where memory is plentiful: a usual batch in one."""

AHEAD_TOKENS = 2**15
"""Tokens whose frozen layers are run together where hidden states are not kept: enough to fill
batches of every length, and few enough that their states take tens of megabytes."""

CGROUPS, GROUPS_OF_THIS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")

_LEAST_TOKENS = 64
_SHARE = 0.1
"""Of the machine's memory, what activations may take: others need some too."""


def bytes_per_token(
    model: nn.Module, layers: int, length: int, dtype: torch.dtype, *, dropout: bool = True
) -> int:
    """Activations that the backward pass needs, per padded token, an upper bound.

    A layer keeps about 14 states of the hidden size and 3 of the intermediate size (with
    dropout 20 and 5: every adapter's own input, and what of it was dropped), and five rows of
    attention scores a head; counted from what autograd saves in `models.encoder`.

    Args:
        layers: that gradients run through.
        length: tokens of the longest row.
        dtype: of the encoder's weights.
        dropout: whether adapters drop inputs.
    """
    config: Any = model.config
    hidden, intermediate = (20, 5) if dropout else (14, 3)
    states = hidden * config.hidden_size + intermediate * config.intermediate_size
    scores = 5 * config.num_attention_heads * length
    return int(layers * (states + scores) * dtype.itemsize)


def pass_tokens(per_token: int, memory: int | None = None) -> int:
    """Padded tokens that one pass may hold.

    The machine's memory counts, not what of it is free now: the same training on the same
    machine must cut its batches in the same places.

    Args:
        per_token: bytes, from `bytes_per_token`.
        memory: bytes; None asks the machine.
    """
    memory = machine_memory() if memory is None else memory
    fitting = int(_SHARE * memory / per_token)
    return max(_LEAST_TOKENS, min(MOST_TOKENS, fitting))


def machine_memory() -> int:
    """Bytes that this process could ever have: the machine's, or its container's where less."""
    return min([psutil.virtual_memory().total, *_container_limits()])


def free_memory() -> int:
    """Bytes that this process can still have: what is free, or what its container leaves it."""
    used = psutil.Process().memory_info().rss
    return max(0, min(psutil.virtual_memory().available, machine_memory() - used))


def _container_limits() -> Iterator[int]:
    """What Linux control groups allow this process, version 2 and 1; nothing elsewhere."""
    try:
        groups = GROUPS_OF_THIS.read_text("utf-8").splitlines()
    except OSError:
        return
    for group in groups:
        _, kinds, path = group.split(":", 2)
        root, file = (CGROUPS, "memory.max")
        if "memory" in kinds.split(","):
            root, file = (CGROUPS / "memory", "memory.limit_in_bytes")
        elif kinds:
            continue
        own = root / path.strip("/")
        for folder in (own, *own.parents):
            with suppress(OSError, ValueError):  # no such file, or no limit: `max`
                yield int((folder / file).read_text("utf-8"))
            if folder == root:
                break
