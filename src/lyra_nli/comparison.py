"""Two versions on the same unreviewed edges: where they disagree, a person should look."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, insert

from lyra_nli.errors import ModelError
from lyra_nli.feedback.queue import MAX_ITEMS, QueueItem, next_items
from lyra_nli.labels import LABELS
from lyra_nli.loop import load_base_for
from lyra_nli.models.adapter import adapted_model
from lyra_nli.models.base import Base
from lyra_nli.models.judge import Judge, softmax
from lyra_nli.records import Pair
from lyra_nli.storage.engine import new_id, now, write
from lyra_nli.storage.scores import replace_scores
from lyra_nli.storage.tables import nli_comparisons
from lyra_nli.workspace import Workspace

Answers = NDArray[np.float64]
"""Probabilities of each pair, float64 [n, 3], columns in the order of ``LABELS``."""


@dataclass(frozen=True)
class Comparison:
    """How far two versions agree.

    Attributes:
        compared: unreviewed edges, drawn at random.
        disagreed: those to which they give different labels; they stand in the queue now.
    """

    one: str
    other: str
    compared: int
    disagreed: int


def compare(workspace: Workspace, one: str, other: str, limit: int) -> Comparison:
    """Judge unreviewed edges by two versions; the queue's ``disagree`` order shows where they part.

    What an earlier comparison put there is replaced. An edge's score is the total variation
    distance between the two answers, 0 to 1. The result stays in ``nli_comparisons``.

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
    parted = np.flatnonzero(first.argmax(axis=1) != second.argmax(axis=1))
    distance = np.abs(first - second).sum(axis=1) / 2
    details = {
        edges[i].edge_id: json.dumps(
            {
                judge.adapter: dict(zip(LABELS, answers[i].round(4).tolist(), strict=True))
                for judge, answers in zip(judges, (first, second), strict=True)
            }
        )
        for i in parted
    }
    scores = {edges[i].edge_id: float(distance[i]) for i in parted}
    found = Comparison(judges[0].adapter, judges[1].adapter, len(edges), len(parted))
    with write(workspace.engine) as connection:
        replace_scores(connection, "disagree", "comparison", scores, details)
        _keep(connection, workspace.settings.nli.fast_model, found, first, second)
    return found


def _keep(
    connection: Connection, base_model: str, found: Comparison, first: Answers, second: Answers
) -> None:
    """Note how far they agree: labels, first version by second, and the shift of confidence."""
    labels = np.zeros((len(LABELS), len(LABELS)), dtype=int)
    np.add.at(labels, (first.argmax(axis=1), second.argmax(axis=1)), 1)
    shift = float((second.max(axis=1) - first.max(axis=1)).mean()) if len(first) else None
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
            details_json=json.dumps({"labels": labels.tolist(), "confidence_shift": shift}),
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
    base: Base = load_base_for(settings, settings.nli.fast_model)
    if name == "base":
        return Judge(base, batch_size=size)
    registry = workspace.registry
    version = registry.active(base.name) if name == "active" else registry.get(name)
    if version is None:
        raise ModelError(
            f"no version of {base.name} is active",
            hint="Compare with `base`, or activate a version.",
        )
    registry.verify(version.name)
    return Judge(base, adapted_model(base, version.path), version.name, size)
