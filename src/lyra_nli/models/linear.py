"""A frozen linear layer, laid out in memory as the processor likes it best."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional


class FrozenLinear:
    """y = x W^T + bias, and a GELU after it if wanted.

    On x86 the weight is kept in oneDNN's own layout, as torch.compile keeps frozen weights: small
    products gain half of their time. Elsewhere it is torch's plain product.

    Args:
        weight: [out, in]; copied, never changed.
        bias: [out].
        dtype: that products run in.

    Attributes:
        weight: in its own layout, which may be opaque.
    """

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor, dtype: torch.dtype) -> None:
        self._bias, weight = bias.detach().to(dtype), weight.detach().to(dtype).contiguous()
        self._packed = (
            weight.device.type == "cpu"
            and torch.backends.mkldnn.enabled
            # oneDNN refuses bfloat16 on processors that would emulate it; torch does not.
            and (dtype != torch.bfloat16 or torch.ops.mkldnn._is_mkldnn_bf16_supported())
        )
        self.weight = (
            torch.ops.mkldnn._reorder_linear_weight(weight, None) if self._packed else weight
        )

    @property
    def own_bytes(self) -> int:
        """Memory of the weight, whoever lays it out, and of the bias."""
        return sum(t.numel() * t.element_size() for t in (self.weight, self._bias))

    @classmethod
    def of(cls, modules: Sequence[tuple[nn.Linear, float]], dtype: torch.dtype) -> FrozenLinear:
        """Layers of the same input as one, each with a factor on its output."""
        weight = torch.cat([module.weight * factor for module, factor in modules])
        bias = torch.cat([module.bias * factor for module, factor in modules])
        return cls(weight, bias, dtype)

    def __call__(self, x: torch.Tensor, *, gelu: bool = False) -> torch.Tensor:
        """[rows, in] -> [rows, out]."""
        if self._packed:
            after, kind = ("gelu", "none") if gelu else ("none", "")
            y: torch.Tensor = torch.ops.mkldnn._linear_pointwise(
                x, self.weight, self._bias, after, [], kind
            )
            return y
        y = functional.linear(x, self.weight, self._bias)
        return functional.gelu(y) if gelu else y
