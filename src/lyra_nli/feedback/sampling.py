"""How the reviews were drawn, and what only the random ones can say.

The queue draws at random among the judgements that nobody has reviewed yet, so the random reviews
are a sample of those, not of all judgements. A pair that was drawn and then skipped is not in the
sample: if people skip what is hard, the estimate is a little too kind to the model.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, case, func, select

from lyra_nli.storage.generation import Generation
from lyra_nli.storage.tables import nli_reviews


@dataclass(frozen=True, slots=True)
class SamplingCounts:
    """Reviews that stand, by how their edge was drawn.

    A judgement that was drawn at random counts once, by its first random verdict: what is
    reviewed again was chosen for it, and whose word is final does not matter for how often
    people object to the model.

    Attributes:
        random: judgements with a random review.
        queue, unknown: reviews.
        random_corrected: those of the random ones whose first random verdict changed the label.
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
    """Count the reviews that were not undone; a pair without an edge is one judgement."""
    if not generation.has("nli_reviews", "undone_at"):
        return SamplingCounts()
    review = nli_reviews.c
    rows = connection.execute(
        select(review.sampling, func.count())
        .where(review.undone_at.is_(None), review.sampling != "random")
        .group_by(review.sampling)
    )
    chosen = {sampling: int(n) for sampling, n in rows}
    changed = case((review.predicted_label != review.correct_label, 1), else_=0)
    nth = func.row_number().over(
        partition_by=func.coalesce(review.edge_id, review.pair_key),
        order_by=(review.reviewed_at, review.id),
    )
    drawn = (
        select(changed.label("changed"), nth.label("nth"))
        .where(review.undone_at.is_(None), review.sampling == "random")
        .subquery()
    )
    random, corrected = connection.execute(
        select(func.count(), func.coalesce(func.sum(drawn.c.changed), 0)).where(drawn.c.nth == 1)
    ).one()
    return SamplingCounts(random, chosen.get("queue", 0), chosen.get("unknown", 0), int(corrected))
