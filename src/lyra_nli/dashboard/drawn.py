"""The reviews that were drawn at random, counted once for every page that shows them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable
from dataclasses import dataclass, field

from sqlalchemy import Connection, select

from lyra_nli.dashboard import stamps
from lyra_nli.dashboard.view import View
from lyra_nli.monitoring import rates
from lyra_nli.monitoring.rates import RandomReview, Week
from lyra_nli.monitoring.shares import Share
from lyra_nli.storage.generation import Generation
from lyra_nli.storage.tables import nli_versions

Said = Counter[tuple[str, str]]
"""How often the model said the first label, and the human the second."""


@dataclass(frozen=True)
class Drawn:
    """What a page wants to know of the random reviews.

    Attributes:
        reviews: oldest first.
        weeks: by week and version, oldest first.
        by_version: the correction rates.
        said: by version.
        undated: how many bear a time that can't be, or has not come yet.
        stamp: of the rows that were counted; what is worked out from these has it too.
    """

    reviews: list[RandomReview] = field(default_factory=list)
    weeks: list[Week] = field(default_factory=list)
    by_version: dict[str, Share] = field(default_factory=dict)
    said: dict[str, Said] = field(default_factory=dict)
    undated: int = 0
    stamp: Hashable = None


def drawn_at_random(view: View) -> Drawn:
    """Read and count those of the view's base, or remember.

    What ``base`` or ``unknown`` judged may be of another base: reviews don't tell.
    """
    drawn = view.ask(
        "the reviews that were drawn at random",
        Drawn(),
        lambda connection, generation: _count(connection, generation, view.base_model),
        needs={"nli_reviews": ("undone_at", "predicted_by")},
        stamp=stamps.of_reviews,
    )
    if drawn.undated:
        view.notes.append(
            f"{drawn.undated} reviews bear a time that can't be read or has not come yet: some "
            "clock was wrong. They count in the totals and stand in no week."
        )
    return drawn


def by_version(view: View) -> dict[str, Share]:
    """The correction rate of each version."""
    return drawn_at_random(view).by_version


def _count(connection: Connection, generation: Generation, base_model: str) -> Drawn:
    table = nli_versions.c
    others = select(table.name).where(table.base_model != base_model)
    foreign = set(connection.scalars(others)) if generation.has("nli_versions") else set()
    reviews = [
        review
        for review in rates.read_random_reviews(connection, generation)
        if review.version not in foreign
    ]
    said: dict[str, Said] = {}
    for review in reviews:
        said.setdefault(review.version, Counter())[review.predicted, review.correct] += 1
    return Drawn(
        reviews=reviews,
        weeks=rates.by_week(reviews),
        by_version=rates.by_version(reviews),
        said=said,
        undated=sum(not review.day for review in reviews),
        stamp=stamps.of_reviews(connection, generation),
    )
