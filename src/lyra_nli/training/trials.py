"""Trials: recipes that a search tries, what their students said, and which one is best."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from lyra_nli.evaluation.scoring import brier
from lyra_nli.settings import TrainingSettings
from lyra_nli.training.parts import PartAnswers

State = Literal["finished", "pruned", "cut", "failed"]


@dataclass
class Trial:
    """One recipe, and what its students said of the parts that they were asked about.

    Attributes:
        half: the half of the parts whose rows proposed and judge it; None: the settings' own
            recipe, which nobody had to propose.
        changes: what it has otherwise than the settings.
        answers: by number of the part.
        lost: seconds of a fit that failed.
    """

    number: int
    half: int | None
    recipe: TrainingSettings
    changes: Mapping[str, Any]
    answers: dict[int, PartAnswers] = field(default_factory=dict)
    state: State = "finished"
    lost: float = 0.0

    @property
    def seconds(self) -> float:
        """What all its fits took."""
        return self.lost + sum(each.seconds for each in self.answers.values())

    @property
    def pace(self) -> float:
        """Seconds a fit, of those that were done."""
        return self.seconds / len(self.answers)

    def knows(self, parts: Iterable[int]) -> bool:
        """Whether its students were asked about all of these parts."""
        return all(part in self.answers for part in parts)

    def brier(self, parts: Iterable[int], strength: float) -> float:
        """The Brier score on the rows of these parts."""
        answers = [self.answers[part] for part in parts]
        said = torch.cat([each.logits[strength] for each in answers]).double().softmax(dim=-1)
        return brier(said.numpy(), torch.cat([each.targets for each in answers]).numpy())

    def best(self, parts: Collection[int]) -> tuple[float, float]:
        """(Brier score, strength): the lowest on these parts; of equals the weakest adapter."""
        return min((self.brier(parts, each), each) for each in self.recipe.strengths)


def choose(trials: Iterable[Trial], parts: Collection[int]) -> tuple[Trial, float]:
    """The trial and strength with the lowest Brier score on these parts; of equals the first.

    The Brier score, as for the strength alone: the likelihood would let a few certain errors
    decide, and the accuracy can't tell a sure answer from a guess.
    """
    trial = min(trials, key=lambda each: each.best(parts)[0])
    return trial, trial.best(parts)[1]


def told(trial: Trial) -> dict[str, Any]:
    """A trial as plain values."""
    return {
        "number": trial.number,
        "half": trial.half,
        "state": trial.state,
        "changes": dict(trial.changes),
        "parts": {str(part): trial.best([part])[0] for part in sorted(trial.answers)},
        "brier": trial.best(list(trial.answers))[0] if trial.answers else None,
        "seconds": trial.seconds,
    }
