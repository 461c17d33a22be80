"""What a change of the served version did: the correction rate before and after, and the proof."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

from lyra_nli.monitoring.rates import RandomReview, day_of
from lyra_nli.monitoring.sequential import PLAN_DAYS, Evidence, weigh
from lyra_nli.monitoring.shares import Difference, Share, difference, fisher
from lyra_nli.records import BASE
from lyra_nli.registry.rows import SERVING, Event


@dataclass(frozen=True, slots=True)
class Change:
    """A change of what serves one base, and what the random reviews say about it.

    Attributes:
        event: who made it, when and why.
        day: its day, UTC; empty when the history's time can't be read.
        from_version, to_version: what served before and after; ``base`` for the base itself.
        before: the correction rate of the former version, by reviews up to that day.
        after: that of the new one, by reviews since that day.
        difference: after minus before, Newcombe's interval; None where one side is empty.
        p: one-sided Fisher, that the new version errs more often: for one look.
        evidence: the same question for looks every day; only whole days count.
        reached_on: the first day on which the evidence was enough; None if there was none.
    """

    event: Event
    day: str
    from_version: str
    to_version: str
    before: Share
    after: Share
    difference: Difference | None
    p: float | None
    evidence: Evidence
    reached_on: str | None

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return {
            **asdict(self),
            "before": self.before.to_dict(),
            "after": self.after.to_dict(),
            "text": self.text,
        }

    @property
    def text(self) -> str:
        """One sentence for people."""
        if not self.after.n:
            return f"no random review of {self.to_version} yet"
        if self.difference is None:
            return f"no random review of {self.from_version} to compare with"
        words = (
            f"corrected {self.after.value:.1%} of {self.after.n}, before {self.before.value:.1%} "
            f"of {self.before.n}: {self.difference.text}"
        )
        if self.before.few or self.after.few:
            return f"{words}; too few to say much"
        if self.difference.low > 0:
            return f"{words}; looks worse"
        return (
            f"{words}; looks better"
            if self.difference.high < 0
            else f"{words}; no clear difference"
        )


def changes(
    events: Iterable[Event],
    reviews: Sequence[RandomReview],
    alpha: float,
    today: date | None = None,
) -> list[Change]:
    """Judge each change of what serves, oldest first; other decisions change nothing.

    Args:
        events: the registry's history of one base, oldest first.
        reviews: from `read_random_reviews`.
        alpha: how often a version that is no worse may be called worse.
        today: UTC.
    """
    end = (today or datetime.now(UTC).date()).isoformat()
    return [judge_change(event, reviews, alpha, end) for event in events if event.action in SERVING]


def last_change(
    events: Sequence[Event],
    reviews: Sequence[RandomReview],
    alpha: float,
    today: date | None = None,
) -> Change | None:
    """Judge the change to what serves now; None when nothing was ever changed."""
    newest = [event for event in events if event.action in SERVING][-1:]
    return next(iter(changes(newest, reviews, alpha, today)), None)


def judge_change(event: Event, reviews: Sequence[RandomReview], alpha: float, end: str) -> Change:
    """Judge one change by the reviews on its two sides; `end` is the first day not yet over."""
    day = day_of(event.at, end)
    from_version, to_version = event.from_version or BASE, event.to_version or BASE
    old = [r.corrected for r in reviews if r.version == from_version and "" < r.day <= day]
    new = [r for r in reviews if r.version == to_version and r.day >= day > ""]
    before = Share(sum(old), len(old))
    after = Share(sum(review.corrected for review in new), len(new))
    days = _days(day, end)
    reviewed = Counter(review.day for review in new)
    corrected = Counter(review.day for review in new if review.corrected)
    evidence = weigh(old, [reviewed[d] for d in days], [corrected[d] for d in days], alpha)
    return Change(
        event=event,
        day=day,
        from_version=from_version,
        to_version=to_version,
        before=before,
        after=after,
        difference=difference(before, after),
        p=fisher(before, after),
        evidence=evidence,
        reached_on=None if evidence.reached_on is None else days[evidence.reached_on],
    )


def _days(first: str, end: str) -> list[str]:
    """The whole days from a change on, as far as they are compared."""
    if not first:
        return []
    start = date.fromisoformat(first)
    count = min(PLAN_DAYS, max(0, (date.fromisoformat(end) - start).days))
    return [(start + timedelta(days=n)).isoformat() for n in range(count)]
