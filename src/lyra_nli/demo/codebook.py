"""The rules that label a pair of the demo.

A fragment states facts, a claim states one proposition (`lyra_nli.demo.facts`); `label`
compares the two:

**Effects.** An estimate with its 95% confidence interval (or p value) is read as *lower* or
*higher* when the whole interval lies on that side of no effect, and as *same* when it
includes no effect. "No significant difference" is a finding: it REFUTES a claim of an effect
("X lowers the risk of Y") and SUPPORTS a claim of none ("X makes no significant difference
to Y", "X does not lower the risk of Y"). How many percent had the event, and whether "fewer"
or "more" did, never decides; the interval or the p value does.

**Too small to tell.** Where the text says that a trial had too few events to tell, the
finding is *unclear*: NEUTRAL towards every claim about the effect.

**About something else.** NEUTRAL: another outcome, a surrogate marker, animals, a part of
the people (subgroup) when the claim is about all of them, other people, a composite when the
claim is about one component, a trial that is planned, a series without a comparison group,
an opinion.

**Non-inferiority.** Shown when the upper confidence limit lies below the margin, not shown
when it lies at or above it; superior when it lies below 1.

**Size of an effect.** Percentage points, relative percent and numbers needed to treat are
three different things; a claim is true when its figure is that of its own kind.

**Primary end point.** Met when the primary outcome is significantly lower (the outcomes used
are all unwelcome), missed otherwise, whatever secondary outcomes show.

**Rules of law.** Thresholds are exact ("50 or more" includes 50, "more than 50" does not).
"Shall" and "must" bind; "should", "is encouraged to" and voluntary codes do not. An exempt
class is not bound. A duty applies from its date of commencement on. A fine is possible
between its stated bounds and impossible outside them.

**Money.** Real terms are cash terms after inflation.

Pairs that these rules do not settle are not asked: see `askable`.
"""

from __future__ import annotations

from collections.abc import Sequence

from lyra_nli.demo.facts import (
    EVERYONE,
    BoundByClass,
    BoundBySize,
    Budget,
    Change,
    Coverage,
    Direction,
    Effect,
    Estimate,
    Fact,
    Fine,
    FineOf,
    Force,
    InForce,
    Mandatory,
    Noninferior,
    Noninferiority,
    PrimaryMet,
    Proposition,
    Reading,
    Silent,
    Size,
    Spending,
    Start,
    Threshold,
    Verdict,
)
from lyra_nli.labels import Label

_EFFECT_IS_TRUE: dict[Direction, tuple[Reading, ...]] = {
    "lower": ("lower",),
    "higher": ("higher",),
    "same": ("same",),
    "not lower": ("higher", "same"),
    "not higher": ("lower", "same"),
}


def label(facts: Sequence[Fact], proposition: Proposition) -> Label:
    """The label of a pair, by the rules at the top of this module."""
    answers = {_truth(fact, proposition) for fact in facts} - {None}
    assert len(answers) <= 1, f"facts that contradict each other: {facts}"
    if not answers:
        return "neutral"
    return "supports" if answers.pop() else "refutes"


def about(facts: Sequence[Fact], proposition: Proposition) -> bool:
    """Whether a text is about the claim's own subject, decided or not."""
    if any(_truth(fact, proposition) is not None for fact in facts):
        return True
    subject = _subject(proposition)
    return any(_subject(fact) == subject for fact in facts)


def askable(facts: Sequence[Fact], proposition: Proposition) -> bool:
    """Whether the rules settle this pair beyond argument."""
    if any(_truth(fact, proposition) is not None for fact in facts):
        return True
    return not any(_murky(fact, proposition) for fact in facts)


def _truth(fact: Fact, proposition: Proposition) -> bool | None:
    """Whether a fact makes a proposition true or false, or does not bear on it."""
    match fact, proposition:
        case ((Estimate() | Verdict() | Change() | Noninferiority()), Effect()):
            return _effect(fact, proposition)
        case Noninferiority(), Noninferior():
            same = (fact.subject, fact.scope) == (proposition.subject, proposition.scope)
            return (fact.high < fact.margin) == proposition.shown if same else None
        case Change(), Size() if fact.subject == proposition.subject:
            return abs(_size(fact, proposition) - proposition.value) < 1e-6
        case Estimate(), PrimaryMet() if fact.primary_of == proposition.trial:
            return (fact.reading == "lower") == proposition.met
        case _:
            return _law(fact, proposition)


def _law(fact: Fact, proposition: Proposition) -> bool | None:
    match fact, proposition:
        case Threshold(), BoundBySize():
            return (proposition.size >= fact.least) == proposition.bound
        case Coverage(), BoundByClass() if fact.body == proposition.body:
            return fact.bound == proposition.bound
        case Force(), Mandatory():
            return fact.binding == proposition.binding
        case Start(), InForce():
            return (proposition.day >= fact.day) == proposition.applies
        case Fine(), FineOf():
            return (fact.least <= proposition.amount <= fact.most) == proposition.possible
        case Budget(), Spending():
            change = fact.cash - fact.inflation if proposition.real else fact.cash
            return (change > 0) == proposition.rose
        case _:
            return None


def _effect(fact: Estimate | Verdict | Change | Noninferiority, claim: Effect) -> bool | None:
    if fact.subject != claim.subject:
        return None
    if isinstance(fact, Change):
        if not fact.caused or claim.scope != EVERYONE:
            return None
        reading: Reading = "lower"
    elif fact.scope != claim.scope:
        return None
    elif isinstance(fact, Noninferiority):
        reading = Estimate("", 1.0, fact.low, fact.high).reading
    else:
        reading = fact.reading
    return None if reading == "unclear" else reading in _EFFECT_IS_TRUE[claim.direction]


def _size(fact: Change, claim: Size) -> float:
    points = fact.before - fact.after
    if claim.kind == "points":
        return points
    return 100 * points / fact.before if claim.kind == "relative" else 100 / points


def _murky(fact: Fact, claim: Proposition) -> bool:
    """A fact near a claim that it neither settles nor clearly leaves open."""
    if isinstance(claim, (BoundBySize, BoundByClass, Mandatory)):
        # A threshold says something about every body, a duty something about every class.
        return isinstance(fact, (Threshold, Coverage, Force, Start, Fine))
    if isinstance(claim, InForce):
        return isinstance(fact, (Threshold, Coverage, Force))
    if isinstance(claim, FineOf):
        return isinstance(fact, Force)
    if isinstance(claim, Spending) or isinstance(fact, Silent):
        return False
    if isinstance(claim, PrimaryMet):
        return False  # whether the text names that trial is the caller's to see
    if _subject(fact) != _subject(claim):
        return False
    if isinstance(claim, Size) or isinstance(fact, Change):
        # A hazard ratio hints at the size of an effect; a fall hints at a cause.
        return not isinstance(fact, Silent)
    arm = claim.scope.arm if isinstance(claim, (Effect, Noninferior)) else ""
    fact_arm = fact.scope.arm if isinstance(fact, (Estimate, Verdict, Noninferiority)) else ""
    return arm != fact_arm


def _subject(item: Fact | Proposition) -> str:
    match item:
        case Threshold() | BoundBySize():
            return "law: size"
        case Coverage() | BoundByClass():
            return f"law: {item.body}"
        case Force() | Mandatory():
            return "law: force"
        case Start() | InForce():
            return "law: start"
        case Fine() | FineOf():
            return "law: fine"
        case Budget() | Spending():
            return "money"
        case PrimaryMet():
            return f"trial: {item.trial}"
        case _:
            return item.subject
