"""The kinds of clinical findings: each writes one text and says what it states."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from lyra_nli.demo.facts import (
    Change,
    Estimate,
    Fact,
    Noninferiority,
    Reading,
    Scope,
    Silent,
    Verdict,
)
from lyra_nli.demo.numbers import Result, plain
from lyra_nli.demo.phrases import in_words
from lyra_nli.demo.study import STOPPING, Outcome, Study, figures

MARGINS = (1.05, 1.08, 1.1, 1.15, 1.2, 1.25, 1.3, 1.4, 1.5, 1.6)
"""Non-inferiority margins for a ratio, as protocols choose them."""

Found = tuple[str, tuple[Fact, ...]]


def numbers(study: Study) -> Found:
    """A ratio with its interval, with no word about significance."""
    return _controlled(study, "numbers", study.outcome())


def pvalue(study: Study) -> Found:
    """Two percentages and a p value."""
    return _controlled(study, "pvalue", study.outcome())


def subgroup(study: Study) -> Found:
    """The same in a part of the people."""
    return _controlled(study, "numbers", study.outcome(), study.subgroup)


def elsewhere(study: Study) -> Found:
    """The same in other people."""
    people = study.rng.choice(study.area["elsewhere"])
    return _controlled(study, study.rng.choice(("numbers", "pvalue")), study.outcome(), people)


def stopping(study: Study) -> Found:
    """Treatment stopped because of side effects."""
    return _controlled(study, study.rng.choice(("numbers", "pvalue")), STOPPING)


def words(study: Study) -> Found:
    """A result without any number."""
    reading = study.reading(study.unwelcome)
    lean = study.rng.choice(("_fewer", "_more")) if reading == "same" else ""
    text = study.write(f"words_{reading}{lean}", study.slots(study.unwelcome))
    return text, (Verdict(study.unwelcome["key"], reading),)


def too_small(study: Study) -> Found:
    """A trial with too few events, which says so."""
    outcome = study.outcome()
    result = study.draw("unclear", outcome)
    percent = (result.treated + result.control) / 2
    events = in_words(max(3, round(result.participants * percent / 100)))
    text = study.write("too_small", study.slots(outcome), figures(result), {"x": events})
    return text, (result.estimate(outcome["key"], conclusive=False),)


def two_results(study: Study) -> Found:
    """Two outcomes in one sentence, often with opposite readings."""
    outcomes = [study.unwelcome, study.other]
    readings = [study.reading(item) for item in outcomes]
    if study.rng.random() < 0.5:
        outcomes.reverse()
        readings.reverse()
    return _double(study, "two_results", outcomes, readings)


def primary(study: Study) -> Found:
    """A primary and a secondary outcome that mostly disagree."""
    met = study.rng.random() < 0.4
    readings: list[Reading] = ["lower", "same"] if met else ["same", "lower"]
    outcomes = [study.unwelcome, study.other]
    text, (first, second) = _double(study, "primary_secondary", outcomes, readings)
    assert isinstance(first, Estimate)
    return text, (replace(first, primary_of=study.trial), second)


def composite(study: Study) -> Found:
    """A composite outcome only."""
    result = study.draw("lower", study.unwelcome)
    sides = {"first": _side(study, study.unwelcome), "second": _side(study, _other_bad(study))}
    text = study.write("composite_only", study.slots(study.unwelcome), figures(result), sides)
    return text, (result.estimate("composite"),)


def components(study: Study) -> Found:
    """A composite that is driven by one component while the other does not move."""
    first, second = study.unwelcome, _other_bad(study)
    moved = study.draw("lower", second)
    unmoved = study.draw("same", first, moved)
    whole = study.draw("lower", first, moved)
    # The ratio of a composite lies between those of its components.
    while not moved.value < whole.value < unmoved.value:
        moved, unmoved = study.draw("lower", second, whole), study.draw("same", first, whole)
        whole = study.draw("lower", first, moved)
    parts = unmoved, moved
    sides = {"first": _side(study, first, parts[0]), "second": _side(study, second, parts[1])}
    text = study.write("components", study.slots(first), figures(whole), sides)
    return text, (
        whole.estimate("composite"),
        parts[0].estimate(first["key"]),
        parts[1].estimate(second["key"]),
    )


def doses(study: Study) -> Found:
    """Two doses, of which mostly only the higher one works."""
    patterns: tuple[tuple[Reading, Reading], ...] = (
        ("same", "lower"),
        ("same", "lower"),
        ("lower", "lower"),
        ("same", "same"),
    )
    pattern = study.rng.choice(patterns)
    low = study.draw(pattern[0], study.main)
    high = study.draw(pattern[1], study.main, low)
    sides = {"low": _side(study, study.main, low), "high": _side(study, study.main, high)}
    text = study.write("doses", study.slots(study.main), figures(low), sides)
    key = study.main["key"]
    return text, tuple(
        result.estimate(key, Scope(arm=dose))
        for dose, result in zip(study.doses, (low, high), strict=True)
    )


def noninferiority(study: Study) -> Found:
    """A comparison with a rival drug against a margin."""
    outcome = study.unwelcome
    wanted: Reading = "lower" if study.rng.random() < 0.25 else "same"
    result = study.draw(wanted, outcome)
    above = [margin for margin in MARGINS if margin > result.high + 0.01][:4]
    below = [margin for margin in MARGINS if margin < result.high - 0.01]
    shown = not below or study.rng.random() < 0.5
    margin = study.rng.choice(above if shown else below)
    text = study.write(
        "noninferiority", study.slots(outcome), figures(result), {"margin": f"{margin:.2f}"}
    )
    scope = Scope(arm=study.rival)
    return text, (Noninferiority(outcome["key"], scope, result.low, result.high, margin),)


def change(study: Study) -> Found:
    """Percentages in both arms whose difference is beyond doubt."""
    before, after = study.change
    shown = {
        "pc": plain(before),
        "pt": plain(after),
        "kc": plain(10 * before),
        "kt": plain(10 * after),
    }
    text = study.write("change", study.slots(study.unwelcome), shown)
    return text, (Change(study.unwelcome["key"], before, after),)


def surrogate(study: Study) -> Found:
    """A laboratory marker, which settles nothing about the outcome."""
    outcome = study.outcome()
    marker = study.rng.choice(study.area["surrogate"])
    size = study.rng.randint(9, 46)
    slots = {
        "marker": marker["np"],
        "way": marker["way"],
        "x": size,
        "x_lo": size - study.rng.randint(3, 6),
        "x_hi": size + study.rng.randint(3, 6),
    }
    text = study.write("surrogate", study.slots(outcome), slots)
    return text, (Silent(outcome["key"], "surrogate"),)


def preclinical(study: Study) -> Found:
    """Animals."""
    return _silent(study, "preclinical", study.unwelcome)


def protocol(study: Study) -> Found:
    """A trial that is planned."""
    return _silent(study, "protocol", study.unwelcome)


def uncontrolled(study: Study) -> Found:
    """A registry or a case series without a comparison group."""
    return _silent(study, "uncontrolled", study.outcome())


def opinion(study: Study) -> Found:
    """What people expect, or a guideline that is silent."""
    return _silent(study, "opinion", study.outcome())


KINDS: dict[str, Callable[[Study], Found]] = {
    finding.__name__: finding
    for finding in (
        numbers, pvalue, words, two_results, too_small, subgroup, elsewhere, surrogate,
        preclinical, protocol, uncontrolled, opinion, composite,
        primary, components, doses, noninferiority, change, stopping,
    )
}  # fmt: skip
"""Every kind of clinical finding, by the name it has in the mix."""

BARE = frozenset({"surrogate", "preclinical", "protocol", "uncontrolled", "opinion", "too_small"})
"""Kinds that report no completed trial, about whose conduct something could be added."""


def _controlled(study: Study, phrase: str, outcome: Outcome, people: str = "") -> Found:
    result = study.draw(study.reading(outcome, people), outcome)
    if phrase == "numbers" and study.rng.random() < 0.12:
        phrase = "pooled"
    elif result.value != 1 and study.rng.random() < 0.5:
        # Which arm had fewer events is said of significant and of chance differences alike.
        phrase += "_fewer" if result.value < 1 else "_more"
    fact = result.estimate(outcome["key"], Scope(people=people))
    slots = study.slots(outcome, people) | figures(result)
    text = study.write(phrase, slots)
    if study.rng.random() < study.mix["verdict_share"]:
        text = f"{text} {study.write(f'verdict_{fact.reading}', slots)}"
    return text, (fact,)


def _double(
    study: Study,
    phrase: str,
    outcomes: list[Outcome],
    readings: list[Reading],
) -> Found:
    first = study.draw(readings[0], outcomes[0])
    second = study.draw(readings[1], outcomes[1], first)
    sides = {
        "first": _side(study, outcomes[0], first),
        "second": _side(study, outcomes[1], second),
    }
    text = study.write(phrase, study.slots(outcomes[0]), figures(first), sides)
    return text, (first.estimate(outcomes[0]["key"]), second.estimate(outcomes[1]["key"]))


def _side(study: Study, outcome: Outcome, result: Result | None = None) -> dict[str, Any]:
    """One of two results of a sentence."""
    shown = figures(result) if result else {}
    return {**shown, "outcome": study.rng.choice(outcome["np"])}


def _other_bad(study: Study) -> Outcome:
    """An unwelcome outcome of the area beside the topic's own."""
    outcomes: tuple[Outcome, ...] = (study.second, study.third, *study.area["outcomes"])
    for outcome in outcomes:
        if outcome is not study.unwelcome and not outcome.get("good"):
            return outcome
    raise AssertionError("every area has two unwelcome outcomes")


def _silent(study: Study, kind: str, outcome: Outcome) -> Found:
    percent = f"{outcome['base'] * study.rng.uniform(0.5, 1.2):.1f}"
    text = study.write(kind, study.slots(outcome), {"pt": percent})
    return text, (Silent(outcome["key"], kind),)
