"""A frozen linear layer with a low-rank adapter that learns.

LoRA (Hu et al. 2021, arXiv:2106.09685): y = x W^T + bias + scale * (x A^T) B^T. In one autograd
step: PEFT's layer casts, drops and adds whole activations in steps of their own, which on a CPU
costs as much as the products do.
"""

from __future__ import annotations

import math
from typing import Any, cast

import torch
from torch import nn
from torch.nn import functional


class LowRankLinear(nn.Module):
    """Stands in for a frozen ``nn.Linear``; fresh, it gives the same answers.

    Args:
        linear: its weight [out, in] and bias [out], in the float type that products run in;
            they are shared, never changed.
        rank: rows of A [rank, in] and columns of B [out, rank], which are float32.
        scale: alpha / rank.
        dropout: share of the adapter's inputs that training leaves out.
    """

    def __init__(self, linear: nn.Linear, rank: int, scale: float, dropout: float) -> None:
        super().__init__()
        self.weight, self.bias = linear.weight, linear.bias
        self.scale, self.dropout = scale, dropout
        rows, columns = linear.weight.shape
        options: dict[str, Any] = {"dtype": torch.float32, "device": linear.weight.device}
        self.lora_A = nn.Parameter(torch.empty(rank, columns, **options))
        self.lora_B = nn.Parameter(torch.zeros(rows, rank, **options))
        nn.init.kaiming_uniform_(self.lora_A, a=math.sqrt(5))  # as PEFT starts it

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[..., in] -> [..., out]."""
        x = x.to(self.weight.dtype)
        low = self._dropped(x)
        y = _Product.apply(x, low, self.weight, self.bias, self.lora_A, self.lora_B, self.scale)  # type: ignore[no-untyped-call]
        return cast("torch.Tensor", y)

    def frozen(self, x: torch.Tensor) -> torch.Tensor:
        """What the weights alone make of x."""
        return functional.linear(x, self.weight, self.bias)

    def low_rank(self, x: torch.Tensor) -> torch.Tensor:
        """What the adapter adds."""
        a, b = self.lora_A.to(x.dtype), self.lora_B.to(x.dtype)
        return self.scale * (self._dropped(x) @ a.T) @ b.T

    def _dropped(self, x: torch.Tensor) -> torch.Tensor:
        return functional.dropout(x, self.dropout) if self.training and self.dropout else x


class _Product(torch.autograd.Function):
    """The layer's forward and backward pass, without a gradient for the frozen weight."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        low: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        a: torch.Tensor,
        b: torch.Tensor,
        scale: float,
    ) -> torch.Tensor:
        a, b = a.to(x.dtype), b.to(x.dtype)
        rows = low.reshape(-1, low.shape[-1])
        inner = rows @ a.T
        y = functional.linear(x.reshape(-1, x.shape[-1]), weight, bias)
        y.addmm_(inner, b.T, alpha=scale)
        ctx.save_for_backward(rows, inner, weight, a, b)
        ctx.scale, ctx.same = scale, low is x
        return y.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        rows, inner, weight, a, b = ctx.saved_tensors
        shape = (*gradients[0].shape[:-1], -1)
        out = gradients[0].reshape(-1, gradients[0].shape[-1])
        through = out @ b
        for_x = for_low = None
        if ctx.needs_input_grad[0]:
            for_x = out @ weight
            if ctx.same:
                for_x.addmm_(through, a, alpha=ctx.scale)
            for_x = for_x.view(shape)
        if ctx.needs_input_grad[1] and not ctx.same:
            for_low = (ctx.scale * (through @ a)).view(shape)
        for_a = ctx.scale * (through.T @ rows).float()
        for_b = ctx.scale * (inner.T @ out).T.float()  # oneDNN is faster this way round
        return for_x, for_low, None, None, for_a, for_b, None
