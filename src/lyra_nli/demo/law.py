"""Topics about a law: who is bound, from what size, from when, and what breaking it costs."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, timedelta
from random import Random
from typing import Any

from lyra_nli.demo.drafts import Names, Statement
from lyra_nli.demo.facts import (
    BoundByClass,
    BoundBySize,
    Coverage,
    Fine,
    FineOf,
    Force,
    InForce,
    Mandatory,
    Silent,
    Start,
    Threshold,
)
from lyra_nli.demo.policy_base import Found, Policy

# Not strftime: its names of months depend on the locale.
_MONTHS = (
    "January", "February", "March", "April", "May", "June", "July",
    "August", "September", "October", "November", "December",
)  # fmt: skip


class Law(Policy):
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
        """What every sentence about the law may name."""
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
        """Four claims about the law."""
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


def _spoken(day: date) -> str:
    return f"{day.day} {_MONTHS[day.month - 1]} {day.year}"
