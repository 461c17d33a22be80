"""How the reviews were drawn, and what only the random ones can say."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, case, func, select

from lyra_nli.storage.generation import Generation
from lyra_nli.storage.tables import nli_reviews


@dataclass(frozen=True, slots=True)
class SamplingCounts:
    """Reviews that stand, by how their edge was drawn.

    Attributes:
        random, queue, unknown: how many.
        random_corrected: those of the random ones that changed the label.
    """

    random: int = 0
    queue: int = 0
    unknown: int = 0
    random_corrected: int = 0

    @property
    def correction_rate(self) -> float | None:
        """How often the model errs, estimated by the random reviews; None without any.

        The queue looks for errors, so its reviews would make the model look worse.
        """
        return self.random_corrected / self.random if self.random else None


def count_sampling(connection: Connection, generation: Generation) -> SamplingCounts:
    """Count the reviews that were not undone."""
    if not generation.has("nli_reviews", "undone_at"):
        return SamplingCounts()
    review = nli_reviews.c
    changed = case((review.predicted_label != review.correct_label, 1), else_=0)
    rows = connection.execute(
        select(review.sampling, func.count(), func.sum(changed))
        .where(review.undone_at.is_(None))
        .group_by(review.sampling)
    )
    counts = {sampling: (int(n), int(corrected)) for sampling, n, corrected in rows}
    random, random_corrected = counts.get("random", (0, 0))
    queue, unknown = (counts.get(name, (0, 0))[0] for name in ("queue", "unknown"))
    return SamplingCounts(random, queue, unknown, random_corrected)
