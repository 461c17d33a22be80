"""Which reviews can say whether the model's confidence is to be believed."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Literal

import numpy as np
from sqlalchemy import Connection

from lyra_nli.evaluation.calibration import Confidence, Hits
from lyra_nli.records import Review
from lyra_nli.storage.generation import Generation
from lyra_nli.storage.reviews import read_reviews

ENOUGH_RANDOM = 50
"""With so many reviews that were drawn at random, only those are used."""

EVERY_MODEL = "nli"
"""The source that mixes the judgements of all model versions."""

UNKNOWN_MODEL = "unknown"
"""The source of judgements whose model version nobody kept."""


@dataclass(frozen=True, slots=True)
class Samples:
    """The reviews that count, one for each pair: its newest verdict.

    Attributes:
        reviews: each with a prediction and its confidence.
        population: ``random`` when only the random share counts.
        random: how many were drawn at random.
        without_confidence: reviewed pairs whose confidence nobody kept.
        sources: model version -> how many of its judgements could be evaluated.
    """

    reviews: list[Review]
    population: Literal["random", "all"]
    random: int
    without_confidence: int
    sources: dict[str, int]

    @property
    def confidence(self) -> Confidence:
        """What the model gave the label that it chose, [n]."""
        return np.array([review.predicted_confidence for review in self.reviews], dtype=np.float64)

    @property
    def hits(self) -> Hits:
        """Whether the human left that label as it was, [n]."""
        return np.array([not review.corrected for review in self.reviews], dtype=np.bool_)

    @property
    def groups(self) -> list[str]:
        """The pair of each review, by its hash, [n]."""
        return [review.pair.key for review in self.reviews]

    @property
    def words(self) -> str:
        """Which reviews count, and what that means for the figures."""
        if self.population == "random":
            return (
                f"Only the {self.random} reviews that were drawn at random count: they are a "
                "sample of what the model judges."
            )
        return (
            f"All {len(self.reviews)} reviews count, because only {self.random} of them were "
            f"drawn at random ({ENOUGH_RANDOM} are needed). People look at doubtful edges first, "
            "so the model is probably better than these figures."
        )


def read_samples(connection: Connection, generation: Generation, source: str) -> Samples:
    """Read the reviews of one source: a model version, or `EVERY_MODEL`."""
    newest = {review.pair.key: review for review in read_reviews(connection, generation).reviews}
    judged = [review for review in newest.values() if review.predicted_label is not None]
    usable = [review for review in judged if review.predicted_confidence is not None]
    mine = [review for review in usable if source in (EVERY_MODEL, _source(review))]
    random = [review for review in mine if review.sampling == "random"]
    enough = len(random) >= ENOUGH_RANDOM
    return Samples(
        reviews=random if enough else mine,
        population="random" if enough else "all",
        random=len(random),
        without_confidence=len(judged) - len(usable),
        sources=dict(Counter(map(_source, usable)).most_common()),
    )


def _source(review: Review) -> str:
    return review.predicted_by or UNKNOWN_MODEL
