"""The rows of the log of predictions: what is kept of an answer, and for how long."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, Engine, delete, func, insert, select

from lyra_nli.hosts import site_of
from lyra_nli.labels import LABELS
from lyra_nli.monitoring.counts import add_counts, count_rows
from lyra_nli.records import Judgement, Pair
from lyra_nli.settings import MonitoringSettings
from lyra_nli.storage.engine import write
from lyra_nli.storage.generation import Generation
from lyra_nli.storage.tables import nli_predictions

Row = dict[str, Any]

ROWS_AT_ONCE: Final = 1000
"""Rows in one transaction: people who review wait for the writer's lock too."""


@dataclass(frozen=True, slots=True)
class Judged:
    """The answers to one request.

    Attributes:
        at: ISO-8601, UTC.
        base_model: who judged; the version stands in every judgement.
        judgements: one for each pair, in order.
        milliseconds: what the request waited for the model.
        sources: the URL that each premise comes from, empty where nobody said.
    """

    at: str
    base_model: str
    pairs: Sequence[Pair]
    judgements: Sequence[Judgement]
    milliseconds: float
    sources: Sequence[str]


def rows_of(judged: Judged, settings: MonitoringSettings) -> Iterator[Row]:
    """Draw the share that is logged, and work out its rows."""
    sources = judged.sources or [""] * len(judged.pairs)
    for pair, judgement, source in zip(judged.pairs, judged.judgements, sources, strict=True):
        if random.random() < settings.log_share:
            yield {
                "at": judged.at,
                "pair_key": pair.key,
                "base_model": judged.base_model,
                "version": judgement.adapter,
                "label": judgement.label,
                **{label: judgement.probabilities[label] for label in LABELS},
                "calibrated": judgement.calibrated_confidence,
                "calibration": judgement.calibration,
                "premise_chars": len(pair.premise),
                "hypothesis_chars": len(pair.hypothesis),
                "milliseconds": judged.milliseconds,
                "domain": _storable(site_of(source)) or None,
                "premise": _storable(pair.premise) if settings.log_texts else None,
                "hypothesis": _storable(pair.hypothesis) if settings.log_texts else None,
            }


def write_rows(engine: Engine, rows: list[Row], keep: int) -> None:
    """Write rows and their counts, and let the oldest go: all of it or nothing.

    Args:
        keep: rows that the log may hold.

    Raises:
        StorageError: the database can't be written.
    """
    with write(engine) as connection:
        connection.execute(insert(nli_predictions), rows)
        add_counts(connection, count_rows(rows))
        _forget(connection, keep)


def last_logged(
    connection: Connection, pair_keys: Sequence[str]
) -> dict[tuple[str, str], tuple[str, str]]:
    """Find who last gave these pairs a label: (pair key, label) -> (base model, version)."""
    row = nli_predictions.c
    columns = (row.pair_key, row.label, row.base_model, row.version)
    found = select(*columns).where(row.pair_key.in_(pair_keys)).order_by(row.id)
    return {
        (key, label): (base, version) for key, label, base, version in connection.execute(found)
    }


def recent(connection: Connection, generation: Generation, limit: int = 50) -> list[Row]:
    """Read the newest rows of the log, newest first; none when there is no such table."""
    table = nli_predictions
    if not generation.has(table.name):
        return []
    newest = select(table).order_by(table.c.id.desc()).limit(limit)
    return [dict(row._mapping) for row in connection.execute(newest)]


def _storable(text: str) -> str:
    """Replace what no database holds: half surrogate pairs, and NUL."""
    return text.encode("utf-8", "replace").decode("utf-8").replace("\0", "?")


def _forget(connection: Connection, keep: int) -> None:
    """Delete the oldest rows that are too many; ids rise, so neither end needs a search.

    A log that is far too long, because the settings changed, gets shorter step by step: no
    transaction deletes much more than it writes.
    """
    number = nli_predictions.c.id
    ends = (select(end(number)).scalar_subquery() for end in (func.min, func.max))
    first, last = connection.execute(select(*ends)).one()
    surplus = min(last - keep, first + 4 * ROWS_AT_ONCE)
    if surplus >= first:
        connection.execute(delete(nli_predictions).where(number <= surplus))
