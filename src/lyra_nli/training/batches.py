"""Batches: which rows an epoch sees, in which order, with little padding."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

_WINDOW = 16
"""Batches sorted by length together: enough to pack well, few enough to stay random."""


def epoch_rows(
    labels: Sequence[str], sampling: Literal["natural", "balanced"], rng: random.Random
) -> list[int]:
    """Positions of the rows of one epoch, shuffled.

    ``natural`` takes every row once. ``balanced`` repeats rows of the rarer labels, each row
    as evenly as possible, until all labels that occur are equally frequent.
    """
    rows = list(range(len(labels)))
    rng.shuffle(rows)
    if sampling == "natural":
        return rows
    by_label: dict[str, list[int]] = {}
    for row in rows:
        by_label.setdefault(labels[row], []).append(row)
    most = max(map(len, by_label.values()), default=0)
    repeated = [
        members[index % len(members)] for members in by_label.values() for index in range(most)
    ]
    rng.shuffle(repeated)
    return repeated


def length_batches(
    rows: Sequence[int], lengths: Sequence[int], batch_size: int, rng: random.Random
) -> Iterator[list[int]]:
    """Cut rows into batches of similar length, in random order.

    Rows are sorted by length within windows of sixteen batches: hardly any padding, and
    still a different composition every epoch.
    """
    batches = []
    span = batch_size * _WINDOW
    for start in range(0, len(rows), span):
        window = sorted(rows[start : start + span], key=lambda row: lengths[row])
        batches += [window[i : i + batch_size] for i in range(0, len(window), batch_size)]
    rng.shuffle(batches)
    yield from batches


def runs(
    batches: Iterable[list[int]], lengths: Sequence[int], tokens: int
) -> Iterator[list[list[int]]]:
    """Batches that follow each other, as many together as have at most so many tokens."""
    run: list[list[int]] = []
    held = 0
    for batch in batches:
        size = sum(lengths[row] for row in batch)
        if run and held + size > tokens:
            yield run
            run, held = [], 0
        run.append(batch)
        held += size
    if run:
        yield run
