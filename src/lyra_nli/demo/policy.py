"""Topics about a law or a public programme, and the pages that report on them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import date, timedelta
from random import Random
from typing import Any

from lyra_nli.demo.codebook import (
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
    Silent,
    Size,
    Spending,
    Start,
    Threshold,
)
from lyra_nli.demo.drafts import Names, Passage, Statement, Topic
from lyra_nli.demo.numbers import draw_change, draw_points, p_value_forms, plain
from lyra_nli.demo.phrases import Writer, in_words, load_text

# Not strftime: its names of months depend on the locale.
_MONTHS = (
    "January", "February", "March", "April", "May", "June", "July",
    "August", "September", "October", "November", "December",
)  # fmt: skip

Found = tuple[str, tuple[Fact, ...]]


def policy_topic(rng: Random, names: Names, mix: Mapping[str, Any]) -> Topic:
    """One topic: a law or a programme in one place, two or three pages, three or four claims.

    Args:
        rng: the source of every choice.
        names: knows which pairs of place and policy are taken.
        mix: the weights of text/mix.yaml.
    """
    policy = (_Law if rng.random() < mix["law_share"] else _Programme)(rng, names, mix)
    passages = []
    for page in range(rng.choice((2, 3))):
        for kind in rng.choices(
            list(policy.kinds), list(policy.kinds.values()), k=rng.randint(3, 5)
        ):
            text, facts = policy.findings[kind]()
            passages.append(Passage(kind, page, policy.framed(text), facts))
    return Topic(policy.slug, policy.titles(), tuple(passages), policy.statements())


class _Policy:
    """What laws and programmes have in common."""

    family = ""
    findings: Mapping[str, Callable[[], Found]]

    def __init__(self, rng: Random, names: Names, mix: Mapping[str, Any]) -> None:
        self.rng, self.mix = rng, mix
        self.kinds: Mapping[str, float] = mix[self.family]
        self.book = load_text("policy")
        self.writer = Writer(rng, self.book)
        for _ in range(1000):
            self.subject: Mapping[str, Any] = rng.choice(self.book[f"{self.family}s"])
            self.place = names.pick("place")
            self.slug = f"{self.place}-{self.subject['name']}".lower().replace(" ", "-")
            if names.once(self.slug):
                return
        raise ValueError(f"no {self.family} is left in any place: ask for fewer pairs")

    def slots(self) -> dict[str, Any]:
        """What every sentence may name."""
        return {
            "place": self.place,
            "k": in_words(self.rng.randint(2, 6)),
            "x": self.rng.randint(21, 84),
            "year": self.rng.randint(2028, 2032),
        }

    def write(self, phrase: str, **slots: object) -> str:
        """One wording of a phrase."""
        return self.writer.write(phrase, self.slots() | slots)

    def titles(self) -> tuple[str, ...]:
        """A title for each page."""
        return tuple(self.write(f"title_{self.family}") for _ in range(3))

    def framed(self, text: str) -> str:
        """With or without sentences around the finding."""
        if self.rng.random() < self.mix["lead_share"]:
            text = f"{self.write(f'{self.family}_lead')} {text}"
        if self.rng.random() < self.mix["tail_share"]:
            text = f"{text} {self.write(f'{self.family}_tail')}"
        return text

    def statements(self) -> tuple[Statement, ...]:
        """The claims of the topic."""
        raise NotImplementedError


class _Law(_Policy):
    """A duty: who has it, from what size, from when, and what breaking it costs."""

    family = "law"

    def __init__(self, rng: Random, names: Names, mix: Mapping[str, Any]) -> None:
        super().__init__(rng, names, mix)
        self.findings = {
            "threshold": self._threshold,
            "coverage": self._coverage,
            "force": self._force,
            "start": self._start,
            "fine": self._fine,
            "aside": self._aside,
        }
        self.size: int = rng.choice(self.subject["sizes"])
        self.classes: list[str] = rng.sample(self.subject["classes"], 2)
        self.day = date(rng.randint(2023, 2029), rng.choice((1, 3, 4, 6, 7, 10)), 1)
        self.most = rng.choice((2_000, 5_000, 10_000, 25_000, 40_000))

    def slots(self) -> dict[str, Any]:
        subject = self.subject
        article = "an" if subject["body"][0] in "aeio" else "a"
        return super().slots() | {
            "act": f"{self.place} {subject['name']}",
            "bodies": subject["bodies"],
            "a_body": f"{article} {subject['body']}",
            "duty": subject["duty"],
            "duty_one": subject["duty"].replace(" their ", " its "),
            "unit": subject["unit"],
        }

    def _threshold(self) -> Found:
        least = self.rng.random() < 0.55
        text = self.write(
            "threshold_at_least" if least else "threshold_more_than", size=f"{self.size:,}"
        )
        return text, (Threshold(self.size if least else self.size + 1),)

    def _coverage(self) -> Found:
        body, bound = self.rng.choice(self.classes), self.rng.random() < 0.4
        text = self.write("covered" if bound else "exempt", **{"class": body})
        return text, (Coverage(body, bound),)

    def _force(self) -> Found:
        binding = self.rng.random() < 0.45
        return self.write("binding" if binding else "advisory"), (Force(binding),)

    def _start(self) -> Found:
        passed = self.day - timedelta(days=self.rng.randint(200, 600))
        text = self.write("start", day=_spoken(self.day), passed=_spoken(passed))
        return text, (Start(self.day),)

    def _fine(self) -> Found:
        if self.rng.random() < 0.6:
            return self.write("fine_up_to", most=f"{self.most:,}"), (Fine(1, self.most),)
        least = self.most // self.rng.choice((4, 5, 10))
        text = self.write("fine_between", most=f"{self.most:,}", least=f"{least:,}")
        return text, (Fine(least, self.most),)

    def _aside(self) -> Found:
        return self.write("aside"), (Silent("law", "aside"),)

    def statements(self) -> tuple[Statement, ...]:
        makers = [self._size_claim, self._size_claim, self._class_claim, self._force_claim,
                  self._start_claim, self._fine_claim]  # fmt: skip
        return tuple(maker() for maker in self.rng.sample(makers, 4))

    def _size_claim(self) -> Statement:
        factor = self.rng.choice((0.4, 0.6, 0.8, 1.0, 1.3, 1.7, 2.5))
        size = max(2, round(self.size * factor))
        bound = self.rng.random() < 0.65
        text = self.write("claim_size_bound" if bound else "claim_size_free", n=f"{size:,}")
        return Statement(text, BoundBySize(size, bound))

    def _class_claim(self) -> Statement:
        body, bound = self.rng.choice(self.classes), self.rng.random() < 0.6
        text = self.write("claim_class_bound" if bound else "claim_class_free", **{"class": body})
        return Statement(text, BoundByClass(body, bound))

    def _force_claim(self) -> Statement:
        binding = self.rng.random() < 0.65
        text = self.write("claim_binding" if binding else "claim_voluntary")
        return Statement(text, Mandatory(binding))

    def _start_claim(self) -> Statement:
        later = self.rng.choice((-420, -240, -95, -40, 35, 80, 190, 380))
        day, applies = self.day + timedelta(days=later), self.rng.random() < 0.6
        text = self.write("claim_applies" if applies else "claim_not_yet", day=_spoken(day))
        return Statement(text, InForce(day, applies))

    def _fine_claim(self) -> Statement:
        amount = round(self.most * self.rng.choice((0.05, 0.5, 0.9, 1.5, 2.0, 3.0)))
        possible = self.rng.random() < 0.7
        text = self.write(
            "claim_fine_possible" if possible else "claim_fine_impossible", amount=f"{amount:,}"
        )
        return Statement(text, FineOf(amount, possible))


class _Programme(_Policy):
    """Public money, and what it changed."""

    family = "programme"

    def __init__(self, rng: Random, names: Names, mix: Mapping[str, Any]) -> None:
        super().__init__(rng, names, mix)
        self.findings = {
            "effect": self._effect,
            "fall": self._fall,
            "budget": self._budget,
            "pilot": self._pilot,
            "praise": self._praise,
        }
        self.change = draw_change(rng, self.subject["base"])

    def slots(self) -> dict[str, Any]:
        return super().slots() | {
            "programme": self.subject["name"],
            "outcome": self.subject["outcome"],
            "was": "were" if self.subject.get("many") else "was",
        }

    def _points(self) -> tuple[dict[str, Any], Estimate]:
        weights = self.mix["readings"]
        reading = self.rng.choices(list(weights), list(weights.values()))[0]
        value, low, high, p_value = draw_points(self.rng, reading, self.subject["base"])
        shown = {
            "est": f"{value:.1f}",
            "lo": f"{low:.1f}",
            "hi": f"{high:.1f}",
            "size": f"{abs(value):.1f}",
            "p": p_value_forms(p_value)[0],
        }
        return shown, Estimate("outcome", value, low, high, neutral=0.0)

    def _effect(self) -> Found:
        shown, fact = self._points()
        lean = "_down" if fact.value < 0 else "_up"
        phrase = "effect" if fact.value == 0 or self.rng.random() < 0.6 else f"effect{lean}"
        text = self.write(phrase, **shown)
        if self.rng.random() < self.mix["verdict_share"]:
            text = f"{text} {self.write(f'verdict_{fact.reading}')}"
        return text, (fact,)

    def _fall(self) -> Found:
        before, after = self.change
        text = self.write("fall", before=plain(before), after=plain(after))
        return text, (Change("outcome", before, after, caused=False),)

    def _budget(self) -> Found:
        inflation = round(self.rng.uniform(1.8, 7.5), 1)
        kind = self.rng.choices(("eroded", "grown", "cut"), (0.45, 0.4, 0.15))[0]
        cash = round(
            {
                "eroded": inflation * self.rng.uniform(0.2, 0.8),
                "grown": inflation * self.rng.uniform(1.3, 2.6),
                "cut": -self.rng.uniform(1.0, 6.0),
            }[kind],
            1,
        )
        text = self.write(
            "budget_down" if cash < 0 else "budget_up",
            cash=plain(abs(cash)),
            inflation=plain(inflation),
        )
        return text, (Budget(cash, inflation),)

    def _pilot(self) -> Found:
        shown, _ = self._points()
        return self.write("pilot", **shown), (Silent("outcome", "elsewhere"),)

    def _praise(self) -> Found:
        return self.write("praise"), (Silent("outcome", "praise"),)

    def statements(self) -> tuple[Statement, ...]:
        directions: list[Direction] = self.rng.sample(
            ["lower", "lower", "higher", "same", "not lower", "not higher"], 2
        )
        real, cash = self._money_claim(real=True), self._money_claim(real=False)
        money = real if self.rng.random() < 0.75 else cash
        effects = [
            Statement(self.write(f"claim_{way.replace(' ', '_')}"), Effect("outcome", way))
            for way in directions
        ]
        return (*effects, money, self._size_claim())

    def _money_claim(self, *, real: bool) -> Statement:
        rose = self.rng.random() < 0.6
        phrase = f"claim_{'real' if real else 'cash'}_{'rose' if rose else 'fell'}"
        return Statement(self.write(phrase), Spending(real, rose))

    def _size_claim(self) -> Statement:
        before, after = self.change
        points, relative = before - after, 100 * (before - after) / before
        if self.rng.random() < 0.5:
            value = self.rng.choice((points, relative))
            return Statement(
                self.write("claim_points", value=plain(value)), Size("outcome", "points", value)
            )
        value = self.rng.choice((relative, points))
        return Statement(
            self.write("claim_relative", value=plain(value)), Size("outcome", "relative", value)
        )


def _spoken(day: date) -> str:
    return f"{day.day} {_MONTHS[day.month - 1]} {day.year}"
