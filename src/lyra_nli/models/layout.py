"""The layout of a batch: rows end to end without padding, and the chunks that attend together."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, groupby

import torch

from lyra_nli.models.encoding import EncodedPair

_RATIO = 1.35
"""How much longer a chunk's longest row may be than its shortest: only attention pads."""
_CELLS = 2**16
"""Position scores of a chunk, for one head and kind: tokens times distances. On a processor a
dozen of them fit its cache; a GPU, which has few calls to make, takes all that is there."""


@dataclass(frozen=True)
class Chunk:
    """Rows of one owner and of similar length, which attend in one go.

    Attributes:
        tokens: their place among the batch's tokens.
        rows: their place among the batch's rows.
        length: of the longest.
        padded: for every place of [rows, length], which of the chunk's tokens stands there (any
            one where none does); None where all rows are equally long.
        real: the places that hold a token.
        blocked: bool [rows, 1, length], the places that hold none.
    """

    tokens: slice
    rows: slice
    length: int
    padded: torch.Tensor | None = None
    real: torch.Tensor | None = None
    blocked: torch.Tensor | None = None

    @property
    def count(self) -> int:
        """Its rows."""
        count: int = self.rows.stop - self.rows.start
        return count

    def to(self, device: torch.device) -> Chunk:
        """The same on another device."""
        if self.padded is None or self.real is None or self.blocked is None:
            return self
        return replace(
            self,
            padded=self.padded.to(device),
            real=self.real.to(device),
            blocked=self.blocked.to(device),
        )


@dataclass(frozen=True)
class Segment:
    """The rows of one owner.

    Attributes:
        owner: whose weights judge them, counted as the caller does.
    """

    owner: int
    tokens: slice
    rows: slice
    chunks: tuple[Chunk, ...]


@dataclass(frozen=True)
class Layout:
    """A batch of rows, sorted by owner and by length, the longest first.

    Attributes:
        order: the caller's position of each row.
        starts: the place of each row's first token, int64 [rows].
        lengths: tokens of each row.
        inputs: what the embeddings take, by name, int64 [1, tokens] each.
    """

    order: list[int]
    starts: torch.Tensor
    lengths: list[int]
    inputs: dict[str, torch.Tensor]
    segments: tuple[Segment, ...]

    def to(self, device: torch.device) -> Layout:
        """The same on another device."""
        if device.type == "cpu":
            return self
        inputs = {name: values.to(device) for name, values in self.inputs.items()}
        segments = tuple(
            replace(segment, chunks=tuple(chunk.to(device) for chunk in segment.chunks))
            for segment in self.segments
        )
        return replace(self, starts=self.starts.to(device), inputs=inputs, segments=segments)


def lay_out(rows: Sequence[EncodedPair], owners: Sequence[int], device: torch.device) -> Layout:
    """Lay rows end to end.

    Args:
        owners: whose weights judge each row.
        device: where they are judged.
    """
    cells = _CELLS if device.type == "cpu" else sys.maxsize
    order = sorted(range(len(rows)), key=lambda i: (owners[i], -len(rows[i])))
    lengths = [len(rows[i]) for i in order]
    starts = [0, *accumulate(lengths)]
    segments = []
    for owner, members in groupby(range(len(order)), key=lambda place: owners[order[place]]):
        places = list(members)
        own = slice(places[0], places[-1] + 1)
        segments.append(
            Segment(
                owner,
                slice(starts[own.start], starts[own.stop]),
                own,
                tuple(_chunk(part, lengths, starts) for part in _parts(own, lengths, cells)),
            )
        )
    inputs = {
        "input_ids": [token for i in order for token in rows[i].input_ids],
        "token_type_ids": [kind for i in order for kind in rows[i].token_type_ids],
        "position_ids": [place for length in lengths for place in range(length)],
    }
    return Layout(
        order,
        torch.tensor(starts[:-1]),
        lengths,
        {name: torch.tensor([values]) for name, values in inputs.items()},
        tuple(segments),
    ).to(device)


def in_order(rows: torch.Tensor, layout: Layout) -> torch.Tensor:
    """Rows as they were laid out -> the same as the caller had them, on the CPU."""
    found = torch.empty(rows.shape, dtype=rows.dtype)
    found[layout.order] = rows.cpu()
    return found


def _parts(rows: slice, lengths: Sequence[int], cells: int) -> Iterator[slice]:
    """Cut rows, the longest first, into chunks."""
    start = rows.start
    for place in range(start + 1, rows.stop):
        longest = lengths[start]
        much = (place + 1 - start) * longest * 2 * longest > cells
        if much or lengths[place] * _RATIO < longest:
            yield slice(start, place)
            start = place
    yield slice(start, rows.stop)


def _chunk(rows: slice, lengths: Sequence[int], starts: Sequence[int]) -> Chunk:
    tokens, longest = slice(starts[rows.start], starts[rows.stop]), lengths[rows.start]
    if lengths[rows.stop - 1] == longest:
        return Chunk(tokens, rows, longest)
    own = torch.tensor(lengths[rows])
    places = torch.arange(longest)
    there = places < own[:, None]
    first = torch.tensor(starts[rows]) - tokens.start
    padded = torch.where(there, first[:, None] + places, 0).flatten()
    real = there.flatten().nonzero()[:, 0]
    return Chunk(tokens, rows, longest, padded, real, ~there[:, None])
