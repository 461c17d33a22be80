"""The gate's report: a page of Markdown that a person who is no statistician can read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from lyra_nli.evaluation.gate import Change, Check, Population, Verdict
from lyra_nli.evaluation.metrics import Interval

_HEADLINES = {
    "pass": "PASS: the candidate may serve",
    "fail": "FAIL: the candidate is kept, but must not serve",
    "insufficient": "INSUFFICIENT EVIDENCE: not shown to be better yet",
}


def markdown(verdict: Verdict, name: str, lineage: Mapping[str, object]) -> str:
    """The whole report.

    Args:
        name: the candidate's version name.
        lineage: what it was made from, one line each.
    """
    return "\n".join(
        [
            f"# Gate report: {name}",
            "",
            f"**{_HEADLINES[verdict.outcome]}.** {verdict.sentence}",
            "",
            "## Checks",
            "",
            *_checks(verdict),
            "",
            "## Accuracy and Brier score",
            "",
            *_scores(verdict),
            "",
            "Intervals are 95% Wilson intervals. The Brier score runs from 0 (certain and right) "
            "to 2 (certain and wrong). All models answered the same rows, and none learned from "
            "them.",
            "",
            "## Fixed and broken",
            "",
            *_changes(verdict),
            "",
            "## Made from",
            "",
            *(f"- {key}: {value}" for key, value in lineage.items()),
            "",
        ]
    )


def _checks(verdict: Verdict) -> Iterator[str]:
    yield "| check | figure | threshold | |"
    yield "|---|---|---|---|"
    for check in verdict.checks:
        yield f"| {check.name} | {check.value:.3f} | {check.threshold:.3f} | {_mark(check)} |"


def _mark(check: Check) -> str:
    if check.holds:
        return "holds"
    return "**does not hold**" if check.enforced else "does not hold (shown, not enforced)"


def _scores(verdict: Verdict) -> Iterator[str]:
    models = [m for m in ("base", "active", "candidate") if m in verdict.populations[0].scores]
    titles = [f"active ({verdict.active})" if m == "active" else m for m in models]
    columns = [f"accuracy {t}" for t in titles] + [f"Brier {t}" for t in titles]
    yield "| population | rows | " + " | ".join(columns) + " |"
    yield "|---|---|" + "---|" * len(columns)
    for population in verdict.populations:
        yield _score_row(population, models)


def _score_row(population: Population, models: Sequence[str]) -> str:
    scores = [population.scores[model] for model in models]
    cells = [_interval(s.accuracy) for s in scores] + [f"{s.brier:.3f}" for s in scores]
    return f"| {population.name} | {scores[0].n} | " + " | ".join(cells) + " |"


def _changes(verdict: Verdict) -> Iterator[str]:
    yield "| candidate against | errors fixed | right answers broken | p (one-sided McNemar) |"
    yield "|---|---|---|---|"
    yield _change_row("base", verdict.against_base)
    if verdict.against_active:
        yield _change_row(f"active ({verdict.active})", verdict.against_active)


def _change_row(name: str, change: Change) -> str:
    fixed = f"{change.fixed} of {change.efr.n} ({_interval(change.efr)})"
    broken = f"{change.broken} of {change.nfr.n} ({_interval(change.nfr)})"
    return f"| {name} | {fixed} | {broken} | {change.p:.2g} |"


def _interval(interval: Interval) -> str:
    if interval.n == 0:
        return "no rows"
    return f"{interval.value:.3f} [{interval.low:.3f}, {interval.high:.3f}]"
