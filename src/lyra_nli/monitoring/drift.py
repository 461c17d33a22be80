"""Whether what comes in, and what is answered, is what it was: this week and the weeks before.

The population stability index is ``sum((p - q) * ln(p / q))`` over the buckets. By convention 0.1
is a small shift and 0.25 a large one (Siddiqi, 2006, Credit risk scorecards). Chance alone gives
``(1/n + 1/m)`` times a chi-squared with one degree of freedom less than buckets (Yurdakul &
Naranjo, 2020, Statistical properties of the population stability index), so a shift that is not
above its 95% quantile says nothing. Beside it stands the Jensen-Shannon divergence in bits, 0
(equal) to 1 (nothing in common): Lin (1991), Divergence measures based on the Shannon entropy.
Small shifts have about 0.18 times the index, so 0.02 is small and 0.05 large.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime, timedelta
from statistics import NormalDist
from typing import Any, Final, Literal

from sqlalchemy import Connection

from lyra_nli.monitoring.counts import Count, Kind, count_table
from lyra_nli.storage.generation import Generation

DAYS: Final = 7
REFERENCE_DAYS: Final = 28
"""The weeks before, which this week is held against."""

ENOUGH: Final = 100
"""Answers that both windows need: with fewer, chance alone looks like a shift."""

SMALL: Final = 0.1

OF_INPUT: Final[tuple[Kind, ...]] = ("length", "domain")
"""Drift of what comes in: of all versions together."""

OF_OUTPUT: Final[tuple[Kind, ...]] = ("label", "confidence")
"""Drift of what is answered: of one version, for another one answers otherwise. The calibrated
confidence is not among them: every new calibration moves it, and the raw one covers it."""

Level = Literal["unknown", "none", "small", "large"]

_RARE: Final = 5
_NINETY_FIVE: Final = NormalDist().inv_cdf(0.95)


@dataclass(frozen=True, slots=True)
class Drift:
    """How far one distribution has moved.

    Attributes:
        kind: of what.
        psi: population stability index; None with too few answers.
        js: Jensen-Shannon divergence, bits; None likewise.
        noise: what `psi` stays below in 95% of cases when nothing has moved.
        n, reference_n: answers of this week and of the weeks before.
        bound: from where it is large.
    """

    kind: Kind
    psi: float | None
    js: float | None
    noise: float | None
    n: int
    reference_n: int
    bound: float

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return {**asdict(self), "level": self.level, "text": self.text}

    @property
    def level(self) -> Level:
        """How large it is, if it is more than chance."""
        if self.psi is None or self.noise is None:
            return "unknown"
        if self.psi <= max(self.noise, min(SMALL, self.bound)):
            return "none"
        return "large" if self.psi > self.bound else "small"

    @property
    def text(self) -> str:
        """One line for people."""
        counted = f"{self.n} answers this week, {self.reference_n} in the four weeks before"
        if self.psi is None:
            return f"{self.kind}: too few to say ({counted}; {ENOUGH} are needed)"
        words = {"none": "no shift to speak of", "small": "a small shift", "large": "a large shift"}
        shift = f"{words[self.level]} (PSI {self.psi:.3f}, chance alone up to {self.noise:.3f}"
        return f"{self.kind}: {shift}; JS {self.js:.3f} bits; {counted})"


def drifts(
    connection: Connection,
    generation: Generation,
    base_model: str,
    version: str,
    bound: float,
    today: date | None = None,
) -> list[Drift]:
    """Measure the drift of everything that is counted of a base's answers; none without counts.

    Args:
        connection: for reading.
        generation: what the database is.
        base_model: whose answers.
        version: what serves now, ``base`` for the base itself.
        bound: from where a shift is large.
        today: UTC, the last day of this week.
    """
    end = today or datetime.now(UTC).date()
    monday = (end - timedelta(days=DAYS - 1)).isoformat()
    first = (end - timedelta(days=DAYS + REFERENCE_DAYS - 1)).isoformat()
    counts = count_table(connection, generation, first, end.isoformat(), base_model)
    found = []
    for kind in (*OF_OUTPUT, *OF_INPUT):
        of_kind = [
            c for c in counts if c.kind == kind and (kind in OF_INPUT or c.version == version)
        ]
        if of_kind:
            week = _total(count for count in of_kind if count.day >= monday)
            before = _total(count for count in of_kind if count.day < monday)
            found.append(measure(kind, week, before, bound))
    return found


def measure(kind: Kind, week: Mapping[str, int], before: Mapping[str, int], bound: float) -> Drift:
    """Measure how far the counts of this week have moved from those before, by bucket."""
    n, m = sum(week.values()), sum(before.values())
    if min(n, m) < ENOUGH:
        return Drift(kind, None, None, None, n, m, bound)
    pairs = _without_rare(week, before)
    # Half an answer in every bucket: an empty one must not make the shift infinite.
    shares = [
        ((one + 0.5) / (n + 0.5 * len(pairs)), (other + 0.5) / (m + 0.5 * len(pairs)))
        for one, other in pairs
    ]
    psi = sum((p - q) * math.log(p / q) for p, q in shares)
    js = sum(_half(p, (p + q) / 2) + _half(q, (p + q) / 2) for p, q in shares)
    noise = (1 / n + 1 / m) * _chi_squared(len(pairs) - 1)
    return Drift(kind, psi, js, noise, n, m, bound)


def _total(counts: Iterable[Count]) -> Counter[str]:
    total: Counter[str] = Counter()
    for count in counts:
        total[count.bucket] += count.n
    return total


def _without_rare(week: Mapping[str, int], before: Mapping[str, int]) -> list[tuple[int, int]]:
    """Counts by bucket, with the rare ones together: the chi-squared needs a few in each."""
    kept, rare = [], (0, 0)
    for bucket in sorted(week.keys() | before.keys()):
        pair = week.get(bucket, 0), before.get(bucket, 0)
        if sum(pair) < _RARE:
            rare = rare[0] + pair[0], rare[1] + pair[1]
        else:
            kept.append(pair)
    return [*kept, rare] if sum(rare) else kept


def _half(p: float, middle: float) -> float:
    return p * math.log2(p / middle) / 2


def _chi_squared(df: int) -> float:
    """The 95% quantile, to a percent: Wilson & Hilferty (1931). 0 without degrees of freedom."""
    if df < 1:
        return 0.0
    spread = 2 / (9 * df)
    return df * (1 - spread + _NINETY_FIVE * math.sqrt(spread)) ** 3
