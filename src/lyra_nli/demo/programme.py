"""Topics about a public programme: its money, and what it changed."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random
from typing import Any

from lyra_nli.demo.drafts import Names, Statement
from lyra_nli.demo.facts import (
    Budget,
    Change,
    Direction,
    Effect,
    Estimate,
    Silent,
    Size,
    Spending,
)
from lyra_nli.demo.numbers import draw_change, draw_points, p_value_forms, plain
from lyra_nli.demo.policy_base import Found, Policy


class Programme(Policy):
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
        """What every sentence about the programme may name."""
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
        """Four claims about the programme."""
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
