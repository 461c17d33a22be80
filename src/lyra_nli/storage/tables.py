"""The tables, as SQLAlchemy Core sees them.

Lyra's own tables carry the names of the databases that we create; `generation` knows how an
existing Lyra database differs. Our tables start with `nli_`, as Lyra's `nli_corrections` does.
"""

from __future__ import annotations

from typing import Any

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
    func,
    text,
)
from sqlalchemy.schema import SchemaItem

metadata = MetaData()

_LABEL_CHECK = "('supports', 'refutes', 'neutral')"


UNREVIEWED = "edge_human_corrected = 0 AND relation IN ('supports', 'refutes', 'neutral')"
"""The edges that wait for a human. A partial index serves only a query that says just this."""


def _index(name: str, *columns: Any, where: str, unique: bool = False) -> Index:
    condition = text(where)
    return Index(name, *columns, sqlite_where=condition, postgresql_where=condition, unique=unique)


def _ours(name: str, *columns: SchemaItem) -> Table:
    return Table(name, metadata, *columns, info={"owner": "lyra-nli"})


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
    _index("ix_edges_human_corrected", "edge_human_corrected", where="edge_human_corrected = 1"),
    _index("ix_nli_edges_confidence", "nli_confidence", where=UNREVIEWED),
    _index("ix_nli_edges_created", "created_at", where=UNREVIEWED),
    _index("ix_nli_edges_target", "target_id", where=UNREVIEWED),
    # SQLite draws at random by rowid.
    _index("ix_nli_edges_random", func.md5(text("id")), where=UNREVIEWED).ddl_if(
        dialect="postgresql"
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

nli_reviews = _ours(
    "nli_reviews",
    Column("id", String(64), primary_key=True),
    Column("edge_id", String(64), index=True),
    Column("correction_id", String(64), index=True, doc="the nli_corrections row of this review"),
    Column("pair_key", String(32), nullable=False, index=True),
    Column("premise", Text, nullable=False),
    Column("hypothesis", Text, nullable=False),
    Column("predicted_label", String(32), nullable=False),
    Column("predicted_confidence", Float),
    Column("predicted_by", Text, doc="the model version that judged, where known"),
    Column("correct_label", String(32), nullable=False),
    Column("anchors_json", Text, nullable=False, server_default="[]"),
    Column("reviewer", Text, nullable=False, server_default=""),
    Column("reason", Text, nullable=False, server_default=""),
    Column("sampling", String(16), nullable=False, server_default="unknown"),
    Column("source_url", Text, nullable=False, server_default=""),
    Column("reviewed_at", String(40), nullable=False),
    Column("trained_version", String(64), doc="the last adapter version trained on this row"),
    Column("undone_at", String(40), doc="when it was taken back; then it counts nowhere"),
    Column("before_json", Text, doc="the edge as it stood before this review"),
    CheckConstraint(f"predicted_label IN {_LABEL_CHECK}", name="ck_reviews_predicted"),
    CheckConstraint(f"correct_label IN {_LABEL_CHECK}", name="ck_reviews_correct"),
    CheckConstraint("sampling IN ('random', 'queue', 'unknown')", name="ck_reviews_sampling"),
    Index("ix_nli_reviews_reviewed_at", "reviewed_at"),
    _index("ix_nli_reviews_undone", "undone_at", "correction_id", where="undone_at IS NOT NULL"),
    # Covering, for SQLite with the columns of its own condition: counts read no texts.
    _index(
        "ix_nli_reviews_random",
        "reviewed_at",
        "id",
        "predicted_by",
        "edge_id",
        "pair_key",
        "predicted_label",
        "correct_label",
        "sampling",
        "undone_at",
        where="sampling = 'random' AND undone_at IS NULL",
    ),
)

nli_versions = _ours(
    "nli_versions",
    Column("name", String(64), primary_key=True),
    Column("base_model", Text, nullable=False, index=True),
    Column("base_fingerprint", String(64), nullable=False),
    Column("path", Text, nullable=False),
    Column("digest", String(64), nullable=False, doc="SHA-256 over the files' digests"),
    Column("status", String(16), nullable=False),
    Column("run_id", ForeignKey("nli_training_runs.id")),
    Column("parent", String(64), doc="the version that was active when this one was trained"),
    Column("samples_used", Integer, nullable=False),
    Column("created_at", String(40), nullable=False),
    CheckConstraint(
        "status IN ('passed', 'rejected', 'unproven', 'removed')", name="ck_versions_status"
    ),
)

nli_training_runs = _ours(
    "nli_training_runs",
    Column("id", String(64), primary_key=True),
    Column("base_model", Text, nullable=False),
    Column("started_at", String(40), nullable=False),
    Column("finished_at", String(40)),
    Column("status", String(16), nullable=False),
    Column("forced_reason", Text, doc="why training ran although it was not due"),
    Column("dataset_hash", String(64)),
    Column("samples", Integer),
    Column("recipe_json", Text),
    Column("message", Text),
    CheckConstraint("status IN ('running', 'done', 'failed')", name="ck_runs_status"),
)

nli_evaluations = _ours(
    "nli_evaluations",
    Column("id", String(64), primary_key=True),
    Column("version", ForeignKey("nli_versions.name"), nullable=False, index=True),
    Column("verdict", String(16), nullable=False),
    Column("metrics_json", Text, nullable=False),
    Column("report_path", Text),
    Column("evaluated_at", String(40), nullable=False),
)

nli_aliases = _ours(
    "nli_aliases",
    Column("base_model", Text, nullable=False),
    Column("alias", String(16), nullable=False),
    Column("version", ForeignKey("nli_versions.name"), nullable=False),
    UniqueConstraint("base_model", "alias", name="uq_aliases"),
    CheckConstraint("alias IN ('active', 'previous')", name="ck_aliases_alias"),
)

nli_version_events = _ours(
    "nli_version_events",
    Column("id", Integer, primary_key=True),
    Column("at", String(40), nullable=False),
    Column("who", Text, nullable=False),
    Column("action", String(16), nullable=False),
    Column("base_model", Text, nullable=False),
    Column("from_version", String(64)),
    Column("to_version", String(64)),
    Column("reason", Text, nullable=False, server_default=""),
)
"""History of versions: append-only; what served, what was removed, what was on trial."""

nli_trials = _ours(
    "nli_trials",
    Column("id", String(64), primary_key=True),
    Column("base_model", Text, nullable=False),
    Column("kind", String(16), nullable=False),
    Column("version", ForeignKey("nli_versions.name"), nullable=False),
    Column("share", Float, nullable=False, doc="of pairs (shadow), of keys (canary)"),
    Column("started_at", String(40), nullable=False),
    Column("started_by", Text, nullable=False),
    Column("reason", Text, nullable=False, server_default=""),
    Column("ended_at", String(40)),
    Column("ended_by", Text),
    Column("end_reason", Text),
    CheckConstraint("kind IN ('shadow', 'canary')", name="ck_trials_kind"),
    _index("ix_nli_trials_open", "base_model", "kind", where="ended_at IS NULL", unique=True),
)
"""Versions that are tried out on live traffic; one of each kind and base at a time."""

nli_disagreements = _ours(
    "nli_disagreements",
    Column("id", Integer, primary_key=True),
    Column("trial_id", ForeignKey("nli_trials.id"), nullable=False),
    Column("at", String(40), nullable=False),
    Column("pair_key", String(32), nullable=False),
    Column("edge_id", String(64), doc="the unreviewed edge with these texts, once it was found"),
    Column("premise", Text, nullable=False),
    Column("hypothesis", Text, nullable=False),
    Column("source_url", Text, nullable=False, server_default=""),
    Column("score", Float, nullable=False, doc="total variation distance of the two answers"),
    Column("answers_json", Text, nullable=False, doc="version -> label -> probability"),
    UniqueConstraint("trial_id", "pair_key", name="uq_disagreements"),
)
"""Live pairs to which a shadow gave another label: a bounded number, oldest rows go first."""

nli_review_events = _ours(
    "nli_review_events",
    Column("id", Integer, primary_key=True),
    Column("at", String(40), nullable=False),
    Column("who", Text, nullable=False),
    Column("action", String(16), nullable=False),
    Column("review_id", ForeignKey("nli_reviews.id"), nullable=False, index=True),
    Column("edge_id", String(64)),
    Column("reason", Text, nullable=False, server_default=""),
)
"""What happened to reviews afterwards: append-only; undo."""

nli_second_reviews = _ours(
    "nli_second_reviews",
    Column("id", String(64), primary_key=True),
    Column("review_id", ForeignKey("nli_reviews.id"), nullable=False, index=True),
    Column("edge_id", String(64), nullable=False, index=True),
    Column("label", String(32), nullable=False),
    Column("reviewer", Text, nullable=False),
    Column("reason", Text, nullable=False, server_default=""),
    Column("reviewed_at", String(40), nullable=False),
    CheckConstraint(f"label IN {_LABEL_CHECK}", name="ck_second_reviews_label"),
)
"""Blind second verdicts: they measure agreement, and change neither edges nor labels. A label that
one of them shares is learned with less doubt."""

nli_leases = _ours(
    "nli_leases",
    Column("edge_id", String(64), primary_key=True),
    Column("token", String(64), nullable=False, unique=True),
    Column("reviewer", Text, nullable=False, server_default=""),
    Column("purpose", String(16), nullable=False),
    Column("sampling", String(16), nullable=False),
    Column("expires_at", String(40), nullable=False, index=True),
    CheckConstraint("purpose IN ('first', 'second')", name="ck_leases_purpose"),
    CheckConstraint("sampling IN ('random', 'queue', 'unknown')", name="ck_leases_sampling"),
)
"""Which edge is on whose screen."""

nli_idempotency = _ours(
    "nli_idempotency",
    Column("key", String(200), primary_key=True),
    Column("request_hash", String(64), nullable=False),
    Column("answer_json", Text, nullable=False),
    Column("at", String(40), nullable=False, index=True),
)
"""One row for each accepted write that had a key: sent again, it gets the same answer."""

nli_queue_scores = _ours(
    "nli_queue_scores",
    Column("kind", String(16), primary_key=True),
    Column("edge_id", String(64), primary_key=True),
    Column("score", Float, nullable=False),
    Column("detail_json", Text, nullable=False, server_default="{}"),
    Column("source", Text, nullable=False, server_default=""),
    Column("at", String(40), nullable=False),
    CheckConstraint("kind IN ('disagree', 'suspect')", name="ck_queue_scores_kind"),
    Index("ix_nli_queue_scores_score", "kind", "score"),
)
"""Why an edge is worth a look: models disagree about it, or its human label is suspect."""

nli_calibrations = _ours(
    "nli_calibrations",
    Column("id", String(64), primary_key=True),
    Column("version", Integer, nullable=False, unique=True),
    Column("method", String(32), nullable=False),
    Column("params_json", Text, nullable=False),
    Column("samples", Integer, nullable=False),
    Column("created_at", String(40), nullable=False),
    Column("is_current", Integer, nullable=False, server_default="0"),
    Column("base_model", Text, nullable=False, server_default=""),
    Column("source", Text, nullable=False, server_default="nli", doc="the version it corrects"),
    Column("metrics_json", Text, nullable=False, server_default="{}"),
)
"""One is current at most for each base model and source."""

nli_calibration_events = _ours(
    "nli_calibration_events",
    Column("id", Integer, primary_key=True),
    Column("at", String(40), nullable=False),
    Column("who", Text, nullable=False),
    Column("action", String(16), nullable=False),
    Column("from_version", Integer),
    Column("to_version", Integer),
    Column("reason", Text, nullable=False, server_default=""),
    Column("base_model", Text, nullable=False, server_default=""),
    Column("source", Text, nullable=False, server_default="nli"),
)
"""Calibration history: append-only; fit, rollback."""

nli_predictions = _ours(
    "nli_predictions",
    Column("id", Integer, primary_key=True),
    Column("at", String(40), nullable=False),
    Column("pair_key", String(32), nullable=False, index=True),
    Column("base_model", Text, nullable=False),
    Column("version", String(64), nullable=False, doc="the adapter version, or `base`"),
    Column("label", String(32), nullable=False),
    Column("supports", Float, nullable=False),
    Column("refutes", Float, nullable=False),
    Column("neutral", Float, nullable=False),
    Column("calibrated", Float, doc="the calibrated confidence, where there is a calibration"),
    Column("calibration", Integer, doc="the nli_calibrations version that gave it"),
    Column("premise_chars", Integer, nullable=False),
    Column("hypothesis_chars", Integer, nullable=False),
    Column("milliseconds", Float, nullable=False, doc="what its request waited for the model"),
    Column("domain", Text, doc="where the premise comes from, if the request said"),
    Column("premise", Text, doc="only if monitoring.log_texts says so"),
    Column("hypothesis", Text),
)
"""What the server answered: a bounded sample, oldest rows go first."""

nli_prediction_counts = _ours(
    "nli_prediction_counts",
    Column("day", String(10), primary_key=True, doc="UTC, YYYY-MM-DD"),
    Column("base_model", String(200), primary_key=True),
    Column("version", String(64), primary_key=True),
    Column("kind", String(16), primary_key=True),
    Column("bucket", String(100), primary_key=True),
    Column("n", Integer, nullable=False),
)
"""How many logged answers of a day fell where: small, and stays when the answers are gone."""

nli_comparisons = _ours(
    "nli_comparisons",
    Column("id", String(64), primary_key=True),
    Column("at", String(40), nullable=False, index=True),
    Column("kind", String(16), nullable=False, doc="compare or shadow"),
    Column("base_model", Text, nullable=False),
    Column("one", String(64), nullable=False),
    Column("other", String(64), nullable=False),
    Column("compared", Integer, nullable=False),
    Column("disagreed", Integer, nullable=False),
    Column("details_json", Text, nullable=False, server_default="{}"),
)
"""How far two versions agreed on the same pairs."""

nli_alerts = _ours(
    "nli_alerts",
    Column("id", String(64), primary_key=True),
    Column("at", String(40), nullable=False),
    Column("rule", String(32), nullable=False),
    Column("base_model", Text, nullable=False),
    Column("version", String(64), nullable=False),
    Column("value", Float),
    Column("threshold", Float),
    Column("message", Text, nullable=False),
    Column("action", Text, nullable=False, server_default="", doc="what was done about it"),
    Column("resolved_at", String(40)),
    Index("ix_nli_alerts_open", "resolved_at", "rule", "version"),
)
"""What the watch found; an open one is not raised again."""
