"""The gate: whether the candidate beats what serves now, on rows it never saw.

``fail``: harm is shown. ``pass``: everything that is enforced is shown. ``insufficient``: the rest;
the verdict says how many more reviews it takes, and of which kind. docs/gate.md derives the rule.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from lyra_nli.errors import DatasetError
from lyra_nli.evaluation.changes import Change, Paired, change, rows_to_show
from lyra_nli.evaluation.checks import (
    BETTER,
    GENERAL,
    NET,
    Check,
    checks_of,
    level_of,
    rows_to_settle,
)
from lyra_nli.evaluation.estimates import ENOUGH_GROUPS
from lyra_nli.evaluation.evidence import Evidence
from lyra_nli.evaluation.populations import (
    SHOWN,
    Part,
    Population,
    at_random,
    paired,
    parts_of,
    populate,
    row_by_row,
    whole,
)
from lyra_nli.evaluation.traffic import FEWEST, Traffic, traffic
from lyra_nli.settings import GateSettings

__all__ = [
    "Change",
    "Check",
    "Evidence",
    "Kind",
    "Population",
    "Verdict",
    "decide",
    "judge_candidate",
]

Outcome = Literal["pass", "fail", "insufficient"]

Kind = Literal["holdout", "out of fold"]
"""Why the candidate had not seen the reviewed rows: they were held out, or each was answered by a
student of another fold."""


@dataclass(frozen=True)
class More:
    """The reviews that would settle it.

    Attributes:
        count: about how many; None where no number would.
        kind: which ones.
    """

    count: int | None
    kind: str


@dataclass(frozen=True)
class Verdict:
    """The gate's answer, with every figure it rests on.

    Attributes:
        populations: the reviewed rows first, in all and by kind, then labels, general NLI, and
            pages, domains and claims, the most harmed first.
        kind: why the candidate had not seen the rows.
        looks: candidates judged on mostly these rows, this one included.
        level: the chance of being wrong about a gain that this look was allowed.
        traffic: net gain on what the model is asked.
        warnings: what a reader must know before trusting the outcome, a sentence each.
        more: what to review; None where that would not change the outcome.
        not_shown: pages, domains and claims with enough rows that are not among the populations.
    """

    outcome: Outcome
    sentence: str
    checks: tuple[Check, ...]
    populations: tuple[Population, ...]
    against_base: Change
    against_active: Change | None
    active: str | None
    kind: Kind
    looks: int
    level: float
    traffic: Traffic
    warnings: tuple[str, ...]
    more: More | None
    not_shown: int

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return asdict(self)


def judge_candidate(
    reviewed: Evidence,
    general: Evidence | None,
    settings: GateSettings,
    *,
    kind: Kind,
    active: str | None = None,
    looks: int = 1,
    refit: Evidence | None = None,
    start: str = "",
) -> Verdict:
    """Compare the candidate with the base, and with the active version if there is one.

    Args:
        reviewed: rows that people judged and the candidate did not learn from.
        general: general NLI that nobody learned from.
        active: name of the version that ``active`` of the answers stands for.
        looks: candidates judged on (mostly) these rows so far, this one included.
        refit: of the out-of-fold kind: what the final adapter says of the rows it learned from.
        start: the version that its training started from; empty: the base.

    Raises:
        DatasetError: there are no rows that base and candidate both answered.
    """
    base = paired(reviewed, "base")
    if base is None:
        raise DatasetError("the gate has no rows to judge the candidate on")
    level, parts = level_of(looks, settings.significance), parts_of(reviewed)
    start = start if start == active else ""  # only then are its answers here
    found_checks = checks_of(
        reviewed, general, refit, parts, settings, active=active, looks=looks, start=start
    )
    checks = tuple(found_checks)
    other = paired(reviewed, "active") if active else None
    outcome = decide(checks)
    more = None
    if outcome == "insufficient":
        more = _more(base, reviewed, checks, level, settings, start)
        if kind == "holdout" and more.count is not None:
            more = replace(more, kind=f"{more.kind}, held out: most new ones are learned from")
    found = traffic(base, at_random(reviewed)[reviewed.asked("base", "candidate")])
    warnings = list(_warnings(base, found, parts, settings))
    if active and other is None:
        warnings.append(f"{active} learned from all of these rows: nothing here compares with it.")
    against_base = change(base, level)
    labels = sum(part.of_label for part in parts)
    return Verdict(
        outcome=outcome,
        sentence=_sentence(outcome, checks, base, against_base, more, kind),
        checks=checks,
        populations=tuple(_populations(reviewed, general, parts, labels, level)),
        against_base=against_base,
        against_active=change(other, level) if other else None,
        active=active,
        kind=kind,
        looks=looks,
        level=level,
        traffic=found,
        warnings=tuple(warnings),
        more=more,
        not_shown=max(0, len(parts) - labels - SHOWN),
    )


def decide(checks: Sequence[Check]) -> Outcome:
    """The rule: harm that is shown fails; a pass needs everything that counts shown."""
    enforced = [check for check in checks if check.enforced]
    if any(check.state == "harm" for check in enforced):
        return "fail"
    return "pass" if all(check.holds for check in enforced) else "insufficient"


def _populations(
    reviewed: Evidence, general: Evidence | None, parts: Sequence[Part], labels: int, level: float
) -> Iterator[Population]:
    yield from populate(reviewed, whole(reviewed), level)
    yield from populate(reviewed, {part.name: part.rows for part in parts[:labels]}, level)
    if general and general.examples:
        everything = general.asked("candidate")
        yield from populate(general, {"general NLI": everything}, level)
    for part in parts[labels : labels + SHOWN]:
        yield from populate(row_by_row(reviewed, part.rows), {part.name: part.rows}, level)


def _sentence(
    outcome: Outcome,
    checks: Sequence[Check],
    base: Paired,
    found: Change,
    more: More | None,
    kind: Kind,
) -> str:
    tally = (
        f"{found.fixed} errors fixed, {found.broken} right answers broken, accuracy "
        f"{base.was.mean():.1%} before and {base.now.mean():.1%} after"
    )
    unseen = "it never saw" if kind == "holdout" else "judged by copies that never saw them"
    rows = f"{found.n} reviewed rows {unseen}"
    if outcome == "pass":
        return f"Better than the base on {rows}: {tally}. Nothing that counts got worse."
    if outcome == "fail":
        harm = [c.text for c in checks if c.enforced and c.state == "harm"]
        return f"Not good enough on {rows}: {tally}. What speaks against it: {'; '.join(harm)}."
    unclear = [c.text for c in checks if c.enforced and not c.holds]
    missing = f"Not shown: {'; '.join(unclear)}. {_ask(more)}"
    return f"{rows[0].upper()}{rows[1:]} can't settle it: {tally}. {missing}"


def _ask(more: More | None) -> str:
    if more is None:
        return ""
    if more.count is None:
        return f"More reviews alone will hardly change that: {more.kind}."
    return f"It would take about {more.count} more {more.kind}."


def _more(
    base: Paired,
    reviewed: Evidence,
    checks: Sequence[Check],
    level: float,
    settings: GateSettings,
    start: str,
) -> More:
    n = len(base.labels)
    drawn = int(at_random(reviewed)[reviewed.asked("base", "candidate")].sum())
    if drawn < FEWEST and any(check.name == NET and not check.holds for check in checks):
        return More(FEWEST - drawn, "reviews of pairs drawn at random")
    unclear = [c for c in checks if c.enforced and not c.holds and c.name != GENERAL]
    if not unclear:
        return More(None, "it takes more general NLI pairs, see dataset.replay_file")
    gain_is_open = any(check.name == BETTER for check in unclear)
    gain = rows_to_show(base, level, settings.worthwhile_gain) if gain_is_open else None
    if gain_is_open and gain is None:
        points = 100 * settings.worthwhile_gain
        return More(None, f"a gain of {points:.0f} points would probably have been seen by now")
    others = (rows_to_settle(check, n) for check in unclear if check.name != BETTER)
    needed = max((need for need in (gain, *others) if need is not None), default=None)
    if needed is None:
        return More(None, "what is open lies just on its limit")
    kind = _kind(base, reviewed)
    if start:
        kind = kind.replace("reviews", f"reviews that {start} has not learned from", 1)
    return More(needed - n, kind)


def _kind(base: Paired, reviewed: Evidence) -> str:
    """Which reviews tell most: of new groups where those are few, else what is rarest."""
    if base.clusters.freedom + 1 < ENOUGH_GROUPS:
        return (
            f"reviews, of other pages and claims than these: {base.clusters.count} groups of rows "
            f"that hang together count for about {base.clusters.freedom + 1:.0f}"
        )
    if int(at_random(reviewed).sum()) < ENOUGH_GROUPS:
        return "reviews, best of pairs drawn at random, which show what the traffic gains"
    if int((~base.was).sum()) < ENOUGH_GROUPS:
        return "reviews, best of pairs that the model got wrong: there are few corrections"
    return "reviews"


def _warnings(
    base: Paired, found: Traffic, parts: Sequence[Part], settings: GateSettings
) -> Iterator[str]:
    helped, harmed = (
        [part.name for part in parts if getattr(part, way) <= settings.significance]
        for way in ("help", "harm")
    )
    if harmed:
        also = f", although it helps in {', '.join(helped)}" if helped else ""
        yield f"It clearly breaks more than it fixes in {', '.join(harmed)}{also}."
    if not found.sampled:
        harm = ""
        if found.even:
            share = f"less than {found.even:.0%} of what it is asked"
            harm = f" Where the base errs on {share}, this breaks more than it fixes."
        yield (
            "Too few of these reviews were drawn at random to say how often the model errs: on "
            f"what the queue picked, the gain looks larger than it is on the traffic.{harm}"
        )
    if base.clusters.freedom + 1 < ENOUGH_GROUPS:
        count, worth = base.clusters.count, base.clusters.freedom + 1
        yield (
            f"The rows hang together in {count} groups, which count for about {worth:.0f}: "
            "intervals are wide and rough."
        )
