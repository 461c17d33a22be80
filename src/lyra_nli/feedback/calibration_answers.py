"""What a model said of reviewed pairs before anybody reviewed them.

So it can't have learned the answer. What one model version said is, the first that is known:

1. what the server answered, in ``nli_predictions``;
2. the answer of a student of that version that had not learned from the pair, in the version's
   ``out_of_fold.jsonl``;
3. the confidence that the review itself names; then only the chosen label's probability is known.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sqlalchemy import Connection, select

from lyra_nli.evaluation.judged import shared
from lyra_nli.labels import INDEX, LABELS, Label
from lyra_nli.records import BASE, Review
from lyra_nli.registry.answers import read_answers as stored_answers
from lyra_nli.storage.engine import batches, utc
from lyra_nli.storage.generation import Generation
from lyra_nli.storage.tables import nli_predictions, nli_versions

EVERY_MODEL = "nli"
"""The source that mixes the judgements of all model versions."""

UNKNOWN_MODEL = "unknown"
"""The source of judgements whose model version nobody kept."""


@dataclass(frozen=True, slots=True)
class Model:
    """Whose judgements are meant.

    Attributes:
        source: an adapter version, `BASE`, `EVERY_MODEL` or `UNKNOWN_MODEL`.
        base_model: empty where it is none that can be served.
        folder: of the version, where it has one.
    """

    source: str
    base_model: str = ""
    folder: Path | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model said of a pair; of `shared` probabilities only the chosen one is its own."""

    probabilities: tuple[float, ...]
    chosen: Label
    shared: bool = False


@dataclass(frozen=True, slots=True)
class Case:
    """A reviewed pair.

    Attributes:
        key: of the pair.
        reviews: those that stand, the newest last.
    """

    key: str
    reviews: tuple[Review, ...]

    @property
    def newest(self) -> Review:
        """What people said last."""
        return self.reviews[-1]

    @property
    def random(self) -> bool:
        """The pair was drawn at random."""
        return any(review.sampling == "random" for review in self.reviews)


def find_model(
    connection: Connection,
    generation: Generation,
    source: str,
    base_model: str,
    directory: Path | None,
) -> Model:
    """Find out whose judgements a source's are; `base_model` is that of the source `BASE`."""
    if source == BASE:
        return Model(source, base_model)
    if not generation.has("nli_versions") or source in (EVERY_MODEL, UNKNOWN_MODEL):
        return Model(source)
    known = select(nli_versions.c.base_model).where(nli_versions.c.name == source)
    base = connection.scalar(known)
    return Model(source, base or "", directory / source if base and directory else None)


def read_answers(
    connection: Connection, generation: Generation, model: Model, cases: Sequence[Case]
) -> dict[str, Answer]:
    """Pair key -> what the model said of it, where that is known."""
    if model.source in (EVERY_MODEL, UNKNOWN_MODEL):
        said = ((case.key, _as_reviewed(case.newest, model.source)) for case in cases)
        return {key: answer for key, answer in said if answer}
    logged = _logged(connection, generation, model, cases)
    unseen = _unseen(model.folder)
    found: dict[str, Answer] = {}
    for case in cases:
        known = [logged.get(case.key)]
        known += [unseen.get(review.id) for review in reversed(case.reviews)]
        # Only the first: a version that judged for a later one may have learned the verdict.
        known.append(_as_reviewed(case.reviews[0], model.source))
        answer = next(filter(None, known), None)
        if answer:
            found[case.key] = answer
    return found


def _as_reviewed(review: Review, source: str) -> Answer | None:
    """Read the judgement that the reviewer saw, if it is one of this source."""
    label, confidence = review.predicted_label, review.predicted_confidence
    if label is None or confidence is None or source not in (EVERY_MODEL, source_of(review)):
        return None
    vector = shared(np.array([confidence]), np.array([INDEX[label]]))[0]
    return Answer(tuple(vector.tolist()), label, shared=True)


def _logged(
    connection: Connection, generation: Generation, model: Model, cases: Sequence[Case]
) -> dict[str, Answer]:
    """Pair key -> the newest answer of the server that is older than the first review."""
    if not model.base_model or not generation.has("nli_predictions"):
        return {}
    reviewed = {case.key: case.reviews[0].reviewed_at for case in cases}
    row = nli_predictions.c
    ordered = (
        select(row.pair_key, row.at, row.label, *(row[label] for label in LABELS))
        .where(row.base_model == model.base_model, row.version == model.source)
        .order_by(row.id)
    )
    found: dict[str, tuple[str, Answer]] = {}
    for keys in batches(reviewed):
        for key, at, label, *vector in connection.execute(ordered.where(row.pair_key.in_(keys))):
            moment = utc(at)
            earlier, _ = found.get(key, ("", None))
            if moment and label in LABELS and earlier <= moment < reviewed[key]:
                found[key] = moment, Answer(tuple(vector), label)
    return {key: answer for key, (_, answer) in found.items()}


def _unseen(folder: Path | None) -> dict[str, Answer]:
    """Review id -> what a student that had not learned from it said.

    Raises:
        AdapterInvalidError: when a line can't be read.
    """
    rows = stored_answers(folder) if folder else []
    return {row["id"]: _most_probable(row["probabilities"]) for row in rows}


def _most_probable(probabilities: Mapping[Label, float]) -> Answer:
    vector = tuple(float(probabilities[label]) for label in LABELS)
    return Answer(vector, max(LABELS, key=lambda label: probabilities[label]))


def source_of(review: Review) -> str:
    """The source that a review says its judgement is of."""
    return review.predicted_by or UNKNOWN_MODEL
