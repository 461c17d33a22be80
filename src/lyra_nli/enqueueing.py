"""A file of pairs into the review queue: judged as `predict` does it, logged as the server does.

The log tells later which version a review was about, and so how often each one errs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from lyra_nli.errors import InputError
from lyra_nli.feedback.enqueueing import Judged, Source, enqueue, queued, require_ours
from lyra_nli.models.encoding import misfit
from lyra_nli.monitoring import prediction_rows
from lyra_nli.prediction import Judges, Row, judged
from lyra_nli.records import Judgement
from lyra_nli.storage.engine import batches, now, read
from lyra_nli.workspace import Workspace

AT_ONCE: Final = 256
"""Pairs judged and written together: an interrupted command goes on from there."""


@dataclass(frozen=True, slots=True)
class Enqueued:
    """How many pairs are new in the queue, and how many were known already."""

    new: int
    known: int


def enqueue_rows(
    workspace: Workspace,
    judges: Judges,
    rows: Sequence[Row],
    progress: Callable[[int], None] = lambda _: None,
) -> Enqueued:
    """Judge the pairs that are not there yet, and put them before the reviewers.

    Args:
        workspace: opened for writing.
        rows: see `prediction.read_pairs`.
        progress: called with the number of rows dealt with so far.

    Raises:
        InputError: with every row that can't be judged or stored; nothing was done then.
        AdapterNotFoundError, AdapterInvalidError: see `Judges`.
        StorageError: the database is one of Lyra's own, or can't be written.
    """
    require_ours(workspace.generation)
    problems = [
        f"line {row.line}: {problem}"
        for row in rows
        for problem in [*_source(row).faults()] or misfit(judges.base, row.pair)
    ]
    if problems:
        raise InputError("nothing was judged", problems=problems)
    for row in rows:
        judges.of(row)  # who is unknown is told before anything is done
    new = done = 0
    for part in batches({_source(row).edge_id: row for row in rows}.items(), AT_ONCE):
        there = queued(workspace.engine, (edge_id for edge_id, _ in part))
        began = time.monotonic()
        said = list(judged(judges, [row for edge_id, row in part if edge_id not in there]))
        _log(workspace, judges.base.name, said, time.monotonic() - began)
        new += enqueue(
            workspace.engine,
            [Judged(_source(row), answer.label, answer.confidence) for row, answer in said],
        )
        done += len(part)
        progress(done)
    return Enqueued(new, len(rows) - new)


def _source(row: Row) -> Source:
    return Source(row.pair, row.source_url)


def _log(
    workspace: Workspace, base_model: str, said: Sequence[tuple[Row, Judgement]], seconds: float
) -> None:
    """Log what is not in the log yet: the server may have judged the same pairs before."""
    settings = workspace.settings.monitoring
    if not settings.log_share or not said:
        return
    with read(workspace.engine) as connection:
        known = prediction_rows.last_logged(connection, [row.pair.key for row, _ in said])
    fresh = [
        (row, answer)
        for row, answer in said
        if known.get((row.pair.key, answer.label)) != (base_model, answer.adapter)
    ]
    answers = prediction_rows.Judged(
        at=now(),
        base_model=base_model,
        pairs=[row.pair for row, _ in fresh],
        judgements=[answer for _, answer in fresh],
        milliseconds=1000 * seconds / len(said),
        sources=[row.source_url for row, _ in fresh],
    )
    everything = settings.model_copy(update={"log_share": 1.0})
    rows = list(prediction_rows.rows_of(answers, everything))
    if rows:
        prediction_rows.write_rows(workspace.engine, rows, settings.keep_predictions)
