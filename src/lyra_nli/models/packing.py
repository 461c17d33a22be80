"""Packing: tokens of several rows end to end, and the places they take where rows are padded.

Products and norms see tokens, and no padding; only attention wants rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

_STEP = 128
"""Tokens are rounded up to a multiple of it: every shape of a product may want a kernel of its
own, which takes longer to compile than a few tokens more take to multiply."""


@dataclass(frozen=True)
class Packing:
    """How the tokens of padded rows lie end to end.

    Attributes:
        rows: how many.
        length: places of a padded row.
        tokens: how many lie end to end; the last ones may belong to no row.
        starts: the first token of each row, int64 [rows].
        places: the token in each place, any one where none stands, int64 [rows * length]; None
            where every place is a token.
        real: the place of each token of a row, int64; None likewise.
        blocked: places to which nobody attends, bool [rows, length]; None where there are none.
    """

    rows: int
    length: int
    tokens: int
    starts: torch.Tensor
    places: torch.Tensor | None = None
    real: torch.Tensor | None = None
    blocked: torch.Tensor | None = None

    @classmethod
    def padded(cls, mask: torch.Tensor) -> Packing:
        """Every place is a token, also where `mask` [rows, length] is 0."""
        rows, length = mask.shape
        absent = mask == 0
        starts = torch.arange(rows, device=mask.device) * length
        blocked = absent if absent.any() else None
        return cls(rows, length, rows * length, starts, blocked=blocked)

    @classmethod
    def tight(cls, mask: torch.Tensor) -> Packing:
        """Only places where `mask` [rows, length] is 1 are tokens; each row begins with one."""
        there = mask.flatten() != 0
        if bool(there.all()):
            return cls.padded(mask)
        rows, length = mask.shape
        real = there.nonzero()[:, 0]
        places = (there.cumsum(0) - 1).clamp(min=0)
        tokens = -(-len(real) // _STEP) * _STEP
        return cls(rows, length, tokens, places[::length], places, real, mask == 0)

    def pack(self, hidden: torch.Tensor) -> torch.Tensor:
        """[rows, length, size] -> [tokens, size]."""
        hidden = hidden.flatten(0, 1)
        if self.real is None:
            return hidden
        spare = self.real.new_zeros(self.tokens - len(self.real))  # copies that nobody reads
        return hidden.index_select(0, torch.cat([self.real, spare]))
