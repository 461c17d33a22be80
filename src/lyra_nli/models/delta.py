"""A delta: what one version adds to the frozen weights, as low-rank matrices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch

from lyra_nli.models.adapter import Adapter
from lyra_nli.models.positions import Correction


@dataclass(frozen=True)
class LowRank:
    """Adds x @ down @ up: down [in, r], up [r, out], which alpha and rank have scaled."""

    down: torch.Tensor
    up: torch.Tensor

    def add(self, y: torch.Tensor, x: torch.Tensor) -> None:
        """Add to y [rows, out] in place what x [rows, in] gives."""
        y.addmm_(x @ self.down, self.up)


@dataclass(frozen=True, eq=False)
class Delta:
    """One version's part beside the base.

    Attributes:
        sites: (layer, product in it) -> what is added there; -1 is the head.
        tables: layer -> what is added to its position tables.
    """

    sites: Mapping[tuple[int, str], LowRank]
    tables: Mapping[int, Correction]

    @cached_property
    def own_bytes(self) -> int:
        """Memory that this version takes beside the base."""
        tensors = [tensor for low in self.sites.values() for tensor in (low.down, low.up)]
        tensors += [tensor for table in self.tables.values() for tensor in table]
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def low_rank(
    adapter: Adapter, modules: Sequence[tuple[str, float]], dtype: torch.dtype
) -> LowRank | None:
    """What an adapter adds to modules that are one product here; None where it touches none.

    Args:
        modules: name and factor on the output, in the order of the outputs, which are equally wide.
    """
    touched = [(at, *module) for at, module in enumerate(modules) if module[0] in adapter.matrices]
    if not touched:
        return None
    downs, ups = [], []
    for at, name, factor in touched:
        a, b = adapter.matrices[name]
        size = len(b)
        up = b.new_zeros(len(a), len(modules) * size)
        up[:, at * size : (at + 1) * size] = adapter.scale * factor * b.T
        downs.append(a.T)
        ups.append(up)
    return LowRank(torch.cat(downs, dim=1).to(dtype), torch.cat(ups).to(dtype))
