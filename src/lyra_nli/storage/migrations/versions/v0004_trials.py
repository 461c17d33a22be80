"""0004: trials of versions on live traffic, and what a shadow disagreed about.

As in every version, what stands here is what this version made; later ones add to it.
"""

from __future__ import annotations

from alembic import op
from sqlalchemy import (
    CheckConstraint,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)

from lyra_nli.storage.migrations.steps import Schema, Step, apply_all

revision = "0004"
down_revision = "0003"

metadata = MetaData()

Table("nli_versions", metadata, Column("name", String(64), primary_key=True))  # 0001 made it

_OPEN = text("ended_at IS NULL")

nli_trials = Table(
    "nli_trials",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("base_model", Text, nullable=False),
    Column("kind", String(16), nullable=False),
    Column("version", ForeignKey("nli_versions.name"), nullable=False),
    Column("share", Float, nullable=False),
    Column("started_at", String(40), nullable=False),
    Column("started_by", Text, nullable=False),
    Column("reason", Text, nullable=False, server_default=""),
    Column("ended_at", String(40)),
    Column("ended_by", Text),
    Column("end_reason", Text),
    CheckConstraint("kind IN ('shadow', 'canary')", name="ck_trials_kind"),
    Index(
        "ix_nli_trials_open",
        "base_model",
        "kind",
        unique=True,
        sqlite_where=_OPEN,
        postgresql_where=_OPEN,
    ),
)

nli_disagreements = Table(
    "nli_disagreements",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("trial_id", ForeignKey("nli_trials.id"), nullable=False),
    Column("at", String(40), nullable=False),
    Column("pair_key", String(32), nullable=False),
    Column("edge_id", String(64)),
    Column("premise", Text, nullable=False),
    Column("hypothesis", Text, nullable=False),
    Column("source_url", Text, nullable=False, server_default=""),
    Column("score", Float, nullable=False),
    Column("answers_json", Text, nullable=False),
    UniqueConstraint("trial_id", "pair_key", name="uq_disagreements"),
)

_TABLES = (
    (nli_trials, "which versions are tried out on live traffic"),
    (nli_disagreements, "live pairs to which a shadow gave another label"),
)

_TARGETS = (
    "(target_id) WHERE edge_human_corrected = 0 AND relation IN ('supports', 'refutes', 'neutral')"
)


def steps(schema: Schema) -> list[Step]:
    """List what this version adds to a database of that schema."""
    added = [step for table, what in _TABLES for step in schema.create_table(table, what)]
    added += schema.add_index(
        "ix_nli_edges_target", "edges", _TARGETS, "finds the unreviewed edges of a claim"
    )
    return added


def upgrade() -> None:
    """Add it."""
    connection = op.get_bind()
    apply_all(steps(Schema.of(connection)), connection)
