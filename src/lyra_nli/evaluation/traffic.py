"""Traffic: what a candidate gains on what the model is asked, not on what people review."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lyra_nli.evaluation.arrays import Hits
from lyra_nli.evaluation.changes import Paired
from lyra_nli.evaluation.estimates import Figures, Metric, Sums
from lyra_nli.evaluation.intervals import Interval

FEWEST = 30
"""Reviews drawn at random, below which they do not say how often the model errs."""


@dataclass(frozen=True)
class Traffic:
    """Net gain of accuracy: ``c * EFR - (1 - c) * NFR``.

    Attributes:
        errors: c, the share of pairs that the base gets wrong.
        sampled: c comes from reviews drawn at random. Otherwise from all reviews, and the queue
            shows people what looks wrong: then c is too high, and the net gain with it.
        net: with what is known of c, EFR and NFR.
        left: the share that the candidate gets wrong, ``c * (1 - EFR) + (1 - c) * NFR``. With
            ``errors`` it is the correction rate before and after.
        even: the c at which as much is broken as fixed, ``NFR / (EFR + NFR)``: where the base errs
            less often, the candidate does harm. None where it changes nothing.
    """

    errors: Interval
    sampled: bool
    net: Interval
    left: Interval
    even: float | None


def traffic(paired: Paired, at_random: Hits, level: float = 0.95) -> Traffic:
    """Estimate the net gain (n > 0).

    Holt & Smith (1979), Post stratification: rows that the base has wrong and rows that it has
    right are each taken from all reviews, and put together in the traffic's proportion. This is
    right where people, whatever made them look, reviewed a fair choice of the errors and a fair
    choice of the right answers.

    Args:
        at_random: reviews drawn at random, bool [n].
    """
    sampled = int(at_random.sum()) >= FEWEST
    drawn = at_random if sampled else np.ones(len(at_random), dtype=bool)
    wrong, fixed = ~paired.was, ~paired.was & paired.now
    broken = paired.was & ~paired.now
    columns = (fixed, wrong, broken, paired.was, drawn & wrong, drawn)
    rows = np.column_stack(columns).astype(np.float64)
    net, left = (
        paired.clusters.figure(metric, pseudo=_PSEUDO, level=level)
        for metric in (Metric(rows, _net, (-1.0, 1.0)), Metric(rows, _left, (0.0, 1.0)))
    )
    errors = Metric(rows[:, 4:], lambda sums: _share(sums[:, 0], sums[:, 1]), (0.0, 1.0))
    efr, nfr = fixed.sum() / max(1, wrong.sum()), broken.sum() / max(1, paired.was.sum())
    even = float(nfr / (efr + nfr)) if efr + nfr else None
    share = paired.clusters.figure(errors, pseudo=[(1, 1), (0, 1)])
    return Traffic(share, sampled, net, left, even)


_PSEUDO = ((1, 1, 0, 0, 0, 0), (0, 1, 0, 0, 0, 0), (0, 0, 1, 1, 0, 0), (0, 0, 0, 1, 0, 0))
"""One success and one failure for EFR and for NFR: Agresti & Caffo (2000), Simple and effective
confidence intervals for proportions and differences of proportions."""


def _net(sums: Sums) -> Figures:
    fixed, wrong, broken, right, errors, drawn = sums.T
    share = _share(errors, drawn)
    return np.asarray(share * _share(fixed, wrong) - (1 - share) * _share(broken, right))


def _left(sums: Sums) -> Figures:
    errors, drawn = sums.T[4:]
    return _share(errors, drawn) - _net(sums)


def _share(part: Figures, of: Figures) -> Figures:
    return np.divide(part, of, out=np.zeros_like(part), where=of > 0)
