"""0002: undo, second reviews, leases, the review queue, and calibrations.

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
)

from lyra_nli.storage.migrations.steps import Schema, Step, apply_all

revision = "0002"
down_revision = "0001"

metadata = MetaData()

_LABEL_CHECK = "('supports', 'refutes', 'neutral')"
_UNREVIEWED = "edge_human_corrected = 0 AND relation IN ('supports', 'refutes', 'neutral')"

Table("nli_reviews", metadata, Column("id", String(64), primary_key=True))  # referred to

nli_review_events = Table(
    "nli_review_events",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("at", String(40), nullable=False),
    Column("who", Text, nullable=False),
    Column("action", String(16), nullable=False),
    Column("review_id", ForeignKey("nli_reviews.id"), nullable=False, index=True),
    Column("edge_id", String(64)),
    Column("reason", Text, nullable=False, server_default=""),
)

nli_second_reviews = Table(
    "nli_second_reviews",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("review_id", ForeignKey("nli_reviews.id"), nullable=False, index=True),
    Column("edge_id", String(64), nullable=False, index=True),
    Column("label", String(32), nullable=False),
    Column("reviewer", Text, nullable=False),
    Column("reason", Text, nullable=False, server_default=""),
    Column("reviewed_at", String(40), nullable=False),
    CheckConstraint(f"label IN {_LABEL_CHECK}", name="ck_second_reviews_label"),
)

nli_leases = Table(
    "nli_leases",
    metadata,
    Column("edge_id", String(64), primary_key=True),
    Column("token", String(64), nullable=False, unique=True),
    Column("reviewer", Text, nullable=False, server_default=""),
    Column("purpose", String(16), nullable=False),
    Column("sampling", String(16), nullable=False),
    Column("expires_at", String(40), nullable=False, index=True),
    CheckConstraint("purpose IN ('first', 'second')", name="ck_leases_purpose"),
    CheckConstraint("sampling IN ('random', 'queue', 'unknown')", name="ck_leases_sampling"),
)

nli_idempotency = Table(
    "nli_idempotency",
    metadata,
    Column("key", String(200), primary_key=True),
    Column("request_hash", String(64), nullable=False),
    Column("answer_json", Text, nullable=False),
    Column("at", String(40), nullable=False, index=True),
)

nli_queue_scores = Table(
    "nli_queue_scores",
    metadata,
    Column("kind", String(16), primary_key=True),
    Column("edge_id", String(64), primary_key=True),
    Column("score", Float, nullable=False),
    Column("detail_json", Text, nullable=False, server_default="{}"),
    Column("source", Text, nullable=False, server_default=""),
    Column("at", String(40), nullable=False),
    CheckConstraint("kind IN ('disagree', 'suspect')", name="ck_queue_scores_kind"),
    Index("ix_nli_queue_scores_score", "kind", "score"),
)

nli_calibrations = Table(
    "nli_calibrations",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("version", Integer, nullable=False, unique=True),
    Column("method", String(32), nullable=False),
    Column("params_json", Text, nullable=False),
    Column("samples", Integer, nullable=False),
    Column("created_at", String(40), nullable=False),
    Column("is_current", Integer, nullable=False, server_default="0"),
)

nli_calibration_events = Table(
    "nli_calibration_events",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("at", String(40), nullable=False),
    Column("who", Text, nullable=False),
    Column("action", String(16), nullable=False),
    Column("from_version", Integer),
    Column("to_version", Integer),
    Column("reason", Text, nullable=False, server_default=""),
)

_TABLES = (
    (nli_review_events, "the history of undone reviews"),
    (nli_second_reviews, "blind second reviews: do people agree?"),
    (nli_leases, "which edge is on whose screen"),
    (nli_idempotency, "answers to writes that may be sent twice"),
    (nli_queue_scores, "why an edge is worth a look"),
    (nli_calibrations, "versions of the confidences' calibration"),
    (nli_calibration_events, "their history"),
)


def steps(schema: Schema) -> list[Step]:
    """List what this version adds to a database of that schema."""
    added = [
        *schema.add_column("nli_reviews", "undone_at", "VARCHAR(40)", "when it was taken back"),
        *schema.add_column("nli_reviews", "before_json", "TEXT", "the edge before the review"),
        *schema.add_index(
            "ix_nli_reviews_reviewed_at", "nli_reviews", "(reviewed_at)", "finds the newest"
        ),
        *schema.add_index(
            "ix_nli_reviews_undone",
            "nli_reviews",
            "(undone_at, correction_id) WHERE undone_at IS NOT NULL",
            "finds the undone",
        ),
        *schema.add_column(
            "claims",
            "claim_adoption_status",
            "VARCHAR(32) DEFAULT 'adopted'",
            "adopted or not_adopted",
        ),
        *schema.add_column("claims", "claim_rejection_reason", "TEXT", "why not"),
        *schema.add_column("claims", "claim_rejected_at", "VARCHAR(40)", "since when"),
    ]
    added += [step for table, what in _TABLES for step in schema.create_table(table, what)]
    return added + _queue_indexes(schema)


def _queue_indexes(schema: Schema) -> list[Step]:
    """Index the edges that wait for a human, in the orders in which the queue hands them out."""
    edges = schema.columns["edges"]
    newer = "nli_edge_confidence" in edges
    confidence = "nli_edge_confidence" if newer else "nli_confidence"
    where = f"WHERE {_UNREVIEWED}"
    added = schema.add_index(
        "ix_nli_edges_confidence",
        "edges",
        f"({confidence}) {where}",
        "finds the least certain judgements",
    )
    if "created_at" in edges:
        added += schema.add_index(
            "ix_nli_edges_created", "edges", f"(created_at) {where}", "finds the newest judgements"
        )
    if schema.dialect == "postgresql":  # SQLite draws by rowid
        added += schema.add_index(
            "ix_nli_edges_random", "edges", f"(md5(id)) {where}", "draws judgements at random"
        )
    return added


def upgrade() -> None:
    """Add it."""
    connection = op.get_bind()
    apply_all(steps(Schema.of(connection)), connection)
