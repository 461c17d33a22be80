"""Disentangled attention of rows that lie end to end, forward and backward in one autograd step.

The position terms come as a table with a column for every distance between two tokens, so that
scores by distance are scores by pairs of tokens in a skewed view (Huang et al. 2018, Music
Transformer, section 3.4.1): nothing is gathered, and nothing scattered on the way back.

Disentangled attention: He et al. (2021), DeBERTa, arXiv:2006.03654, eq. 4.
"""

from __future__ import annotations

from typing import Any, cast

import torch

from lyra_nli.models.packing import Packing


def attend(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    c2p: torch.Tensor | None,
    p2c: torch.Tensor | None,
    packing: Packing,
    *,
    heads: int,
    scale: float,
) -> torch.Tensor:
    """Context of all tokens [tokens, size], or of each row's first one [rows, size].

    Args:
        query: [tokens, size], or [rows, size] where only the first tokens ask.
        key, value: [tokens, size].
        c2p: content-to-position table, [heads, head size, length + asked - 1], of a row's places
            and of those that ask; the column of a key that stands d places after the query is
            `d + asked - 1`. None: no such term.
        p2c: position-to-content table of the same shape; that column is `length - 1 - d`.
        scale: factor on all scores.
    """
    return cast(
        "torch.Tensor",
        _Attention.apply(query, key, value, c2p, p2c, packing, heads, scale),  # type: ignore[no-untyped-call]
    )


class _Attention(torch.autograd.Function):
    """Heads come first throughout: every product is one batch of matrices."""

    @staticmethod
    def forward(
        ctx: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        c2p: torch.Tensor | None,
        p2c: torch.Tensor | None,
        packing: Packing,
        heads: int,
        scale: float,
    ) -> torch.Tensor:
        rows = packing.rows
        first = len(query) == rows
        q = _by_head(query * scale, heads, None if first else packing)
        k, v = (_by_head(states, heads, packing) for states in (key, value))
        asked = q.shape[1] // rows
        scores = torch.bmm(_by_row(q, rows), _by_row(k, rows).transpose(1, 2))
        by_pair = scores.view(heads, rows, asked, -1)
        if c2p is not None:
            by_pair.add_(_skewed(torch.bmm(q, c2p), rows, asked))
        if p2c is not None:
            seen = _skewed(torch.bmm(k, p2c), rows, packing.length)
            by_pair.add_(seen.transpose(2, 3), alpha=scale)
        if packing.blocked is not None:
            by_pair.masked_fill_(packing.blocked[:, None, :], -torch.inf)
        chances = torch.softmax(scores, dim=-1)
        ctx.save_for_backward(q, k, v, c2p, p2c, chances)
        ctx.scale, ctx.packing, ctx.first = scale, packing, first
        return _by_token(torch.bmm(chances, _by_row(v, rows)), heads, None if first else packing)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        q, k, v, c2p, p2c, chances = ctx.saved_tensors
        heads, scale, packing = len(q), ctx.scale, ctx.packing
        asking, rows = None if ctx.first else packing, packing.rows
        out = _by_head(gradients[0], heads, asking)
        if asking is not None and asking.places is not None and asking.blocked is not None:
            # Nobody reads what stands where no token does.
            out.masked_fill_(asking.blocked.flatten()[:, None], 0)
        out = _by_row(out, rows)
        for_v = torch.bmm(chances.transpose(1, 2), out)
        through = torch.bmm(out, _by_row(v, rows).transpose(1, 2))
        through = torch.ops.aten._softmax_backward_data(through, chances, -1, chances.dtype)
        for_q = torch.bmm(through, _by_row(k, rows)).view_as(q)
        for_k = torch.bmm(through.transpose(1, 2), _by_row(q, rows)).view_as(k)
        through = through.view(heads, rows, *through.shape[1:])
        for_c2p = for_p2c = None
        if c2p is not None:
            spread = _unskewed(through, c2p.shape[-1])
            for_q.baddbmm_(spread, c2p.transpose(1, 2))
            if ctx.needs_input_grad[3]:
                for_c2p = torch.bmm(q.transpose(1, 2), spread)
        if p2c is not None:
            spread = _unskewed(through.transpose(2, 3), p2c.shape[-1])
            for_k.baddbmm_(spread, p2c.transpose(1, 2), alpha=scale)
            if ctx.needs_input_grad[4]:
                for_p2c = torch.bmm(k.transpose(1, 2), spread).mul_(scale)
        for_query = _by_token(for_q, heads, asking).mul_(scale)
        for_key = _by_token(for_k, heads, packing)
        for_value = _by_token(for_v, heads, packing)
        return for_query, for_key, for_value, for_c2p, for_p2c, None, None, None


def _by_head(states: torch.Tensor, heads: int, packing: Packing | None) -> torch.Tensor:
    """[tokens, size] -> [heads, places, head size]; without packing every token is a place."""
    split = states.reshape(len(states), heads, -1).transpose(0, 1)
    if packing is None or packing.places is None:
        return split.contiguous()
    return split.index_select(1, packing.places)


def _by_token(states: torch.Tensor, heads: int, packing: Packing | None) -> torch.Tensor:
    """[heads, places, head size], in any cut of places -> [tokens, size]; 0 for those of no row."""
    split = states.view(heads, -1, states.shape[-1]).transpose(0, 1)
    if packing is None or packing.real is None:
        return split.reshape(len(split), -1)
    tokens = split.new_empty(packing.tokens, *split.shape[1:])
    real = len(packing.real)
    torch.index_select(split, 0, packing.real, out=tokens[:real])
    tokens[real:] = 0
    return tokens.flatten(1)


def _by_row(states: torch.Tensor, rows: int) -> torch.Tensor:
    """[heads, rows * tokens, head size] -> [heads * rows, tokens, head size]."""
    return states.view(len(states) * rows, -1, states.shape[-1])


def _skewed(seen: torch.Tensor, rows: int, tokens: int) -> torch.Tensor:
    """Scores by distance [heads, rows * tokens, columns] -> by pairs [heads, rows, tokens, others].

    Element (token, other) lies in column `other - token + tokens - 1`: a step to the next token
    is a whole line less one column.
    """
    heads, _, columns = seen.shape
    shape = (heads, rows, tokens, columns - tokens + 1)
    line = tokens * columns
    return seen.as_strided(shape, (rows * line, line, columns - 1, 1), tokens - 1)


def _unskewed(scores: torch.Tensor, columns: int) -> torch.Tensor:
    """The way back: [heads, rows, tokens, others] -> [heads, rows * tokens, columns]."""
    heads, rows, tokens, _ = scores.shape
    spread = scores.new_zeros(heads, rows * tokens, columns)
    _skewed(spread, rows, tokens).copy_(scores)
    return spread
