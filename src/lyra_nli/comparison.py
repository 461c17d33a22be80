"""Two versions on the same unreviewed edges: where they disagree, a person should look."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, insert

from lyra_nli.errors import ModelError
from lyra_nli.feedback.queue import MAX_ITEMS, QueueItem, next_items
from lyra_nli.labels import LABELS
from lyra_nli.loop import load_base_for
from lyra_nli.models.judge import Judge, softmax
from lyra_nli.records import Pair
from lyra_nli.storage.engine import new_id, now, write
from lyra_nli.storage.scores import replace_scores
from lyra_nli.storage.tables import nli_comparisons
from lyra_nli.witnesses import judge_of
from lyra_nli.workspace import Workspace

Answers = NDArray[np.float64]
"""Probabilities of each pair, float64 [n, 3], columns in the order of ``LABELS``."""

SHIFT = 0.1
"""Change of confidence from which it counts."""


@dataclass(frozen=True)
class Dispute:
    """An edge to which two versions give different labels.

    Attributes:
        score: total variation distance between the two answers, 0 to 1.
        answers: version -> probability of each label.
    """

    edge_id: str
    premise: str
    hypothesis: str
    score: float
    answers: dict[str, dict[str, float]]


@dataclass(frozen=True)
class Comparison:
    """How far two versions agree.

    Attributes:
        compared: unreviewed edges, drawn at random.
        disagreed: those to which they give different labels; they stand in the queue now.
        labels: how many edges got which labels: the first version's by the other's, both in the
            order of ``LABELS``.
        confidence: mean confidence of the first and of the other; None without edges.
        surer, less_sure: edges on which the other's confidence is higher, or lower, by `SHIFT`.
        disputes: what they disagree on, the most apart first.
    """

    one: str
    other: str
    compared: int
    disagreed: int
    labels: list[list[int]]
    confidence: tuple[float, float] | None
    surer: int
    less_sure: int
    disputes: list[Dispute]


def compare(workspace: Workspace, one: str, other: str, limit: int) -> Comparison:
    """Judge unreviewed edges by two versions; the queue's ``disagree`` order shows where they part.

    What an earlier comparison put there is replaced. The result stays in ``nli_comparisons``.

    Args:
        one: a version's name, ``active``, ``base`` or ``slow`` (the slow base model).
        other: the same.
        limit: edges to judge.

    Raises:
        AdapterNotFoundError: there is no such version.
        ModelError: a base model can't be loaded, or there is no active version.
        StorageError: the database was not upgraded, or can't be written.
    """
    edges = list(_unreviewed(workspace, limit))
    pairs = [Pair(edge.premise, edge.hypothesis) for edge in edges]
    judges = [_judge(workspace, name) for name in (one, other)]
    first, second = (softmax(judge.logits(pairs)) for judge in judges)
    found = _compared(edges, judges[0].adapter, judges[1].adapter, first, second)
    with write(workspace.engine) as connection:
        scores = {dispute.edge_id: dispute.score for dispute in found.disputes}
        details = {dispute.edge_id: json.dumps(dispute.answers) for dispute in found.disputes}
        replace_scores(connection, "disagree", "comparison", scores, details)
        _keep(connection, workspace.settings.nli.fast_model, found)
    return found


def _compared(
    edges: Sequence[QueueItem], one: str, other: str, first: Answers, second: Answers
) -> Comparison:
    labels = np.zeros((len(LABELS), len(LABELS)), dtype=int)
    np.add.at(labels, (first.argmax(axis=1), second.argmax(axis=1)), 1)
    distance = np.abs(first - second).sum(axis=1) / 2
    parted = np.flatnonzero(first.argmax(axis=1) != second.argmax(axis=1))
    sure = [answers.max(axis=1) for answers in (first, second)]
    disputes = [
        Dispute(
            edges[i].edge_id,
            edges[i].premise,
            edges[i].hypothesis,
            float(distance[i]),
            {one: _by_label(first[i]), other: _by_label(second[i])},
        )
        for i in sorted(parted.tolist(), key=lambda row: -distance[row])
    ]
    return Comparison(
        one,
        other,
        compared=len(edges),
        disagreed=len(parted),
        labels=labels.tolist(),
        confidence=(float(sure[0].mean()), float(sure[1].mean())) if edges else None,
        surer=int((sure[1] - sure[0] >= SHIFT).sum()),
        less_sure=int((sure[0] - sure[1] >= SHIFT).sum()),
        disputes=disputes,
    )


def _by_label(answer: Answers) -> dict[str, float]:
    return dict(zip(LABELS, answer.round(4).tolist(), strict=True))


def _keep(connection: Connection, base_model: str, found: Comparison) -> None:
    shift = found.confidence[1] - found.confidence[0] if found.confidence else None
    connection.execute(
        insert(nli_comparisons).values(
            id=new_id("ncmp"),
            at=now(),
            kind="compare",
            base_model=base_model,
            one=found.one,
            other=found.other,
            compared=found.compared,
            disagreed=found.disagreed,
            details_json=json.dumps({"labels": found.labels, "confidence_shift": shift}),
        )
    )


def _unreviewed(workspace: Workspace, limit: int) -> Iterator[QueueItem]:
    seen: list[str] = []
    while len(seen) < limit:
        count = min(MAX_ITEMS, limit - len(seen))
        drawn = next_items(
            workspace.engine, order="random", limit=count, lease=False, second_share=0, skip=seen
        )
        yield from drawn
        seen += [edge.edge_id for edge in drawn]
        if len(drawn) < count:
            return


def _judge(workspace: Workspace, name: str) -> Judge:
    settings = workspace.settings
    size = settings.nli.batch_size
    if name == "slow":
        slow = load_base_for(settings, settings.nli.slow_model)
        return Judge(slow, adapter="slow", batch_size=size)
    base = load_base_for(settings, settings.nli.fast_model)
    plain = Judge(base, batch_size=size)
    if name == "base":
        return plain
    version = workspace.registry.resolve(name, base.name)
    if version is None:
        raise ModelError(
            f"no version of {base.name} is active",
            hint="Compare with `base`, or activate a version.",
        )
    return judge_of(workspace, plain, version)
