"""Is the new version corrected more often than the old one? Evidence that may be read every day.

A test that is made anew every day until it says yes says yes sooner or later, also of two equal
versions. An *e-process* does not: if the new version is no worse, it starts at 1 and exceeds
``1 / alpha`` at any time, ever, with probability ``alpha`` at most (Ville, 1939). So 20 is evidence
at the level 0.05, however often one looks.

Each day is a block: that day's ``b`` random reviews of the new version stand beside ``a`` of the
old one's, each used once: as many, or more where they last for `PLAN_DAYS` all the same. With ``m``
the share of corrections in all blocks before, and a guess that the new version is ``d`` worse, the
block's factor is the likelihood ratio of

    new: m + d * a / (a + b)   old: m - d * b / (a + b)   against   both: m

It is a bet that the two differ by ``d``, and the e-process the mean of what the bets on each of
`WORSE` have become. This is the two-sample e-process of Turner, Ly & Grünwald (2024), Generic
E-variables for exact sequential k-sample tests that allow for optional stopping, Journal of
Statistical Planning and Inference 230 (arXiv:2106.02693), with blocks of any size.

Why a factor's mean is at most 1 when the new version is no worse: with ``x`` and ``y`` the true
shares of old and new, less ``m``, and ``c = d / (m * (1 - m) * (a + b))``, the mean is
``(1 - c*b*x)^a * (1 + c*a*y)^b``. It grows with ``y``, and at ``y = x`` it is no more than
``exp(-c*a*b*x) * exp(c*a*b*x) = 1``.

All this takes reviews to be independent of each other and the mix of pairs to stay what it was.
Reviews in clusters (many of one page), or harder topics after the change, raise more false alarms.

`benchmarks/monitoring.py` holds it against truths that are known, and against other tests.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

PLAN_DAYS: Final = 90
"""The old version's reviews last so long; what comes later is no longer compared."""

WORSE: Final = (0.03, 0.1)
"""What is betted on: a version that errs in so much more. Other differences are found too."""

_PRIOR: Final = (1.0, 10.0)
"""Corrections and reviews that stand for m before the first block. A wrong guess costs a little
power in the first days, never validity."""

Counts = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Evidence:
    """Where the e-process stands.

    Attributes:
        value: the evidence now, to 1, that the new version is worse.
        highest: what it was at most: the one that decides.
        days: whole days that were compared.
        reached_on: index of the first day with ``1 / alpha``; None if there was none.
    """

    value: float = 1.0
    highest: float = 1.0
    days: int = 0
    reached_on: int | None = None


def weigh(
    old: Sequence[bool], reviewed: Sequence[int], corrected: Sequence[int], alpha: float
) -> Evidence:
    """Weigh one version against the one before it.

    Args:
        old: the old version's random reviews up to the change, in the order of their time;
            True for a correction.
        reviewed: the new version's random reviews of each whole day since the change.
        corrected: those of them that changed the label.
        alpha: how often a version that is no worse may be called worse.
    """
    new_n = np.array([reviewed[:PLAN_DAYS]], dtype=np.int64)
    new_k = np.array([corrected[:PLAN_DAYS]], dtype=np.int64)
    old_n = deal(np.array([len(old)]), new_n)
    ends = np.cumsum(old_n)
    sums = np.cumsum([0, *old])
    old_k = np.array([sums[ends] - sums[ends - old_n[0]]])
    return _evidence(old_n, old_k, new_n, new_k, alpha)


def weigh_together(
    old: Sequence[tuple[int, int]], new: Sequence[tuple[int, int]], alpha: float
) -> Evidence:
    """Weigh two versions that answer at the same time: each day is a block as it is.

    Args:
        old, new: reviewed and corrected of each whole day.
        alpha: how often a version that is no worse may be called worse.
    """
    counts = np.array([old, new], dtype=np.int64).reshape(2, 1, -1, 2)
    (old_n, old_k), (new_n, new_k) = ((side[..., 0], side[..., 1]) for side in counts)
    return _evidence(old_n, old_k, new_n, new_k, alpha)


def deal(old: Counts, new_n: Counts) -> Counts:
    """Deal the old version's reviews out over the days that have new ones.

    Each new one meets an old one at least, as long as there are any: reviews may come in bursts.
    Nothing but numbers of reviews decides, never what they said.

    Args:
        old: reviews of the old version, int [runs].
        new_n: reviews of the new one, int [runs, days], days <= `PLAN_DAYS`.

    Returns:
        int [runs, days].
    """
    left, dealt = old.copy(), np.zeros_like(new_n)
    for day in range(new_n.shape[1]):
        evenly = -(-left // (PLAN_DAYS - day))
        share = np.minimum(left, np.maximum(evenly, new_n[:, day]))
        dealt[:, day] = np.where(new_n[:, day] > 0, share, 0)
        left = left - dealt[:, day]
    return dealt


def log_evidence(
    old_n: Counts, old_k: Counts, new_n: Counts, new_k: Counts, worse: Sequence[float] = WORSE
) -> NDArray[np.float64]:
    """The logarithm of the e-process after each day, float [runs, days].

    Args:
        old_n, old_k: what was dealt of the old version and how much of it was corrected,
            int [runs, days].
        new_n, new_k: the same of the new version.
        worse: what to bet on.
    """
    runs, days = new_n.shape
    bets = np.zeros((runs, len(worse)))
    path = np.empty((runs, days))
    k, n = (np.full((runs, 1), start) for start in _PRIOR)
    for day in range(days):
        a, old, b, new = (counts[:, [day]] for counts in (old_n, old_k, new_n, new_k))
        bets += _growth(a, old, b, new, k / n, np.array(worse))
        both = (a > 0) & (b > 0)
        k, n = k + both * (old + new), n + both * (a + b)
        path[:, day] = np.logaddexp.reduce(bets, axis=1) - np.log(len(worse))
    return path


def _evidence(old_n: Counts, old_k: Counts, new_n: Counts, new_k: Counts, alpha: float) -> Evidence:
    path = np.exp(log_evidence(old_n, old_k, new_n, new_k)[0])
    if not path.size:
        return Evidence()
    reached = np.flatnonzero(path >= 1 / alpha)
    return Evidence(
        value=float(path[-1]),
        highest=max(1.0, float(path.max())),
        days=path.size,
        reached_on=int(reached[0]) if reached.size else None,
    )


def _growth(
    a: Counts,
    old_k: Counts,
    b: Counts,
    new_k: Counts,
    m: NDArray[np.float64],
    d: NDArray[np.float64],
) -> NDArray[np.float64]:
    """What one block adds to the logarithm of each bet, [runs, bets]; 0 where a side is missing."""
    both = (a > 0) & (b > 0)
    a, b = np.where(both, a, 1), np.where(both, b, 1)
    # No bet may put a share at 0 or 1: it could lose everything.
    most = 0.9 * np.minimum(m / b, (1 - m) / a)
    step = np.minimum(d / (a + b), most)
    new, old = m + step * a, m - step * b
    ratio = (
        new_k * np.log(new / m)
        + (b - new_k) * np.log((1 - new) / (1 - m))
        + old_k * np.log(old / m)
        + (a - old_k) * np.log((1 - old) / (1 - m))
    )
    return np.where(both, ratio, 0.0)
