"""How a canary does beside the active version: the random reviews of both since it was started.

The two answer at the same time, and a hash chooses which pairs are whose: so other pairs or harder
topics meet both alike, and each day's reviews are compared with the same day's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

from lyra_nli.monitoring.rates import RandomReview
from lyra_nli.monitoring.sequential import Evidence, weigh_together
from lyra_nli.monitoring.shares import Difference, Share, difference
from lyra_nli.records import BASE
from lyra_nli.registry.rows import SERVING, Event
from lyra_nli.registry.trial_rows import Trial


@dataclass(frozen=True, slots=True)
class CanaryStanding:
    """A canary and the active version, on what people said of both meanwhile.

    Attributes:
        actives: what was active meanwhile, oldest first; ``base`` for the base itself.
        active, canary: the correction rates.
        difference: the canary's less the active version's; None where one side is empty.
        evidence: that the canary is worse, to 1; only whole days count.
    """

    trial: Trial
    actives: list[str]
    active: Share
    canary: Share
    difference: Difference | None
    evidence: Evidence

    @property
    def text(self) -> str:
        """One sentence for people."""
        if self.difference is None:
            return "no random reviews of both since the start"
        words = (
            f"corrected {self.canary.value:.1%} of {self.canary.n}, the active version "
            f"{self.active.value:.1%} of {self.active.n}: {self.difference.text}"
        )
        if self.canary.few or self.active.few:
            return f"{words}; too few to say much"
        if self.difference.low > 0:
            return f"{words}; looks worse"
        return f"{words}; {'looks better' if self.difference.high < 0 else 'no clear difference'}"

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        shares = {"active": self.active.to_dict(), "canary": self.canary.to_dict()}
        return {**asdict(self), **shares, "text": self.text}


def judge_canary(
    trial: Trial,
    events: Sequence[Event],
    reviews: Iterable[RandomReview],
    alpha: float,
    today: date | None = None,
) -> CanaryStanding:
    """Judge a canary by the reviews since its first day, to its last where it is over.

    Args:
        events: the registry's history of its base, oldest first.
        reviews: from `read_random_reviews`.
        alpha: how often one that is no worse may be called worse.
        today: UTC; not over yet.
    """
    now = (today or datetime.now(UTC).date()).isoformat()
    first, last = trial.started_at[:10], (trial.ended_at or now)[:10]
    actives = _actives(trial, events)
    since = [review for review in reviews if first <= review.day <= last]
    old = [review for review in since if review.version in actives]
    new = [review for review in since if review.version == trial.version]
    days = _days(first, min(last, now))
    active, canary = _share(old), _share(new)
    return CanaryStanding(
        trial=trial,
        actives=actives,
        active=active,
        canary=canary,
        difference=difference(active, canary),
        evidence=weigh_together(_by_day(old, days), _by_day(new, days), alpha),
    )


def _actives(trial: Trial, events: Sequence[Event]) -> list[str]:
    """What was active during a trial, but for the version itself, in which it may have ended."""
    serving = [event for event in events if event.action in SERVING]
    before = [event for event in serving if event.at <= trial.started_at][-1:]
    until = trial.ended_at
    during = [e for e in serving if e.at > trial.started_at and (until is None or e.at <= until)]
    names = [event.to_version or BASE for event in (*before, *during)]
    names = names if before else [BASE, *names]
    return [name for name in dict.fromkeys(names) if name != trial.version]


def _share(reviews: Sequence[RandomReview]) -> Share:
    return Share(sum(review.corrected for review in reviews), len(reviews))


def _by_day(reviews: Sequence[RandomReview], days: Sequence[str]) -> list[tuple[int, int]]:
    reviewed = Counter(review.day for review in reviews)
    corrected = Counter(review.day for review in reviews if review.corrected)
    return [(reviewed[day], corrected[day]) for day in days]


def _days(first: str, end: str) -> list[str]:
    """The days from the first on; the last one may not be over and is left out."""
    start = date.fromisoformat(first)
    count = max(0, (date.fromisoformat(end) - start).days)
    return [(start + timedelta(days=n)).isoformat() for n in range(count)]
