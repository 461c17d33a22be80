"""Tables: the figures of a verdict as rows of words, for its report."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from lyra_nli.evaluation.gate import Change, Check, Population, Verdict
from lyra_nli.evaluation.intervals import Interval
from lyra_nli.evaluation.metrics import Scores
from lyra_nli.evaluation.reliability import Bin

NONE: Final = "-"

_KINDS: Final = {
    "holdout": "The rows were held out: no model learned from them.",
    "out of fold": "Reviews are few, so all of them were learned from; each was judged by a copy "
    "of the candidate that was trained without it and without what belongs to it.",
}

_STATES: Final = {"shown": "shown", "open": "not shown", "harm": "the contrary is shown"}


@dataclass(frozen=True)
class Table:
    """A head and rows of the same width; the first cell of a row names it."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]


def checks(verdict: Verdict) -> Table:
    """What a candidate must show, in words."""
    rows = [[check.name, check.text, _state(check)] for check in verdict.checks]
    return Table("What it must show", ["check", "found", "so it is"], rows)


def changes(verdict: Verdict) -> Table:
    """What was fixed and broken in every population."""
    head = ["population", "rows", "groups", "right before", "right after"]
    head += ["change, points", "errors fixed", "right answers broken", "p"]
    head += ["smallest gain it could show, points"]
    rows = [_changed(each) for each in verdict.populations]
    if verdict.active and verdict.against_active:
        rows.insert(1, _against(verdict.active, verdict.against_active))
    return Table("What changed", head, rows)


def scores(verdict: Verdict) -> Table:
    """How sure every model is, and how rightly so."""
    models = [m for m in ("base", "active", "candidate") if m in verdict.populations[0].scores]
    figures = {"Brier": "brier", "negative log-likelihood": "nll", "calibration error": "ece"}
    head = ["population", *(f"{title}: {model}" for title in figures for model in models)]
    rows = [
        [each.name, *(_score(each.scores.get(m), of) for of in figures.values() for m in models)]
        for each in verdict.populations
    ]
    return Table("How sure, and how rightly", head, rows)


def bars(title: str, bins: Sequence[Bin]) -> Table:
    """A reliability diagram's figures."""
    rows = [
        [f"{bar.low:.0%} to {bar.high:.0%}", str(bar.n), f"{bar.confidence or 0:.1%}", _right(bar)]
        for bar in bins
    ]
    return Table(title, ["sure", "rows", "said, on average", "right"], rows)


def facts(verdict: Verdict) -> Iterator[str]:
    """What stands beside the figures, a sentence each."""
    yield _KINDS[verdict.kind]
    if verdict.looks > 1:
        yield (
            "Of the candidates that were judged on mostly these rows it is number "
            f"{verdict.looks}. Each is another chance to be lucky, so this one must show its gain "
            f"at p = {verdict.level:.2g}."
        )
    of = verdict.traffic
    whence = "reviews drawn at random" if of.sampled else "all reviews, also those that were picked"
    yield (
        f"By {whence}, the base is wrong on {_share(of.errors)} of what it is asked. With that "
        f"share, the candidate mends {_points(of.net)} of a hundred answers, net: people would "
        f"correct {_share(of.left)} of its answers."
    )
    if verdict.not_shown:
        places = f"{verdict.not_shown} more pages, domains and claims"
        yield f"{places} were less harmed, and are not shown."


def _state(check: Check) -> str:
    if not check.enforced and not check.holds:
        return f"{_STATES[check.state]}; it does not decide"
    return _STATES[check.state]


def _changed(population: Population) -> list[str]:
    scores, change = population.scores, population.change
    shares = [_share(scores[m].accuracy) if m in scores else NONE for m in ("base", "candidate")]
    rows = [str(max(each.n for each in scores.values())), NONE]
    if change:
        rows = [str(change.n), str(change.groups)]
    return [population.name, *rows, *shares, *_moved(change)]


def _against(active: str, change: Change) -> list[str]:
    """The reviewed rows that the active version may be asked about."""
    before, after = change.nfr.n, change.nfr.n + change.fixed - change.broken
    shares = [f"{right / change.n:.1%}" for right in (before, after)]
    return [
        f"reviewed, against {active}",
        str(change.n),
        str(change.groups),
        *shares,
        *_moved(change),
    ]


def _moved(change: Change | None) -> list[str]:
    if change is None:
        return [NONE] * 5
    return [
        _points(change.gain),
        f"{change.fixed} of {change.efr.n} ({_share(change.efr)})",
        f"{change.broken} of {change.nfr.n} ({_share(change.nfr)})",
        f"{change.p:.2g}",
        f"{100 * change.detectable:.1f}",
    ]


def _score(found: Scores | None, name: str) -> str:
    if found is None:
        return NONE
    value, interval = getattr(found, name), found.intervals.get(name)
    ends = f" [{interval.low:.3f}, {interval.high:.3f}]" if interval else ""
    return f"{value:.3f}{ends}"


def _right(bar: Bin) -> str:
    low, high = (100 * (each or 0) for each in (bar.accuracy_low, bar.accuracy_high))
    return f"{bar.accuracy or 0:.1%} [{low:.1f}, {high:.1f}]"


def _share(interval: Interval) -> str:
    if interval.n == 0:
        return "no rows"
    return f"{interval.value:.1%} [{100 * interval.low:.1f}, {100 * interval.high:.1f}]"


def _points(interval: Interval) -> str:
    value, low, high = (100 * each for each in (interval.value, interval.low, interval.high))
    return f"{value:+.1f} [{low:+.1f}, {high:+.1f}]"
