from __future__ import annotations

from datetime import date

import pytest

from lyra_nli.demo.codebook import about, askable, label
from lyra_nli.demo.facts import (
    BoundByClass,
    BoundBySize,
    Budget,
    Change,
    Coverage,
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
    Scope,
    Silent,
    Size,
    Spending,
    Start,
    Threshold,
    Verdict,
)

LOWER = Estimate("stroke", 0.72, 0.60, 0.87)
HIGHER = Estimate("stroke", 1.32, 1.10, 1.58)
SAME = Estimate("stroke", 0.98, 0.81, 1.19)
SMALL = Estimate("stroke", 0.60, 0.20, 1.90, conclusive=False)


@pytest.mark.parametrize(
    ("fact", "labels"),
    [
        (LOWER, "supports refutes refutes refutes supports"),
        (HIGHER, "refutes supports refutes supports refutes"),
        (SAME, "refutes refutes supports supports supports"),
        (SMALL, "neutral neutral neutral neutral neutral"),
        (Verdict("stroke", "same"), "refutes refutes supports supports supports"),
        (
            Estimate("stroke", -2, -3.1, -0.9, neutral=0),
            "supports refutes refutes refutes supports",
        ),
        (
            Estimate("stroke", -0.4, -1.3, 0.5, neutral=0),
            "refutes refutes supports supports supports",
        ),
        (Estimate("death", 0.72, 0.60, 0.87), "neutral neutral neutral neutral neutral"),
        (Estimate("stroke", 0.7, 0.5, 0.9, Scope(people="women")), "neutral " * 5),
        (Silent("stroke", "surrogate"), "neutral " * 5),
        (Change("stroke", 8, 6), "supports refutes refutes refutes supports"),
    ],
)
def test_effects(fact: Fact, labels: str) -> None:
    directions = ("lower", "higher", "same", "not lower", "not higher")
    assert [label([fact], Effect("stroke", way)) for way in directions] == labels.split()


@pytest.mark.parametrize(
    ("low", "high", "neutral", "reading"),
    [(0.8, 0.99, 1, "lower"), (0.8, 1.0, 1, "same"), (1.0, 1.3, 1, "same"),
     (1.01, 1.3, 1, "higher"), (-2, -0.1, 0, "lower"), (-2, 0, 0, "same")],
)  # fmt: skip
def test_an_interval_that_touches_no_effect_includes_it(
    low: float, high: float, neutral: float, reading: str
) -> None:
    assert Estimate("x", 1, low, high, neutral=neutral).reading == reading


def test_a_claim_about_a_subgroup_needs_that_subgroup() -> None:
    women = Scope(people="women")
    claim = Effect("stroke", "lower", women)
    assert label([LOWER], claim) == "neutral"
    assert label([Estimate("stroke", 0.7, 0.5, 0.9, women)], claim) == "supports"


@pytest.mark.parametrize(
    ("high", "shown", "expected"),
    [(1.19, True, "supports"), (1.20, True, "refutes"), (1.25, True, "refutes"),
     (1.19, False, "refutes"), (1.20, False, "supports")],
)  # fmt: skip
def test_noninferiority(high: float, shown: bool, expected: str) -> None:
    rival = Scope(arm="rival")
    fact = Noninferiority("stroke", rival, 0.9, high, margin=1.2)
    assert label([fact], Noninferior("stroke", rival, shown)) == expected
    assert label([fact], Noninferior("stroke", Scope(arm="other"), shown)) == "neutral"
    assert label([fact], Effect("stroke", "lower", rival)) == "refutes"


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [("points", 2, "supports"), ("points", 25, "refutes"), ("relative", 25, "supports"),
     ("relative", 2, "refutes"), ("nnt", 50, "supports"), ("nnt", 4, "refutes")],
)  # fmt: skip
def test_sizes(kind: str, value: float, expected: str) -> None:
    assert label([Change("stroke", 8, 6)], Size("stroke", kind, value)) == expected  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("fact", "claim", "expected"),
    [
        (Threshold(50), BoundBySize(50, bound=True), "supports"),
        (Threshold(51), BoundBySize(50, bound=True), "refutes"),
        (Threshold(50), BoundBySize(34, bound=False), "supports"),
        (Coverage("charities", bound=False), BoundByClass("charities", bound=True), "refutes"),
        (Coverage("charities", bound=True), BoundByClass("charities", bound=True), "supports"),
        (Coverage("farms", bound=True), BoundByClass("charities", bound=True), "neutral"),
        (Force(binding=False), Mandatory(binding=True), "refutes"),
        (Force(binding=False), Mandatory(binding=False), "supports"),
        (Start(date(2027, 3, 1)), InForce(date(2027, 3, 1), applies=True), "supports"),
        (Start(date(2027, 3, 1)), InForce(date(2027, 2, 28), applies=True), "refutes"),
        (Fine(1, 5000), FineOf(5000, possible=True), "supports"),
        (Fine(1, 5000), FineOf(5001, possible=True), "refutes"),
        (Fine(500, 5000), FineOf(250, possible=False), "supports"),
        (Budget(3, 6), Spending(real=True, rose=True), "refutes"),
        (Budget(3, 6), Spending(real=False, rose=True), "supports"),
        (Budget(8, 6), Spending(real=True, rose=True), "supports"),
        (Budget(-1, 2), Spending(real=True, rose=False), "supports"),
        (Fine(1, 5000), Spending(real=True, rose=False), "neutral"),
    ],
)
def test_law_and_money(fact: Fact, claim: Proposition, expected: str) -> None:
    assert label([fact], claim) == expected


def test_the_primary_end_point_is_judged_alone() -> None:
    facts = [
        Estimate("stroke", 0.94, 0.84, 1.06, primary_of="ISLAY"),
        Estimate("falls", 0.81, 0.69, 0.95),
    ]
    assert label(facts, PrimaryMet("ISLAY", met=True)) == "refutes"
    assert label(facts, PrimaryMet("TEASEL", met=True)) == "neutral"
    assert label(facts, Effect("falls", "lower")) == "supports"


def test_two_facts_of_one_text_decide_their_own_claims() -> None:
    low, high = Scope(arm="5 mg"), Scope(arm="20 mg")
    facts = [Estimate("s", 0.97, 0.8, 1.2, low), Estimate("s", 0.7, 0.6, 0.8, high)]
    assert label(facts, Effect("s", "lower", low)) == "refutes"
    assert label(facts, Effect("s", "lower", high)) == "supports"


def test_a_text_that_contradicts_itself_is_a_fault() -> None:
    with pytest.raises(AssertionError, match="contradict"):
        label([LOWER, SAME], Effect("stroke", "lower"))


@pytest.mark.parametrize(
    ("fact", "claim"),
    [
        (Estimate("s", 0.7, 0.6, 0.8, Scope(arm="5 mg")), Effect("s", "lower")),
        (Estimate("s", 0.7, 0.6, 0.8), Size("s", "points", 2)),
        (Change("s", 8, 6, caused=False), Effect("s", "lower")),
        (Threshold(50), Mandatory(binding=True)),
        (Force(binding=True), BoundBySize(50, bound=True)),
        (Force(binding=True), InForce(date(2027, 3, 1), applies=True)),
        (Force(binding=False), FineOf(100, possible=True)),
    ],
)
def test_pairs_that_could_be_argued_about_are_not_asked(fact: Fact, claim: Proposition) -> None:
    assert not askable([fact], claim)


@pytest.mark.parametrize(
    ("fact", "claim", "on_subject"),
    [
        (SMALL, Effect("stroke", "lower"), True),
        (Silent("stroke", "animals"), Effect("stroke", "lower"), True),
        (Estimate("stroke", 0.7, 0.6, 0.8, Scope(people="women")), Effect("stroke", "lower"), True),
        (Estimate("falls", 0.7, 0.6, 0.8), Effect("stroke", "lower"), False),
        (Fine(1, 5000), InForce(date(2027, 3, 1), applies=True), False),
        (LOWER, Effect("stroke", "lower"), True),
    ],
)
def test_neutral_pairs_on_and_off_the_subject(
    fact: Fact, claim: Proposition, on_subject: bool
) -> None:
    assert askable([fact], claim)
    assert about([fact], claim) is on_subject
