"""What one clinical topic is about: a treatment, its people, its outcomes, its trials."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random
from typing import Any

from lyra_nli.demo.drafts import Names
from lyra_nli.demo.facts import (
    Reading,
)
from lyra_nli.demo.numbers import Result, draw, draw_change, p_value_forms
from lyra_nli.demo.phrases import Writer, in_words, load_text

Outcome = Mapping[str, Any]

STOPPING: Outcome = {
    "key": "stopping",
    "np": [
        "stopping treatment because of side effects",
        "withdrawal because of side effects",
        "discontinuation due to adverse events",
    ],
    "do": "stop treatment because of side effects",
    "did": "stopped treatment because of side effects",
    "base": 8,
}
_DRUGS_ONLY = ("doses", "noninferiority", "stopping")


class Study:
    """The content of a topic; its choices are made once, when it is made.

    Attributes:
        main, second, third: outcomes of the area, most reported first.
        unwelcome: the first of them that nobody wants: "prevent" and "spare" need one.
        other: main or second, whichever is not ``unwelcome``.
        page: the page being written; each page reports on a trial of its own.
        special: the kind of finding that this topic has and few others have.
    """

    def __init__(self, rng: Random, names: Names, mix: Mapping[str, Any]) -> None:
        self.rng, self.mix = rng, mix
        self.writer = Writer(rng, load_text("trials"))
        self.area: Mapping[str, Any] = rng.choice(load_text("clinic"))
        services = self.area.get("services", load_text("names")["service"])
        self.is_drug = not services or rng.random() < mix["drug_share"]
        self.name = names.drug() if self.is_drug else names.programme()
        self.drug = self.name if self.is_drug else f"the {self.name} {rng.choice(services)}"
        self.comp = "placebo" if self.is_drug else "usual care"
        self.rival = names.drug()
        self.trials = names.sample("trial", 3)
        self.page = 0
        self._readings: dict[tuple[int, str, str], Reading] = {}
        self.main, self.second, self.third = rng.sample(self.area["outcomes"], 3)
        self.unwelcome = next(item for item in (self.main, self.second, self.third) if _bad(item))
        self.other = self.second if self.unwelcome is self.main else self.main
        self.doses = rng.choice((("5 mg", "20 mg"), ("10 mg", "40 mg"), ("50 mg", "200 mg")))
        self.special = self._special()
        self.subgroup = rng.choice(self.area["subgroups"])
        self.change = draw_change(rng, self.unwelcome["base"])

    def _special(self) -> str:
        weights = dict(self.mix["clinic_specials"])
        if not self.is_drug:
            for kind in _DRUGS_ONLY:
                weights.pop(kind)
        return str(self.rng.choices(list(weights), list(weights.values()))[0])

    @property
    def trial(self) -> str:
        """The trial that the current page reports on."""
        return self.trials[self.page]

    def reading(self, outcome: Outcome, people: str = "") -> Reading:
        """What the current page finds, by the weights of the mix; one page, one finding."""
        weights: Mapping[Reading, float] = self.mix["readings"]
        drawn = self.rng.choices(list(weights), list(weights.values()))[0]
        return self._readings.setdefault((self.page, outcome["key"], people), drawn)

    def outcome(self) -> Outcome:
        """One of the three outcomes, mostly the first."""
        outcomes: tuple[Outcome, ...] = (self.main, self.second, self.third)
        return self.rng.choices(outcomes, (0.6, 0.32, 0.08))[0]

    def draw(self, reading: Reading, outcome: Outcome, like: Result | None = None) -> Result:
        """Figures for an outcome; ``like``: in the same measure as another result."""
        return draw(self.rng, reading, outcome["base"], like.measure if like else None)

    def write(self, phrase: str, *slots: Mapping[str, Any]) -> str:
        """One wording of a phrase; later slots override earlier ones."""
        merged: dict[str, Any] = {}
        for each in slots:
            merged.update(each)
        return self.writer.write(phrase, merged)

    def slots(self, outcome: Outcome, people: str = "") -> dict[str, Any]:
        """What the sentences about an outcome may name."""
        return (
            self._treatment()
            | self._conduct()
            | _words_for(outcome)
            | {"who": people or self.area["who"]}
        )

    def _treatment(self) -> dict[str, Any]:
        given = ("given", "assigned to") if self.is_drug else ("assigned to", "offered")
        without = ("given", "assigned to") if self.is_drug else ("receiving", "assigned to")
        return {
            "drug": self.drug,
            "comp": self.comp,
            "rival": self.rival,
            "on": [f"{verb} {self.drug}" for verb in given],
            "off": [f"{verb} {self.comp}" for verb in without],
            "low_dose": self.doses[0],
            "high_dose": self.doses[1],
        }

    def _conduct(self) -> dict[str, Any]:
        rng = self.rng
        return {
            "trial": f"the {self.trial} trial",
            "animals": self.area["animals"],
            "k": in_words(rng.randint(3, 19)),
            "c": in_words(rng.randint(2, 8)),
            "v": in_words(rng.choice((3, 4, 6, 8))),
            "full": rng.randint(89, 99),
            "past": rng.randint(2009, 2019),
            "year": rng.randint(2028, 2033),
            "x": rng.randint(11, 58),
            "n": f"{rng.randint(180, 6400):,}",
        }


def figures(result: Result) -> dict[str, Any]:
    """A result as it is printed."""
    symbols, words = p_value_forms(result.p_value)
    return {
        "measure": result.measure[0],
        "a_measure": f"{'an' if result.measure[1] == 'OR' else 'a'} {result.measure[0]}",
        "m": result.measure[1],
        "quantity": {"HR": "hazard", "RR": "risk", "OR": "odds"}[result.measure[1]],
        "est": f"{result.value:.2f}",
        "lo": f"{result.low:.2f}",
        "hi": f"{result.high:.2f}",
        "pt": f"{result.treated:.1f}",
        "pc": f"{result.control:.1f}",
        "cut": round(100 * abs(1 - result.value)),
        "n": f"{result.participants:,}",
        "p": symbols,
        "p_words": words,
    }


def _words_for(outcome: Outcome) -> dict[str, Any]:
    good = not _bad(outcome)
    return {
        "outcome": outcome["np"],
        "was": "were" if outcome.get("many") else "was",
        "do": outcome["do"],
        "did": outcome["did"],
        "risk": "chance" if good else "risk",
        "risk_of": ["chance of", "likelihood of"] if good else ["risk of", "risk of", "rate of"],
    }


def _bad(outcome: Outcome) -> bool:
    return not outcome.get("good")
