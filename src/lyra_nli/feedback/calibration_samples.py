"""Which judgements can say whether a model's confidence is to be believed, and what it said then.

A sample is a reviewed pair: what people said of it, and what the model had said of it before.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from sqlalchemy import Connection

from lyra_nli.dataset.groups import Row, components
from lyra_nli.evaluation.judged import Judged
from lyra_nli.feedback.calibration_answers import (
    Answer,
    Case,
    Model,
    read_answers,
    source_of,
)
from lyra_nli.labels import INDEX
from lyra_nli.records import Review
from lyra_nli.storage.generation import Generation
from lyra_nli.storage.reviews import read_reviews

ENOUGH_RANDOM = 50
"""With so many pairs that were drawn at random, only those are used."""

_FEW_GROUPS = 10


@dataclass(frozen=True, slots=True)
class Samples:
    """The pairs that count, each with what the model said of it.

    Attributes:
        cases: one for each pair.
        answers: of each case.
        population: ``random`` when only the random share counts.
        random: how many were drawn at random.
        without_confidence: reviewed pairs whose judgement has no known confidence.
        sources: model version -> how many of its judgements could be evaluated.
    """

    model: Model
    cases: list[Case]
    answers: list[Answer]
    population: Literal["random", "all"]
    random: int
    without_confidence: int
    sources: dict[str, int]

    @property
    def judged(self) -> Judged:
        """The same as arrays (n > 0)."""
        chosen = np.array([INDEX[answer.chosen] for answer in self.answers])
        return Judged(
            probabilities=np.array([answer.probabilities for answer in self.answers]),
            chosen=chosen,
            labels=np.array([INDEX[case.newest.label] for case in self.cases]),
            groups=_groups(self.cases),
            whole=not any(answer.shared for answer in self.answers),
        )

    @property
    def tied(self) -> int:
        """Into how many groups shared pages and claims tie the pairs, where these are too few.

        Then every pair counts as independent, which it is not. 0: the groups count as they are.
        """
        groups = len(set(_components(self.cases)))
        return groups if groups < min(_FEW_GROUPS, len(self.cases)) else 0

    @property
    def words(self) -> str:
        """Which reviews count, and what that means for the figures."""
        if self.population == "random":
            return (
                f"Only the {self.random} reviews that were drawn at random count: they are a "
                "sample of what the model judges."
            )
        return (
            f"All {len(self.cases)} reviews count, because only {self.random} of them were "
            f"drawn at random ({ENOUGH_RANDOM} are needed). People look at doubtful edges first, "
            "so the model is probably better than these figures."
        )


def read_samples(connection: Connection, generation: Generation, model: Model) -> Samples:
    """Read the samples of one model: those drawn at random where there are enough, else all.

    Raises:
        AdapterInvalidError: when the version's out-of-fold answers can't be read.
    """
    cases = _cases(read_reviews(connection, generation).reviews)
    judged = [case for case in cases if case.newest.predicted_label is not None]
    usable = [case for case in judged if case.newest.predicted_confidence is not None]
    answers = read_answers(connection, generation, model, cases)
    mine = [(case, answers[case.key]) for case in cases if case.key in answers]
    random = [(case, answer) for case, answer in mine if case.random]
    enough = len(random) >= ENOUGH_RANDOM
    used = random if enough else mine
    return Samples(
        model=model,
        cases=[case for case, _ in used],
        answers=[answer for _, answer in used],
        population="random" if enough else "all",
        random=len(random),
        without_confidence=len(judged) - len(usable),
        sources=dict(Counter(source_of(case.newest) for case in usable).most_common()),
    )


def _cases(reviews: Iterable[Review]) -> list[Case]:
    by_pair: dict[str, list[Review]] = defaultdict(list)
    for review in reviews:
        by_pair[review.pair.key].append(review)
    return [Case(key, tuple(each)) for key, each in by_pair.items()]


def _groups(cases: Sequence[Case]) -> list[str]:
    """Which of the cases are no independent evidence: those that share a page or a claim.

    Where that ties nearly all of them together, every pair is a group of its own.
    """
    groups = _components(cases)
    return groups if len(set(groups)) >= _FEW_GROUPS else [case.key for case in cases]


def _components(cases: Sequence[Case]) -> list[str]:
    return components([Row(case.key, case.newest.label, case.newest.anchors) for case in cases])
