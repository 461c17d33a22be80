"""Checks: what a candidate must show, and what would be harm."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import ceil, pi
from typing import Literal

import numpy as np

from lyra_nli.evaluation.changes import Paired, p_better, p_worse
from lyra_nli.evaluation.evidence import Evidence
from lyra_nli.evaluation.intervals import Interval
from lyra_nli.evaluation.populations import Part, at_random, paired
from lyra_nli.evaluation.traffic import FEWEST, traffic
from lyra_nli.settings import GateSettings

State = Literal["shown", "open", "harm"]

_HOPELESS = 10_000
"""Rows: where it takes more, and more than as many again, reviews will not tell."""

BETTER, GENERAL = "better than the base (p)", "general NLI kept (change)"
NET = "net gain on the traffic"


@dataclass(frozen=True)
class Check:
    """One line of the verdict: a figure against its threshold.

    Attributes:
        holds: it is shown.
        state: ``shown``; ``harm``: the contrary is shown; ``open``: chance could be either.
        text: the same in words.
        low, high: the figure lies between, and each end is exceeded once in 20 times; None where
            the figure is no estimate.
        limit: what the range must be clear of to be shown; None: the threshold.
    """

    name: str
    value: float
    threshold: float
    holds: bool
    enforced: bool
    state: State
    text: str
    low: float | None = None
    high: float | None = None
    limit: float | None = None


def level_of(look: int, significance: float) -> float:
    """How much chance the n-th candidate that is judged on the same rows is allowed.

    ``significance * 6 / (pi * look)^2``: however many looks there are, the levels add up to less
    than `significance` (1 + 1/4 + 1/9 + ... = pi^2 / 6), and so does the chance that one of them
    passes a candidate that is no better. The first look gets the most, 0.030 of 0.05.
    """
    return significance * 6 / (pi * look) ** 2


def rows_to_settle(check: Check, rows: int) -> int | None:
    """Rows at which an open figure, if it stays as it is, is clear of what it must not reach.

    Its interval narrows with the root of the rows. None where it lies on its limit, or so near that
    nobody will ever tell.

    Args:
        check: one with an interval, measured on so many rows.
    """
    limit = check.threshold if check.limit is None else check.limit
    if check.low is None or check.high is None or check.value == limit:
        return None
    reach = check.high - check.value if check.value < limit else check.value - check.low
    needed = ceil(rows * (reach / (limit - check.value)) ** 2)
    return max(rows + 1, needed) if needed <= max(_HOPELESS, 2 * rows) else None


def checks_of(
    reviewed: Evidence,
    general: Evidence | None,
    refit: Evidence | None,
    parts: list[Part],
    settings: GateSettings,
    *,
    active: str | None,
    looks: int,
    start: str = "",
) -> Iterator[Check]:
    """All checks, those that decide first.

    Args:
        start: the active version, where the candidate's training started from it.
    """
    base = paired(reviewed, "base")
    if base is None:
        return
    yield _better(base, level_of(looks, settings.significance), settings)
    yield _accurate(base, settings)
    yield from _net(base, reviewed, settings)
    yield _brier(base, settings)
    other = paired(reviewed, "active") if active else None
    if other:
        yield _active(other, settings)
    if other and start:
        yield _start(other, start, settings)
    forgotten = paired(general, "base") if general and general.examples else None
    if forgotten:
        yield _general(forgotten, settings)
    if refit:
        yield _refit(refit, reviewed)
    if parts:
        yield _parts(parts, settings)
    yield _proposal(base, settings)


def _better(base: Paired, level: float, settings: GateSettings) -> Check:
    p, gain = p_better(base, level), base.gain().value
    worse = p_worse(base) <= settings.significance
    shown = p <= level and gain > 0  # a hair's breadth on every row is significant, and nothing
    state: State = "harm" if worse else "shown" if shown else "open"
    text = (
        f"accuracy {base.was.mean():.1%} before, {base.now.mean():.1%} after; a candidate that is "
        f"no better looks this good with p = {p:.2g}, and at most {level:.2g} is allowed"
    )
    return _check(BETTER, p, level, state, text)


def _accurate(base: Paired, settings: GateSettings) -> Check:
    """Better probabilities alone may show that it is better: they must not hide lost answers."""
    return _at_least(
        "as accurate as the base (change)",
        base.gain(_two_sided(settings)),
        0.0,
        settings.max_base_drop,
        "accuracy against the base",
    )


def _net(base: Paired, reviewed: Evidence, settings: GateSettings) -> Iterator[Check]:
    """Reviews that were chosen because they looked wrong must not hide what is broken."""
    drawn = at_random(reviewed)[reviewed.asked("base", "candidate")]
    found = traffic(base, drawn, _two_sided(settings))
    if found.sampled:
        yield _at_least(NET, found.net, 0.0, 0.0, "of the traffic's answers are mended, net")
    elif settings.require_random:
        text = f"{drawn.sum()} reviews were drawn at random, and it takes {FEWEST} to tell"
        yield _check(NET, found.net.value, 0.0, "open", text)


def _brier(base: Paired, settings: GateSettings) -> Check:
    grown = base.brier(_two_sided(settings))
    limit = settings.max_brier_increase
    state: State = "shown" if grown.high <= limit else "harm" if grown.low > limit else "open"
    text = f"the Brier score changed by {grown.value:+.3f}; it may grow by {limit:.3f}"
    return _check("Brier score kept (change)", grown, limit, state, text)


def _active(other: Paired, settings: GateSettings) -> Check:
    gain = other.gain(_two_sided(settings))
    return _at_least(
        "as accurate as the active version (change)",
        gain,
        0.0,
        settings.max_active_drop,
        "accuracy against the active version",
    )


def _start(other: Paired, start: str, settings: GateSettings) -> Check:
    """An increment must not pay for what it learns with the confidence of what was there."""
    found = _brier(other, settings)
    gain = other.gain(_two_sided(settings))
    text = (
        f"it started from {start}: on {len(other.labels)} rows that neither had learned from, "
        f"accuracy changed by {_points(gain)}, and {found.text}"
    )
    return replace(found, name="no worse than its start (Brier, change)", text=text)


def _general(general: Paired, settings: GateSettings) -> Check:
    """The loss as measured: the set is always the same one, and has few groups by design."""
    kept = general.gain(_two_sided(settings))
    limit = -settings.max_general_drop
    state: State = "shown" if kept.value >= limit else "harm" if kept.high < limit else "open"
    text = f"accuracy on general NLI changed by {_points(kept)}; it may lose {-100 * limit:.1f}"
    return _check(GENERAL, kept, limit, state, text)


def _at_least(name: str, figure: Interval, least: float, drop: float, what: str) -> Check:
    """Measured to be at least that, and not, but for chance, lower by more than `drop`."""
    limit = least - drop if figure.value >= least else least
    ruled_out = not drop or figure.low >= least - drop
    state: State = "open"
    if figure.high < least:
        state = "harm"
    elif figure.value >= least and ruled_out:
        state = "shown"
    text = f"{what}: {_points(figure)}"
    if drop:
        text += f"; a loss of {100 * drop:.1f} must be ruled out"
    return _check(name, figure, least, state, text, limit=limit)


def _refit(refit: Evidence, reviewed: Evidence) -> Check:
    """The adapter that was saved knows the rows it learned from as well as copies that did not."""
    own, unseen = (
        float((each.answers["candidate"].argmax(axis=1) == each.labels).mean())
        for each in (refit, reviewed)
    )
    state: State = "shown" if own >= unseen else "harm"
    text = f"the saved adapter has {own:.1%} of the rows right that it learned from: no evidence"
    return _check("saved adapter works (no evidence)", own, unseen, state, text)


def _parts(parts: list[Part], settings: GateSettings) -> Check:
    harmed = [part.name for part in parts if part.harm <= settings.significance]
    state: State = "harm" if harmed else "shown"
    text = f"clearly more broken than fixed in: {', '.join(harmed)}" if harmed else "none is harmed"
    name = "labels, pages, domains and claims harmed"
    return _check(name, len(harmed), 0, state, text, enforced=settings.enforce_groups)


def _proposal(base: Paired, settings: GateSettings) -> Check:
    accuracy, limit = float(np.mean(base.now)), settings.min_accuracy
    text = f"accuracy {accuracy:.1%}; the proposal asks for {limit:.1%}"
    state: State = "shown" if accuracy >= limit else "harm"
    enforced = settings.enforce_min_accuracy
    return _check("accuracy of the proposal", accuracy, limit, state, text, enforced=enforced)


def _check(
    name: str,
    figure: float | Interval,
    threshold: float,
    state: State,
    text: str,
    *,
    enforced: bool = True,
    limit: float | None = None,
) -> Check:
    """A check of this state; an estimate brings its range."""
    found = Check(name, 0.0, threshold, state == "shown", enforced, state, text, limit=limit)
    if isinstance(figure, Interval):
        return replace(found, value=figure.value, low=figure.low, high=figure.high)
    return replace(found, value=figure)


def _two_sided(settings: GateSettings) -> float:
    """The level of an interval each end of which is one test at the significance."""
    return 1 - 2 * settings.significance


def _points(figure: Interval) -> str:
    value, low, high = (100 * each for each in (figure.value, figure.low, figure.high))
    return f"{value:+.1f} points ({low:+.1f} to {high:+.1f})"
