"""0003: served predictions and their counts, alerts, comparisons, a calibration for each version.

As in every version, what stands here is what this version made; later ones add to it.
"""

from __future__ import annotations

import json

from alembic import op
from sqlalchemy import (
    Column,
    Connection,
    Float,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    text,
)

from lyra_nli.storage.migrations.steps import Schema, Step, apply_all

revision = "0003"
down_revision = "0002"

metadata = MetaData()

nli_predictions = Table(
    "nli_predictions",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("at", String(40), nullable=False),
    Column("pair_key", String(32), nullable=False, index=True),
    Column("base_model", Text, nullable=False),
    Column("version", String(64), nullable=False),
    Column("label", String(32), nullable=False),
    Column("supports", Float, nullable=False),
    Column("refutes", Float, nullable=False),
    Column("neutral", Float, nullable=False),
    Column("calibrated", Float),
    Column("calibration", Integer),
    Column("premise_chars", Integer, nullable=False),
    Column("hypothesis_chars", Integer, nullable=False),
    Column("milliseconds", Float, nullable=False),
    Column("domain", Text),
    Column("premise", Text),
    Column("hypothesis", Text),
)

nli_prediction_counts = Table(
    "nli_prediction_counts",
    metadata,
    Column("day", String(10), primary_key=True),
    Column("base_model", String(200), primary_key=True),
    Column("version", String(64), primary_key=True),
    Column("kind", String(16), primary_key=True),
    Column("bucket", String(100), primary_key=True),
    Column("n", Integer, nullable=False),
)

nli_comparisons = Table(
    "nli_comparisons",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("at", String(40), nullable=False, index=True),
    Column("kind", String(16), nullable=False),
    Column("base_model", Text, nullable=False),
    Column("one", String(64), nullable=False),
    Column("other", String(64), nullable=False),
    Column("compared", Integer, nullable=False),
    Column("disagreed", Integer, nullable=False),
    Column("details_json", Text, nullable=False, server_default="{}"),
)

nli_alerts = Table(
    "nli_alerts",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("at", String(40), nullable=False),
    Column("rule", String(32), nullable=False),
    Column("base_model", Text, nullable=False),
    Column("version", String(64), nullable=False),
    Column("value", Float),
    Column("threshold", Float),
    Column("message", Text, nullable=False),
    Column("action", Text, nullable=False, server_default=""),
    Column("resolved_at", String(40)),
    Index("ix_nli_alerts_open", "resolved_at", "rule", "version"),
)

_TABLES = (
    (nli_predictions, "what the server answered, if you let it log"),
    (nli_prediction_counts, "how many answers of which kind a day"),
    (nli_comparisons, "how far two versions agree"),
    (nli_alerts, "what the watch found"),
)

_RANDOM_REVIEWS = (
    "(reviewed_at, id, predicted_by, edge_id, pair_key, predicted_label, correct_label, "
    "sampling, undone_at) WHERE sampling = 'random' AND undone_at IS NULL"
)

_FILL_SOURCE = (
    "UPDATE nli_calibrations SET source = :source WHERE version = :version AND source = 'nli'",
    "UPDATE nli_calibration_events SET source = :source "
    "WHERE COALESCE(to_version, from_version) = :version AND source = 'nli'",
)


def steps(schema: Schema) -> list[Step]:
    """List what this version adds to a database of that schema."""
    added = [step for table, what in _TABLES for step in schema.create_table(table, what)]
    for table in ("nli_calibrations", "nli_calibration_events"):
        added += schema.add_column(table, "base_model", "TEXT DEFAULT '' NOT NULL", "whose it is")
        added += schema.add_column(table, "source", "TEXT DEFAULT 'nli' NOT NULL", "whose it is")
    added += schema.add_column(
        "nli_calibrations", "metrics_json", "TEXT DEFAULT '{}' NOT NULL", "how good it was"
    )
    added += schema.add_index(
        "ix_nli_reviews_random", "nli_reviews", _RANDOM_REVIEWS, "counts corrections by day"
    )
    return added


def upgrade() -> None:
    """Add it."""
    connection = op.get_bind()
    apply_all(steps(Schema.of(connection)), connection)
    _fill_sources(connection)


def _fill_sources(connection: Connection) -> None:
    """Take the source of older calibrations, and of their events, from among their parameters.

    What can't be read stays as it is: `calibration show` names it, an upgrade must not end there.
    """
    rows = connection.execute(text("SELECT version, params_json FROM nli_calibrations")).all()
    for version, params_json in rows:
        try:
            params = json.loads(params_json)
        except ValueError:
            continue
        source = params.get("source") if isinstance(params, dict) else None
        if not isinstance(source, str):
            continue
        for statement in _FILL_SOURCE:
            connection.execute(text(statement), {"source": source, "version": version})
