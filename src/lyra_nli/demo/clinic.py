"""Topics about a treatment: the claims about it, and the pages that report on it."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random
from typing import Any

from lyra_nli.demo import findings
from lyra_nli.demo.drafts import Names, Passage, Statement, Topic
from lyra_nli.demo.facts import (
    Direction,
    Effect,
    Noninferior,
    PrimaryMet,
    Proposition,
    Scope,
    Size,
)
from lyra_nli.demo.numbers import plain
from lyra_nli.demo.study import STOPPING, Outcome, Study


def clinic_topic(rng: Random, names: Names, mix: Mapping[str, Any]) -> Topic:
    """One topic: a treatment in one population, two or three pages, three or four claims.

    Args:
        rng: the source of every choice.
        names: gives the treatment a name of its own.
        mix: the weights of text/mix.yaml.
    """
    study = Study(rng, names, mix)
    return Topic(
        slug=f"{study.name.lower()}-{study.main['key']}",
        titles=tuple(study.write("title", study.slots(study.main)) for _ in range(3)),
        passages=tuple(_passage(study, page, kind) for page, kind in _plan(study)),
        statements=_statements(study),
    )


def _plan(study: Study) -> list[tuple[int, str]]:
    """The kinds of findings, page by page."""
    weights = dict(study.mix["clinic"])
    weights[study.special] = study.mix["clinic_special_share"] * sum(weights.values())
    plan = [
        (page, kind)
        for page in range(study.rng.choice((2, 3)))
        for kind in study.rng.choices(
            list(weights), list(weights.values()), k=study.rng.randint(3, 5)
        )
    ]
    if all(kind != study.special for _, kind in plan):
        plan[0] = (0, study.special)
    return plan


def _passage(study: Study, page: int, kind: str) -> Passage:
    """One fragment of a kind, with or without sentences around the finding."""
    study.page = page
    text, facts = findings.KINDS[kind](study)
    slots = study.slots(study.main)
    # Sentences about a trial's conduct would contradict a text that pools trials or has none.
    if kind not in findings.BARE and "trials" not in text:
        if study.rng.random() < study.mix["lead_share"]:
            text = f"{study.write('lead', slots)} {text}"
        if study.rng.random() < study.mix["tail_share"]:
            text = f"{text} {study.write('tail', slots)}"
    return Passage(kind, page, text, facts)


def _statements(study: Study) -> tuple[Statement, ...]:
    """Two effects on the outcomes, and one or two claims that only this topic has."""
    outcome = study.rng.choices((study.main, study.second), (0.45, 0.55))[0]
    first, second = _direction(study, study.main), _direction(study, outcome)
    while outcome is study.main and second == first:
        second = _direction(study, outcome)
    return (
        _effect(study, study.main, first),
        _effect(study, outcome, second),
        *_SPECIAL_CLAIMS[study.special](study),
    )


def _direction(study: Study, outcome: Outcome) -> Direction:
    weights: Mapping[Direction, float] = study.mix["directions"]
    direction = study.rng.choices(list(weights), list(weights.values()))[0]
    if outcome.get("good"):
        mirror: dict[Direction, Direction] = {
            "lower": "higher", "higher": "lower", "not lower": "not higher",
            "not higher": "not lower", "same": "same",
        }  # fmt: skip
        return mirror[direction]
    return direction


def _effect(study: Study, outcome: Outcome, direction: Direction, people: str = "") -> Statement:
    phrase = f"claim_{direction.replace(' ', '_')}"
    good = bool(outcome.get("good"))
    special = {("lower", False): "claim_prevents", ("higher", False): "claim_harms",
               ("higher", True): "claim_brings"}.get((direction, good))  # fmt: skip
    if special and outcome is not STOPPING and study.rng.random() < 0.3:
        phrase = special
    text = study.write(phrase, study.slots(outcome, people))
    return Statement(text, Effect(outcome["key"], direction, Scope(people=people)))


def _subgroup_claims(study: Study) -> list[Statement]:
    direction = _direction(study, study.main)
    return [_effect(study, study.main, direction, study.subgroup)]


def _stopping_claims(study: Study) -> list[Statement]:
    direction: Direction = study.rng.choice(("higher", "higher", "same", "not higher"))
    return [_effect(study, STOPPING, direction)]


def _component_claims(study: Study) -> list[Statement]:
    direction: Direction = study.rng.choice(("lower", "lower", "same"))
    return [_effect(study, study.unwelcome, direction)]


def _dose_claims(study: Study) -> list[Statement]:
    claims = []
    for dose in study.doses:
        direction: Direction = study.rng.choice(("lower", "lower", "same", "not lower"))
        slots = study.slots(study.main) | {"drug": f"{study.drug} {dose}"}
        text = study.write(f"claim_{direction.replace(' ', '_')}", slots)
        claims.append(Statement(text, Effect(study.main["key"], direction, Scope(arm=dose))))
    return claims


def _noninferior_claims(study: Study) -> list[Statement]:
    subject, scope = study.unwelcome["key"], Scope(arm=study.rival)
    shown = study.rng.random() < 0.65
    phrase = "claim_noninferior" if shown else "claim_not_noninferior"
    slots = study.slots(study.unwelcome)
    superior = study.write("claim_superior", slots)
    return [
        Statement(study.write(phrase, slots), Noninferior(subject, scope, shown)),
        Statement(superior, Effect(subject, "lower", scope)),
    ]


def _size_claims(study: Study) -> list[Statement]:
    before, after = study.change
    points = before - after
    true = {"points": points, "relative": 100 * points / before, "nnt": 100 / points}
    # The classic mistakes: percent for points, points for percent, a ten-fold slip.
    false = {
        "points": true["relative"],
        "relative": points if points < 0.6 * true["relative"] else true["relative"] / 4,
        "nnt": study.rng.choice((true["nnt"] * 4, true["nnt"] * 10)),
    }
    kinds = [kind for kind, value in true.items() if abs(value - round(value, 1)) < 1e-9]
    kinds = [kind for kind in kinds if kind != "nnt" or true["nnt"] == round(true["nnt"])]
    claims = []
    for kind in study.rng.sample(kinds, 2):
        value = study.rng.choice((true, false))[kind]
        text = study.write(f"claim_{kind}", study.slots(study.unwelcome), {"value": plain(value)})
        claims.append(Statement(text, Size(study.unwelcome["key"], kind, value)))  # type: ignore[arg-type]
    return claims


def _primary_claims(study: Study) -> list[Statement]:
    claims = []
    for trial in study.trials[:2]:
        met = study.rng.random() < 0.65
        phrase = "claim_primary_met" if met else "claim_primary_missed"
        text = study.write(phrase, study.slots(study.main), {"trial": f"the {trial} trial"})
        proposition: Proposition = PrimaryMet(trial, met)
        claims.append(Statement(text, proposition))
    return claims


_SPECIAL_CLAIMS = {
    "subgroup": _subgroup_claims,
    "stopping": _stopping_claims,
    "components": _component_claims,
    "doses": _dose_claims,
    "noninferiority": _noninferior_claims,
    "change": _size_claims,
    "primary": _primary_claims,
}
