"""How many of the logged answers fell where: by day, version and bucket.

==========  ==================================================================================
kind        bucket
==========  ==================================================================================
label       the label
confidence  lower edge of one of 20 bins of the raw confidence: ``0.00``, ``0.05`` ... ``0.95``
calibrated  the same of the calibrated confidence, for the answers that have one
length      characters of premise and hypothesis together, down to a power of two
latency     milliseconds that the request waited for the model, down to a power of two
domain      registrable domain of the premise, for the requests that named its source
==========  ==================================================================================

A million answers make a few dozen rows a day, so what is drawn over weeks reads no answers, and
stays when the answers themselves are gone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from functools import cache
from typing import Any, Final, Literal, NamedTuple, get_args

from sqlalchemy import Connection, select

from lyra_nli.storage.engine import insert_into
from lyra_nli.storage.generation import Generation
from lyra_nli.storage.tables import nli_prediction_counts

Kind = Literal["label", "confidence", "calibrated", "length", "latency", "domain"]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)

BINS: Final = 20
"""Bins of a confidence, all of the same width."""

MAX_DOMAINS: Final = 200
"""Domains counted by name, for each day and version; what comes later is `OTHER_DOMAINS`."""

OTHER_DOMAINS: Final = "(other)"

_LONGEST_BUCKET: Final = 100


class Key(NamedTuple):
    """What is counted together."""

    day: str
    base_model: str
    version: str
    kind: Kind
    bucket: str


@dataclass(frozen=True, slots=True)
class Count:
    """How many answers of a UTC day, ``YYYY-MM-DD``, fell into a bucket."""

    day: str
    base_model: str
    version: str
    kind: Kind
    bucket: str
    n: int


def count_table(
    connection: Connection,
    generation: Generation,
    since_day: str,
    until_day: str,
    base_model: str | None = None,
    kind: Kind | None = None,
) -> list[Count]:
    """Read the counts of some days, the first and the last included; oldest first.

    SQLite holds whatever was put there: a row without a date or a number is passed over.

    Args:
        connection: for reading.
        generation: what the database is; one that was not upgraded has none.
        base_model: of this base; None for all.
        kind: of this kind; None for all.
    """
    table = nli_prediction_counts
    if not generation.has(table.name):
        return []
    statement = select(table).where(table.c.day.between(since_day, until_day)).order_by(*table.c)
    if base_model is not None:
        statement = statement.where(table.c.base_model == base_model)
    if kind is not None:
        statement = statement.where(table.c.kind == kind)
    rows = (Count(**row._mapping) for row in connection.execute(statement))
    return [count for count in rows if _readable(count)]


def count_rows(rows: list[dict[str, Any]]) -> Counter[Key]:
    """Count rows of ``nli_predictions``."""
    counts: Counter[Key] = Counter()
    for row in rows:
        for kind, bucket in _buckets(row):
            counts[Key(row["at"][:10], row["base_model"], row["version"], kind, bucket)] += 1
    return counts


def add_counts(connection: Connection, counts: Mapping[Key, int]) -> None:
    """Add to what was counted before.

    Args:
        connection: in a transaction for writing.
    """
    table = nli_prediction_counts
    named = _few_domains(connection, counts)
    # In one order for all: two servers that lock the same rows must not wait for each other.
    rows = [{**key._asdict(), "n": n} for key, n in sorted(named.items())]
    if rows:
        statement = insert_into(connection, table)
        added = {"n": table.c.n + statement.excluded.n}
        keys = list(table.primary_key.columns)
        connection.execute(statement.on_conflict_do_update(index_elements=keys, set_=added), rows)


def confidence_bucket(confidence: float) -> str:
    """Name the bin of a confidence by its lower edge; 1.0 falls into the last one."""
    return f"{min(int(confidence * BINS), BINS - 1) / BINS:.2f}"


def log2_bucket(value: float) -> str:
    """Round down to a power of two; below 1 it is ``0``."""
    whole = int(value)
    return str(1 << (whole.bit_length() - 1)) if whole else "0"


def _readable(count: Count) -> bool:
    return (
        isinstance(count.n, int)
        and count.n >= 0
        and isinstance(count.bucket, str)
        and _is_day(count.day)
    )


@cache
def _is_day(day: object) -> bool:
    try:
        return date.fromisoformat(str(day)).isoformat() == day
    except ValueError:
        return False


def _buckets(row: Mapping[str, Any]) -> Iterator[tuple[Kind, str]]:
    yield "label", row["label"]
    yield "confidence", confidence_bucket(row[row["label"]])
    yield "length", log2_bucket(row["premise_chars"] + row["hypothesis_chars"])
    yield "latency", log2_bucket(row["milliseconds"])
    if row["calibrated"] is not None:
        yield "calibrated", confidence_bucket(row["calibrated"])
    if row["domain"]:
        yield "domain", row["domain"][:_LONGEST_BUCKET]


def _few_domains(connection: Connection, counts: Mapping[Key, int]) -> Counter[Key]:
    """Put the domains that are one too many together, so that the table stays small."""
    table = nli_prediction_counts
    known: dict[Key, set[str]] = {}
    named: Counter[Key] = Counter()
    for key, n in counts.items():
        if key.kind == "domain":
            day = key._replace(bucket="")
            if day not in known:
                own = (table.c[name] == getattr(day, name) for name in day._fields[:-1])
                known[day] = set(connection.scalars(select(table.c.bucket).where(*own)))
            if key.bucket not in known[day] and len(known[day]) >= MAX_DOMAINS:
                key = key._replace(bucket=OTHER_DOMAINS)
            known[day].add(key.bucket)
        named[key] += n
    return named
