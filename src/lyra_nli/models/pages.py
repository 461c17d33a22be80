"""Huge pages: frozen weights where the processor finds them at once.

A short pair reads every weight and multiplies it with few tokens. In pages of 4 kB the processor
then spends some of the time on finding out where they lie (ADR 0013).
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterable, Iterator

import torch

_PAGE = 2 * 1024 * 1024
_MADV_COLLAPSE = 25
"""Of madvise(2), Linux 6.1 and later: move this memory into huge pages now."""


def enlarge(tensors: Iterable[torch.Tensor]) -> None:
    """Move tensors into huge pages, as many as the system has; what they hold stays the same.

    Nothing happens where there are none to be had: it is faster with them, and right without.
    """
    if sys.platform != "linux":
        return
    madvise = ctypes.CDLL(None).madvise
    madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    for start, stop in _merged(tensors):
        madvise(start, stop - start, _MADV_COLLAPSE)


def _merged(tensors: Iterable[torch.Tensor]) -> Iterator[tuple[int, int]]:
    """The memory of tensors of the CPU, in whole pages; what lies side by side as one."""
    pages = sorted(_pages(tensor) for tensor in tensors if tensor.device.type == "cpu")
    start = stop = 0
    for first, last in pages:
        if first > stop:
            if stop:
                yield start, stop
            start = first
        stop = max(stop, last)
    if stop:
        yield start, stop


def _pages(tensor: torch.Tensor) -> tuple[int, int]:
    # A tensor in oneDNN's layout has no storage that torch would tell.
    opaque = tensor.is_mkldnn
    start = torch.ops.mkldnn.data_ptr(tensor) if opaque else tensor.data_ptr()
    stop = start + (torch.ops.mkldnn._nbytes(tensor) if opaque else tensor.nbytes)
    return start // _PAGE * _PAGE, -(-stop // _PAGE) * _PAGE
