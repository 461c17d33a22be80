"""What the demo's texts say: facts (stated by fragments) and propositions (stated by claims).

`lyra_nli.demo.codebook` compares the two.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import Literal

Reading = Literal["lower", "higher", "same", "unclear"]
Direction = Literal["lower", "higher", "same", "not lower", "not higher"]


@dataclass(frozen=True, slots=True)
class Scope:
    """For whom and against what a finding holds; empty: all people, the usual comparison."""

    people: str = ""
    arm: str = ""


EVERYONE = Scope()


# --- facts ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Estimate:
    """An effect with its 95% confidence interval.

    Attributes:
        neutral: the value of no effect: 1 for a ratio, 0 for a difference.
        conclusive: False where the text itself calls the result too small to tell.
        primary_of: the trial whose primary outcome this is.
    """

    subject: str
    value: float
    low: float
    high: float
    scope: Scope = EVERYONE
    neutral: float = 1.0
    conclusive: bool = True
    primary_of: str = ""

    @property
    def reading(self) -> Reading:
        """What the interval says."""
        if not self.conclusive:
            return "unclear"
        if self.high < self.neutral:
            return "lower"
        return "higher" if self.low > self.neutral else "same"


@dataclass(frozen=True, slots=True)
class Verdict:
    """An effect reported in words only."""

    subject: str
    reading: Reading
    scope: Scope = EVERYONE


@dataclass(frozen=True, slots=True)
class Noninferiority:
    """A ratio against a rival (``scope.arm``), with the margin that was agreed beforehand."""

    subject: str
    scope: Scope
    low: float
    high: float
    margin: float


@dataclass(frozen=True, slots=True)
class Change:
    """A percentage that fell from ``before`` to ``after``, significantly.

    Attributes:
        caused: the fall is the effect of the treatment (a controlled comparison).
    """

    subject: str
    before: float
    after: float
    caused: bool = True


@dataclass(frozen=True, slots=True)
class Silent:
    """A text on the subject that settles nothing about it (a surrogate, animals, a plan...)."""

    subject: str
    why: str


@dataclass(frozen=True, slots=True)
class Threshold:
    """Who is bound by size: from ``least`` units on."""

    least: int


@dataclass(frozen=True, slots=True)
class Coverage:
    """Whether a class of bodies is bound."""

    body: str
    bound: bool


@dataclass(frozen=True, slots=True)
class Force:
    """Whether a text obliges (True) or only advises (False)."""

    binding: bool


@dataclass(frozen=True, slots=True)
class Start:
    """When a duty begins to apply."""

    day: date


@dataclass(frozen=True, slots=True)
class Fine:
    """The bounds of a fine."""

    least: int
    most: int


@dataclass(frozen=True, slots=True)
class Budget:
    """Change in spending, and inflation over the same time, in percent."""

    cash: float
    inflation: float


Fact = (
    Estimate | Verdict | Noninferiority | Change | Silent
    | Threshold | Coverage | Force | Start | Fine | Budget
)  # fmt: skip


# --- propositions ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Effect:
    """X lowers, raises or does not change the subject."""

    subject: str
    direction: Direction
    scope: Scope = EVERYONE


@dataclass(frozen=True, slots=True)
class Noninferior:
    """Non-inferiority to the rival in ``scope.arm`` was shown (or was not)."""

    subject: str
    scope: Scope
    shown: bool


@dataclass(frozen=True, slots=True)
class Size:
    """How large the fall was."""

    subject: str
    kind: Literal["points", "relative", "nnt"]
    value: float


@dataclass(frozen=True, slots=True)
class PrimaryMet:
    """The trial met (or missed) its primary end point."""

    trial: str
    met: bool


@dataclass(frozen=True, slots=True)
class BoundBySize:
    """A body of this size is bound (or is not)."""

    size: int
    bound: bool


@dataclass(frozen=True, slots=True)
class BoundByClass:
    """Bodies of this class are bound (or are not)."""

    body: str
    bound: bool


@dataclass(frozen=True, slots=True)
class Mandatory:
    """The duty is binding (or is not)."""

    binding: bool


@dataclass(frozen=True, slots=True)
class InForce:
    """The duty applies (or does not apply) on a day."""

    day: date
    applies: bool


@dataclass(frozen=True, slots=True)
class FineOf:
    """A fine of this amount can (or can't) be imposed."""

    amount: int
    possible: bool


@dataclass(frozen=True, slots=True)
class Spending:
    """Spending rose (or fell), in cash or in real terms."""

    real: bool
    rose: bool


Proposition = (
    Effect | Noninferior | Size | PrimaryMet
    | BoundBySize | BoundByClass | Mandatory | InForce | FineOf | Spending
)  # fmt: skip
