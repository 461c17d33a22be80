"""Changes: what a candidate fixes and breaks, against another model on the same rows."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, inf, sqrt

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from lyra_nli.evaluation.arrays import Hits, Labels, Probabilities
from lyra_nli.evaluation.clusters import Clusters, flip_test, standard
from lyra_nli.evaluation.estimates import Sums, mean
from lyra_nli.evaluation.fitting import fit
from lyra_nli.evaluation.intervals import Interval
from lyra_nli.evaluation.judged import Judged
from lyra_nli.evaluation.metrics import mcnemar
from lyra_nli.evaluation.scoring import brier_losses, nll_losses

POWER = 0.8
"""How likely a gain is to be shown by the rows that are asked for."""


@dataclass(frozen=True)
class Change:
    """Candidate against another model, on the rows that both may be asked about.

    Attributes:
        fixed: rows that the other got wrong and the candidate right; `broken` the reverse.
        efr: share of the other's errors that are fixed.
        nfr: share of the other's right answers that are broken.
        p: one-sided exact McNemar, rows taken as independent.
        n, groups: rows, and how many groups of them are independent.
        gain: of accuracy, -1 to 1.
        brier, nll: how much the score grew; less is better.
        detectable: the gain of accuracy that so many rows show in four cases of five.
    """

    fixed: int
    broken: int
    efr: Interval
    nfr: Interval
    p: float
    n: int
    groups: int
    gain: Interval
    brier: Interval
    nll: Interval
    detectable: float


@dataclass(frozen=True)
class Paired:
    """Two models' answers on the same n rows.

    Attributes:
        before, after: float64 [n, 3].
        labels: int [n].
    """

    before: Probabilities
    after: Probabilities
    labels: Labels
    clusters: Clusters

    @property
    def was(self) -> Hits:
        """Where the other model is right, [n]."""
        return np.asarray(self.before.argmax(axis=1) == self.labels)

    @property
    def now(self) -> Hits:
        """Where the candidate is right, [n]."""
        return np.asarray(self.after.argmax(axis=1) == self.labels)

    @property
    def steps(self) -> NDArray[np.float64]:
        """1 where an answer is fixed, -1 where it is broken, else 0, [n]."""
        return self.now.astype(np.float64) - self.was

    def gain(self, level: float = 0.95) -> Interval:
        """Of accuracy; with one fixed and one broken row added for the interval.

        Bonett & Price (2012), Adjusted Wald confidence interval for a difference of binomial
        proportions based on paired data, here over groups.
        """
        metric = mean(self.steps, bounds=(-1.0, 1.0))
        return self.clusters.figure(metric, pseudo=[(1, 1), (-1, 1)], level=level)

    def brier(self, level: float = 0.95) -> Interval:
        """How much the Brier score grew, -2 to 2."""
        before, after = (brier_losses(said, self.labels) for said in (self.before, self.after))
        return self.clusters.figure(mean(after - before, bounds=(-2.0, 2.0)), level=level)

    def evidence(self) -> Sums:
        """What each group says for the candidate, [groups, 2].

        The rows it fixed less those it broke; and the Brier score that it saves, after both models
        got the one temperature that suits them best, so that only knowing better what is right
        counts, not being more or less sure of everything.
        """
        before, after = (self._tempered(said) for said in (self.before, self.after))
        saved = brier_losses(before, self.labels) - brier_losses(after, self.labels)
        return self.clusters.sums(np.column_stack([self.steps, saved]))

    def _tempered(self, said: Probabilities) -> Probabilities:
        judged = Judged(said, said.argmax(axis=1), self.labels, groups=())
        return fit("temperature", judged)(said)

    def error(self) -> float:
        """The standard error of the gain, were there none; of groups.

        One fixed and one broken row are added, as for `gain`: where few rows changed, or none, the
        next ones may.
        """
        changed = float((self.clusters.sums(self.steps[:, None]) ** 2).sum())
        return sqrt(changed + 2) / len(self.labels)


def change(paired: Paired, level: float) -> Change:
    """All figures of a comparison (n > 0).

    Args:
        level: at which a gain must be shown; `Change.detectable` depends on it.
    """
    was, now, clusters = paired.was, paired.now, paired.clusters
    fixed, broken = int((~was & now).sum()), int((was & ~now).sum())
    losses = [nll_losses(said, paired.labels) for said in (paired.before, paired.after)]
    return Change(
        fixed=fixed,
        broken=broken,
        efr=_share_among(~was, now, clusters),
        nfr=_share_among(was, ~now, clusters),
        p=mcnemar(fixed, broken),
        n=len(was),
        groups=clusters.count,
        gain=paired.gain(),
        brier=paired.brier(),
        nll=clusters.figure(mean(losses[1] - losses[0], bounds=(-30.0, 30.0))),
        detectable=min(1.0, _quantiles(level) * paired.error()),
    )


def p_better(paired: Paired, level: float) -> float:
    """How often a candidate that is no better would look this good, by `flip_test`."""
    return flip_test(paired.evidence(), level=level)


def p_worse(paired: Paired) -> float:
    """How often a candidate that is no less accurate would look this bad, by `flip_test`."""
    return flip_test(-paired.clusters.sums(paired.steps[:, None]))


def rows_to_show(paired: Paired, level: float, worth: float) -> int | None:
    """Rows that show what is better, in four cases of five.

    Either as much as was measured, or a gain of `worth`, whichever takes fewer. None where that
    gain would have been seen by now, and what was measured takes more than as many rows again. As
    Connor (1987), Sample size for testing differences in
    proportions for the paired-sample design, but with the spread of the groups.
    """
    measured = float(standard(paired.evidence()).sum(axis=0).max())
    error, needed = paired.error(), _quantiles(level)
    shares = (needed / measured if measured > 0 else inf, needed * error / worth)
    n = len(paired.labels)
    seen = [ceil(n * share**2) for share in shares if 1 < share < inf]
    if shares[1] <= 1:
        seen = [rows for rows in seen if rows <= 2 * n]
    return min(seen, default=None)


def _quantiles(level: float) -> float:
    return float(stats.norm.ppf(1 - level) + stats.norm.ppf(POWER))


def _share_among(among: Hits, hits: Hits, clusters: Clusters) -> Interval:
    return Clusters.of(clusters.group[among]).share(hits[among])
