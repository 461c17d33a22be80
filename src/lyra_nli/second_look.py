"""A second look: the labels that the newest training found hard to believe, with their texts.

Reviews of edges stand in the queue's order ``suspect``; those that came from a file are nowhere
else to be seen.
"""

from __future__ import annotations

from dataclasses import dataclass

from lyra_nli.dataset.clean import clean
from lyra_nli.errors import AdapterNotFoundError
from lyra_nli.records import Review
from lyra_nli.registry.answers import read_answers
from lyra_nli.training.suspicion import suspects
from lyra_nli.workspace import Workspace


@dataclass(frozen=True)
class Doubt:
    """A review whose label may be wrong.

    Attributes:
        suspicion: how likely that is, 0 to 1; None: people disagree about it.
    """

    review: Review
    suspicion: float | None


def doubts(workspace: Workspace, base_model: str) -> tuple[str, list[Doubt]]:
    """What should be looked at again, the most suspicious first.

    Only rows that a training judged without having learned from them are known to it by name.

    Returns:
        The version whose training says so, and the reviews that stand and were not confirmed since.

    Raises:
        AdapterNotFoundError: nothing was trained on all reviews yet.
        AdapterInvalidError: what the version keeps of its training can't be read.
    """
    trained = [v for v in workspace.registry.list(base_model) if not v.domain]
    if not trained:
        raise AdapterNotFoundError(
            f"no version of {base_model} was trained yet, and it takes one to doubt a label",
            hint="`lyra-nli train` makes one.",
        )
    newest = max(trained, key=lambda version: version.created_at)
    told = {row["id"]: row.get("suspicion") or 0.0 for row in read_answers(newest.path)}
    cleaned = clean(workspace.reviews().reviews)
    found = suspects(told, cleaned)
    disputed = cleaned.disputed
    standing = {review.id: review for review in cleaned.reviews}
    return newest.name, [
        Doubt(standing[row], None if row in disputed else found[row])
        for row in sorted(found, key=lambda row: -found[row])
        if row in standing
    ]
