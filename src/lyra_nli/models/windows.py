"""Windows: a premise too long for the model, read piece by piece.

A premise that does not fit is cut into overlapping windows of tokens, and each is judged with the
whole hypothesis. The window that is least neutral decides, and its probabilities are the pair's.
What speaks for or against a claim stands in some place of a text; everywhere else the text is
neutral towards it, so that a mean over windows would drown the one that matters. A pair is
neutral, then, only if all of its windows are. Taking the strongest piece of a text as its evidence
is the rule of SummaC's zero-shot model (Laban et al. 2022, arXiv:2111.09525), which takes the
maximum of entailment; here refuting counts as much as supporting.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lyra_nli.errors import InputError
from lyra_nli.labels import LABELS
from lyra_nli.models.base import Base
from lyra_nli.models.encoding import EncodedPair, encode, tokenize, unbroken
from lyra_nli.records import Pair

MAX_WINDOWS = 1000
"""Of one pair: a long hypothesis leaves a small window, and a million characters fill many."""

_NEUTRAL = LABELS.index("neutral")


@dataclass(frozen=True)
class Windows:
    """Rows to judge, one or more a pair, in the order of the pairs.

    Attributes:
        rows: what the model reads.
        owners: the pair of each row.
        spans: the characters of the premise that each row holds, [start, end); None where it
            holds the whole premise, or its beginning if it is truncated.
    """

    rows: list[EncodedPair]
    owners: list[int]
    spans: list[tuple[int, int] | None]

    def deciding(self, probabilities: NDArray[np.float64]) -> list[int]:
        """The row that decides each pair: the least neutral, the first of equals.

        Equal to four digits, for a row's last ones hang on which others it is judged with.

        Args:
            probabilities: [rows, 3], columns in the order of ``LABELS``.
        """
        neutral = probabilities[:, _NEUTRAL].round(4)
        best: dict[int, int] = {}
        for row, owner in enumerate(self.owners):
            if neutral[row] < neutral[best.setdefault(owner, row)]:
                best[owner] = row
        return [best[owner] for owner in sorted(best)]


def cut(base: Base, pairs: Sequence[Pair], overlap: int | None, most: int | None = None) -> Windows:
    """Encode pairs, those with a long premise as several windows.

    Args:
        overlap: tokens of the premise that a window shares with the one before, at most half of
            what fits; None: no windows, a long premise is truncated.
        most: rows that may come of it, or as many as there are pairs; None: any number.

    Raises:
        InputError: as `encoding.encode`; or a pair has more than `MAX_WINDOWS`, or all together
            have more than `most`: no others are made then.
    """
    found: list[tuple[EncodedPair, int, tuple[int, int] | None]] = []
    for owner, whole in enumerate(encode(base, pairs)):
        if overlap is None or not whole.truncated:
            found.append((whole, owner, None))
            continue
        found += ((row, owner, span) for row, span in _pieces(base, owner, pairs[owner], overlap))
        in_all = len(found) + len(pairs) - owner - 1
        if most is not None and in_all > max(most, len(pairs)):
            raise InputError(
                f"more than {most} windows in one request",
                problems=[f"with pair {owner} there are {in_all}"],
                hint="Send the long premises in several requests, or raise ml_server.queue_pairs.",
            )
    return Windows([r for r, _, _ in found], [o for _, o, _ in found], [s for _, _, s in found])


def _pieces(
    base: Base, index: int, pair: Pair, overlap: int
) -> Iterator[tuple[EncodedPair, tuple[int, int]]]:
    encoded = tokenize(base, [pair.premise], [pair.hypothesis], return_offsets_mapping=True)
    whole, offsets = unbroken(base, encoded, 0), encoded["offset_mapping"][0]
    begin, end = _premise(encoded)
    room = base.max_length - (len(whole) - (end - begin))
    step = room - min(overlap, room // 2)
    starts = range(begin, end - room + step, step)
    if len(starts) > MAX_WINDOWS:
        raise InputError(
            "a premise is too long, even for windows",
            problems=[f"pair {index}: {len(starts)} windows, at most {MAX_WINDOWS} are judged"],
            hint="Split the premise, or shorten the hypothesis: it is read with every window.",
        )
    for start in starts:
        stop = min(start + room, end)
        yield _without(whole, begin, start, stop, end), (offsets[start][0], offsets[stop - 1][1])


def _premise(encoded: Any) -> tuple[int, int]:
    """Where the premise's tokens stand."""
    places = [place for place, text in enumerate(encoded.sequence_ids(0)) if text == 0]
    return places[0], places[-1] + 1


def _without(row: EncodedPair, begin: int, start: int, stop: int, end: int) -> EncodedPair:
    """A row with the tokens [start, stop) alone of its premise [begin, end)."""

    def kept(values: tuple[int, ...]) -> tuple[int, ...]:
        return (*values[:begin], *values[start:stop], *values[end:])

    return EncodedPair(kept(row.input_ids), kept(row.token_type_ids), truncated=False)
