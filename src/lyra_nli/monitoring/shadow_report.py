"""How a shadow and the active version agreed on live pairs, and the pairs on which they parted."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import Connection, Row, select

from lyra_nli.labels import LABELS
from lyra_nli.monitoring.shares import Share
from lyra_nli.registry.trial_rows import Trial
from lyra_nli.storage.generation import Generation
from lyra_nli.storage.tables import nli_comparisons, nli_disagreements

Matrix = list[list[int]]


@dataclass(frozen=True, slots=True)
class Disagreement:
    """A live pair to which the two gave different labels.

    Attributes:
        one, other: the active version and the shadow.
        score: total variation distance between their answers, 0 to 1.
        answers: version -> probability of each label.
        edge_id: the edge with these texts; None while none is known.
    """

    at: str
    premise: str
    hypothesis: str
    source_url: str
    edge_id: str | None
    one: str
    other: str
    score: float
    answers: dict[str, dict[str, float]]

    @property
    def predicted(self) -> str:
        """The label that was answered."""
        return label_of(self.answers[self.one])

    def to_review(self) -> dict[str, Any]:
        """A row that `lyra-nli import` reads, once a person has filled in ``correct_label``."""
        return {
            "premise": self.premise,
            "hypothesis": self.hypothesis,
            "predicted_label": self.predicted,
            "predicted_confidence": self.answers[self.one][self.predicted],
            "predicted_by": self.one,
            "correct_label": None,
            "source_url": self.source_url,
            "edge_id": self.edge_id or "",
            "sampling": "queue",
        }


@dataclass(frozen=True, slots=True)
class Agreement:
    """What a trial's comparisons sum up to.

    Attributes:
        ones: the versions that were active meanwhile, the newest first.
        disagreed: share of pairs with different labels.
        labels: how many pairs got which labels: the active version's by the shadow's.
        confidence_shift: mean of the shadow's confidence less the active version's; None
            without pairs.
        skipped: pairs that were drawn, and for which there was no time.
    """

    ones: list[str]
    disagreed: Share
    labels: Matrix
    confidence_shift: float | None
    skipped: int

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return {**asdict(self), "disagreed": self.disagreed.to_dict()}


def agreement(connection: Connection, generation: Generation, trial: Trial) -> Agreement:
    """Sum up what all servers counted; a row that can't be read is passed over."""
    table = nli_comparisons
    counted: list[tuple[Row[Any], dict[str, Any]]] = []
    if generation.has(table.name):
        same = (table.c.base_model == trial.base_model, table.c.other == trial.version)
        query = select(table).where(table.c.kind == "shadow", *same).order_by(table.c.at.desc())
        rows = ((row, _details(row.details_json)) for row in connection.execute(query))
        counted = [(row, details) for row, details in rows if details.get("trial") == trial.id]
    compared = sum(row.compared for row, _ in counted)
    shift = sum(row.compared * (details["confidence_shift"] or 0.0) for row, details in counted)
    return Agreement(
        ones=list(dict.fromkeys(row.one for row, _ in counted)),
        disagreed=Share(sum(row.disagreed for row, _ in counted), compared),
        labels=_sum(details["labels"] for _, details in counted),
        confidence_shift=shift / compared if compared else None,
        skipped=sum(details["skipped"] for _, details in counted),
    )


def disagreements(
    connection: Connection, generation: Generation, trial: Trial, limit: int | None = None
) -> Iterator[Disagreement]:
    """Read the pairs in dispute, the most apart first."""
    table = nli_disagreements
    if not generation.has(table.name):
        return
    query = select(table).where(table.c.trial_id == trial.id)
    for row in connection.execute(query.order_by(table.c.score.desc(), table.c.id).limit(limit)):
        answers = json.loads(row.answers_json)
        one = next(name for name in answers if name != trial.version)
        yield Disagreement(
            at=row.at,
            premise=row.premise,
            hypothesis=row.hypothesis,
            source_url=row.source_url,
            edge_id=row.edge_id,
            one=one,
            other=trial.version,
            score=row.score,
            answers=answers,
        )


def label_of(chances: dict[str, float]) -> str:
    """The likeliest label."""
    return max(chances, key=chances.__getitem__)


def _sum(matrices: Iterable[Sequence[Sequence[int]]]) -> Matrix:
    total = [[0] * len(LABELS) for _ in LABELS]
    for matrix in matrices:
        for i, row in enumerate(matrix):
            for j, count in enumerate(row):
                total[i][j] += count
    return total


def _details(stored: str) -> dict[str, Any]:
    """What a row says besides its counts; empty when it is not as `shadow_rows` writes it."""
    try:
        details = json.loads(stored)
        shape = [len(row) for row in details["labels"]]
        whole = shape == [len(LABELS)] * len(LABELS) and isinstance(details["skipped"], int)
        return details if whole and "confidence_shift" in details else {}
    except (KeyError, TypeError, ValueError):
        return {}
