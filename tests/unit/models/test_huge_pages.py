"""Huge pages: memory moves there, and what it holds stays."""

import platform
import re
from pathlib import Path

import pytest
import torch

from lyra_nli.models.linear import FrozenLinear
from lyra_nli.models.pages import enlarge

MB = 1024 * 1024


def huge_bytes(address: int) -> int:
    """How much of the mapping at an address lies in huge pages, by the kernel's own account."""
    inside = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if span := re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line):
            start, stop = (int(end, 16) for end in span.groups())
            inside = start <= address < stop
        elif inside and line.startswith("AnonHugePages:"):
            return int(line.split()[1]) * 1024
    return 0


def test_what_tensors_hold_stays_the_same() -> None:
    plain, small = torch.randn(1536, 1536), torch.arange(7)
    frozen = FrozenLinear(plain, torch.zeros(1536), torch.float32)
    before, x = plain.clone(), torch.randn(3, 1536)
    product = frozen(x)

    enlarge([plain, frozen.weight, small, torch.empty(0), torch.empty(5, device="meta")])

    assert torch.equal(plain, before)
    assert torch.equal(small, torch.arange(7))
    assert torch.equal(frozen(x), product)


def has_huge_pages() -> bool:
    """MADV_COLLAPSE came with Linux 6.1."""
    if not Path("/sys/kernel/mm/transparent_hugepage").exists():
        return False
    major, minor = platform.release().split(".")[:2]
    return (int(major), int(re.sub(r"\D.*", "", minor))) >= (6, 1)


@pytest.mark.skipif(not has_huge_pages(), reason="this system has no huge pages to ask for")
def test_memory_moves_into_huge_pages() -> None:
    tensor = torch.zeros(32 * MB, dtype=torch.uint8)
    tensor.fill_(3)
    enlarge([tensor])
    assert huge_bytes(tensor.data_ptr() + 4 * MB) >= 2 * MB
    assert bool((tensor == 3).all())


def test_no_tensors_are_fine() -> None:
    enlarge([])
