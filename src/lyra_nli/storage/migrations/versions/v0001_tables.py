"""0001: Lyra's tables that the loop uses, where they are missing, and our own.

The tables stand here as this version made them: a later version adds to them with steps of
its own, and this file does not change.
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

revision = "0001"
down_revision = None

metadata = MetaData()

_LABEL_CHECK = "('supports', 'refutes', 'neutral')"

# --- Lyra's tables ------------------------------------------------------------------------

pages = Table(
    "pages",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("url", Text, nullable=False),
    Column("domain", Text, nullable=False),
    Column("title", Text),
)

fragments = Table(
    "fragments",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("page_id", ForeignKey("pages.id"), nullable=False, index=True),
    Column("text_content", Text, nullable=False),
)

claims = Table(
    "claims",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("task_id", String(64)),
    Column("claim_text", Text, nullable=False),
    Column("claim_adoption_status", String(32), server_default="adopted"),
    Column("claim_rejection_reason", Text),
    Column("claim_rejected_at", String(40)),
)

edges = Table(
    "edges",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("source_type", String(32), nullable=False),
    Column("source_id", String(64), nullable=False),
    Column("target_type", String(32), nullable=False),
    Column("target_id", String(64), nullable=False),
    Column("relation", String(32), nullable=False),
    Column("nli_label", String(32)),
    Column("nli_confidence", Float),
    Column("edge_human_corrected", Integer, nullable=False, server_default="0"),
    Column("edge_correction_reason", Text),
    Column("edge_corrected_at", String(40)),
    Column("created_at", String(40)),
    # Partial: of a million edges, a few thousand are reviewed, and only those are looked up.
    Index(
        "ix_edges_human_corrected",
        "edge_human_corrected",
        sqlite_where=text("edge_human_corrected = 1"),
        postgresql_where=text("edge_human_corrected = 1"),
    ),
)

adapters = Table(
    "adapters",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("version_name", Text, nullable=False),
    Column("adapter_path", Text, nullable=False),
    Column("base_model", Text, nullable=False),
    Column("samples_used", Integer),
    Column("brier_before", Float),
    Column("brier_after", Float),
    Column("shadow_accuracy", Float),
    Column("created_at", String(40)),
    Column("is_active", Integer, server_default="0"),
)

nli_corrections = Table(
    "nli_corrections",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("edge_id", String(64), index=True),
    Column("task_id", String(64)),
    Column("premise", Text, nullable=False),
    Column("hypothesis", Text, nullable=False),
    Column("predicted_label", String(32), nullable=False),
    Column("predicted_confidence", Float),
    Column("correct_label", String(32), nullable=False),
    Column("reason", Text),
    Column("corrected_at", String(40), nullable=False),
    Column("trained_adapter_id", ForeignKey("adapters.id")),
    Column("used_for_training", Integer, nullable=False, server_default="0"),
)

calibration_evaluations = Table(
    "calibration_evaluations",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("source", Text, nullable=False),
    Column("brier_score", Float),
    Column("brier_score_calibrated", Float),
    Column("improvement_ratio", Float),
    Column("expected_calibration_error", Float),
    Column("samples_evaluated", Integer),
    Column("bins_json", Text),
    Column("calibration_version", Text),
    Column("evaluated_at", String(40)),
)

domain_override_rules = Table(
    "domain_override_rules",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("domain_pattern", Text, nullable=False),
    Column("decision", String(16), nullable=False),
    Column("reason", Text),
    Column("created_at", String(40), nullable=False),
    Column("updated_at", String(40)),
    Column("is_active", Integer, nullable=False, server_default="1"),
    Column("created_by", Text),
)

domain_override_events = Table(
    "domain_override_events",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("rule_id", String(64)),
    Column("action", String(32), nullable=False),
    Column("domain_pattern", Text, nullable=False),
    Column("decision", String(16), nullable=False),
    Column("reason", Text),
    Column("created_at", String(40), nullable=False),
    Column("created_by", Text),
)

# --- our tables ---------------------------------------------------------------------------

nli_reviews = Table(
    "nli_reviews",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("edge_id", String(64), index=True),
    Column("correction_id", String(64), index=True),
    Column("pair_key", String(32), nullable=False, index=True),
    Column("premise", Text, nullable=False),
    Column("hypothesis", Text, nullable=False),
    Column("predicted_label", String(32), nullable=False),
    Column("predicted_confidence", Float),
    Column("predicted_by", Text),
    Column("correct_label", String(32), nullable=False),
    Column("anchors_json", Text, nullable=False, server_default="[]"),
    Column("reviewer", Text, nullable=False, server_default=""),
    Column("reason", Text, nullable=False, server_default=""),
    Column("sampling", String(16), nullable=False, server_default="unknown"),
    Column("source_url", Text, nullable=False, server_default=""),
    Column("reviewed_at", String(40), nullable=False),
    Column("trained_version", String(64)),
    CheckConstraint(f"predicted_label IN {_LABEL_CHECK}", name="ck_reviews_predicted"),
    CheckConstraint(f"correct_label IN {_LABEL_CHECK}", name="ck_reviews_correct"),
    CheckConstraint("sampling IN ('random', 'queue', 'unknown')", name="ck_reviews_sampling"),
)

nli_versions = Table(
    "nli_versions",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("base_model", Text, nullable=False, index=True),
    Column("base_fingerprint", String(64), nullable=False),
    Column("path", Text, nullable=False),
    Column("digest", String(64), nullable=False),
    Column("status", String(16), nullable=False),
    Column("run_id", ForeignKey("nli_training_runs.id")),
    Column("parent", String(64)),
    Column("samples_used", Integer, nullable=False),
    Column("created_at", String(40), nullable=False),
    CheckConstraint(
        "status IN ('passed', 'rejected', 'unproven', 'removed')", name="ck_versions_status"
    ),
)

nli_training_runs = Table(
    "nli_training_runs",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("base_model", Text, nullable=False),
    Column("started_at", String(40), nullable=False),
    Column("finished_at", String(40)),
    Column("status", String(16), nullable=False),
    Column("forced_reason", Text),
    Column("dataset_hash", String(64)),
    Column("samples", Integer),
    Column("recipe_json", Text),
    Column("message", Text),
    CheckConstraint("status IN ('running', 'done', 'failed')", name="ck_runs_status"),
)

nli_evaluations = Table(
    "nli_evaluations",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("version", ForeignKey("nli_versions.name"), nullable=False, index=True),
    Column("verdict", String(16), nullable=False),
    Column("metrics_json", Text, nullable=False),
    Column("report_path", Text),
    Column("evaluated_at", String(40), nullable=False),
)

nli_aliases = Table(
    "nli_aliases",
    metadata,
    Column("base_model", Text, nullable=False),
    Column("alias", String(16), nullable=False),
    Column("version", ForeignKey("nli_versions.name"), nullable=False),
    UniqueConstraint("base_model", "alias", name="uq_aliases"),
    CheckConstraint("alias IN ('active', 'previous')", name="ck_aliases_alias"),
)

nli_version_events = Table(
    "nli_version_events",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("at", String(40), nullable=False),
    Column("who", Text, nullable=False),
    Column("action", String(16), nullable=False),
    Column("base_model", Text, nullable=False),
    Column("from_version", String(64)),
    Column("to_version", String(64)),
    Column("reason", Text, nullable=False, server_default=""),
)

_TABLES = (
    (pages, "the pages that were read"),
    (fragments, "their fragments, the premises"),
    (claims, "the claims, the hypotheses"),
    (edges, "the judgements: fragment, claim, label"),
    (adapters, "Lyra's list of adapters"),
    (nli_corrections, "corrected judgements"),
    (calibration_evaluations, "how well confidences were calibrated"),
    (domain_override_rules, "blocked and unblocked domains"),
    (domain_override_events, "the history of those rules"),
    (nli_reviews, "every human verdict, agreed ones too, with what the model had said"),
    (nli_training_runs, "each training run and why it ran"),
    (nli_versions, "adapter versions and their lineage"),
    (nli_evaluations, "what the gate measured for each version"),
    (nli_aliases, "which version is active, and which was before"),
    (nli_version_events, "the history of activations and rollbacks"),
)
"""In an order in which each finds what it refers to."""


def steps(schema: Schema) -> list[Step]:
    """List what this version adds to a database of that schema."""
    added = [step for table, what in _TABLES for step in schema.create_table(table, what)]
    added += schema.add_column(
        "edges", "edge_human_corrected", "INTEGER NOT NULL DEFAULT 0", "a person reviewed it"
    )
    added += schema.add_column("edges", "edge_correction_reason", "TEXT", "why it was changed")
    added += schema.add_column("edges", "edge_corrected_at", "VARCHAR(40)", "when")
    added += schema.add_index(
        "ix_edges_human_corrected",
        "edges",
        "(edge_human_corrected) WHERE edge_human_corrected = 1",
        "finds the reviewed edges among many",
    )
    added += schema.add_column("nli_corrections", "task_id", "VARCHAR(64)", "the research task")
    added += schema.add_column("nli_corrections", "reason", "TEXT", "why it was corrected")
    if "used_for_training" not in schema.columns["nli_corrections"]:
        added += schema.add_column(
            "nli_corrections",
            "trained_adapter_id",
            "INTEGER REFERENCES adapters (id)",
            "the adapter that was trained on it",
        )
    return added


def upgrade() -> None:
    """Add it."""
    connection = op.get_bind()
    apply_all(steps(Schema.of(connection)), connection)
