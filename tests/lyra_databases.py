"""Databases as other programs left them, built by raw SQL: both Lyra generations, and more.

The schemas are cut down to the tables that matter here plus one or two that must survive an
upgrade untouched (`tasks`, a view, a trigger).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Engine, event

from lyra_nli.storage.engine import open_database

_COMMON = """
CREATE TABLE schema_migrations (version INTEGER PRIMARY KEY, name TEXT NOT NULL);
CREATE TABLE tasks (id TEXT PRIMARY KEY, {task} TEXT NOT NULL);
CREATE TABLE pages (
    id TEXT PRIMARY KEY, url TEXT NOT NULL UNIQUE, domain TEXT NOT NULL, title TEXT
);
CREATE TABLE fragments (
    id TEXT PRIMARY KEY, page_id TEXT NOT NULL, fragment_type TEXT NOT NULL,
    text_content TEXT NOT NULL, FOREIGN KEY (page_id) REFERENCES pages(id)
);
CREATE TABLE claims (
    id TEXT PRIMARY KEY, task_id TEXT NOT NULL, claim_text TEXT NOT NULL,
    claim_adoption_status TEXT DEFAULT 'adopted', claim_rejection_reason TEXT,
    claim_rejected_at TEXT, FOREIGN KEY (task_id) REFERENCES tasks(id)
);
CREATE TABLE edges (
    id TEXT PRIMARY KEY, source_type TEXT NOT NULL, source_id TEXT NOT NULL,
    target_type TEXT NOT NULL, target_id TEXT NOT NULL, relation TEXT NOT NULL,
    nli_label TEXT, {edge_confidence} REAL, citation_source TEXT,
    edge_human_corrected BOOLEAN DEFAULT 0, edge_correction_reason TEXT,
    edge_corrected_at TEXT, created_at DATETIME DEFAULT CURRENT_TIMESTAMP
);
CREATE INDEX idx_edges_source ON edges(source_type, source_id);
CREATE VIEW v_supported AS SELECT target_id FROM edges WHERE relation = 'supports';
CREATE TABLE claims_log (id TEXT);
CREATE TRIGGER claims_ai AFTER INSERT ON claims BEGIN
    INSERT INTO claims_log VALUES (NEW.id);
END;
"""

_CORRECTIONS = """
CREATE TABLE nli_corrections (
    id TEXT PRIMARY KEY, edge_id TEXT NOT NULL, task_id TEXT, premise TEXT NOT NULL,
    {hypothesis} TEXT NOT NULL, predicted_label TEXT NOT NULL,
    predicted_confidence REAL NOT NULL, correct_label TEXT NOT NULL, reason TEXT,
    corrected_at TEXT NOT NULL{mark}, FOREIGN KEY (edge_id) REFERENCES edges(id)
);
"""

_ADAPTERS = """
CREATE TABLE adapters (
    id INTEGER PRIMARY KEY AUTOINCREMENT, version_name TEXT NOT NULL,
    adapter_path TEXT NOT NULL, base_model TEXT NOT NULL, samples_used INTEGER NOT NULL,
    brier_before REAL, brier_after REAL, shadow_accuracy REAL,
    created_at DATETIME DEFAULT CURRENT_TIMESTAMP, is_active BOOLEAN DEFAULT 0
);
"""

_REST = """
CREATE TABLE calibration_evaluations (
    id TEXT PRIMARY KEY, source TEXT NOT NULL, brier_score REAL NOT NULL,
    brier_score_calibrated REAL, improvement_ratio REAL, expected_calibration_error REAL,
    samples_evaluated INTEGER NOT NULL, bins_json TEXT NOT NULL, calibration_version INTEGER,
    evaluated_at DATETIME NOT NULL
);
CREATE TABLE domain_override_rules (
    id TEXT PRIMARY KEY, domain_pattern TEXT NOT NULL, decision TEXT NOT NULL,
    reason TEXT NOT NULL, created_at DATETIME, updated_at DATETIME,
    is_active BOOLEAN DEFAULT 1, created_by TEXT DEFAULT 'feedback'
);
CREATE TABLE domain_override_events (
    id TEXT PRIMARY KEY, rule_id TEXT, action TEXT NOT NULL, domain_pattern TEXT NOT NULL,
    decision TEXT NOT NULL, reason TEXT, created_at DATETIME, created_by TEXT
);
"""


@dataclass(frozen=True)
class Shape:
    """How one kind of database writes things.

    Attributes:
        mark: the column that says a correction was used for training; None without one.
    """

    hypothesis: str = "hypothesis"
    edge_confidence: str = "nli_confidence"
    mark: str | None = None
    adapters: bool = False
    rest: bool = False

    @property
    def schema(self) -> str:
        marks = {
            None: "",
            "trained_adapter_id": ", trained_adapter_id INTEGER REFERENCES adapters(id)",
            "used_for_training": ", used_for_training INTEGER DEFAULT 0",
        }
        task = "hypothesis" if self.hypothesis == "nli_hypothesis" else "query"
        return (
            _COMMON.format(task=task, edge_confidence=self.edge_confidence)
            + (_ADAPTERS if self.adapters else "")
            + _CORRECTIONS.format(hypothesis=self.hypothesis, mark=marks[self.mark])
            + (_REST if self.rest else "")
        )


OLDER = Shape()
NEWER = Shape("nli_hypothesis", "nli_edge_confidence", "trained_adapter_id", True, True)
PROPOSAL = Shape(mark="used_for_training")
NEWER_EDGES_OLDER_CORRECTIONS = Shape(edge_confidence="nli_edge_confidence")
OLDER_EDGES_NEWER_CORRECTIONS = Shape("nli_hypothesis", mark="trained_adapter_id", adapters=True)

SHAPES = {
    "older": OLDER,
    "newer": NEWER,
    "proposal": PROPOSAL,
    "newer edges, older corrections": NEWER_EDGES_OLDER_CORRECTIONS,
    "older edges, newer corrections": OLDER_EDGES_NEWER_CORRECTIONS,
}


class LyraDatabase:
    """Writes rows as Lyra does, by raw SQL."""

    def __init__(self, path: Path, shape: Shape = NEWER) -> None:
        self.path = path
        self.shape = shape
        path.parent.mkdir(parents=True, exist_ok=True)
        with self.connect() as connection:
            connection.executescript(shape.schema)
            connection.execute("INSERT INTO tasks VALUES ('t1', 'a question')")

    @contextmanager
    def connect(self) -> Iterator[sqlite3.Connection]:
        with closing(sqlite3.connect(self.path)) as connection, connection:
            connection.execute("PRAGMA synchronous = OFF")
            yield connection

    def open(self, *, read_only: bool = False) -> Engine:
        return unsafe(open_database(str(self.path), read_only=read_only, busy_timeout=5))

    def dump(self) -> list[str]:
        """All there is, schema and rows."""
        with self.connect() as connection:
            return list(connection.iterdump())

    def add_edge(
        self,
        key: str,
        label: str = "supports",
        confidence: float | None = 0.8,
        *,
        page: str = "p1",
        claim: str | None = None,
        relation: str | None = None,
        reviewed_at: str | None = None,
    ) -> str:
        """A judgement of the model on a fragment and a claim of its own."""
        claim = claim or f"c-{key}"
        with self.connect() as connection:
            connection.execute(
                "INSERT OR IGNORE INTO pages VALUES (?, ?, 'example.org', NULL)",
                (page, f"https://example.org/{page}"),
            )
            connection.execute(
                "INSERT INTO fragments VALUES (?, ?, 'paragraph', ?)",
                (f"f-{key}", page, f"Premise of {key}."),
            )
            connection.execute(
                "INSERT OR IGNORE INTO claims (id, task_id, claim_text) VALUES (?, 't1', ?)",
                (claim, f"Claim {claim}."),
            )
            connection.execute(
                "INSERT INTO edges (id, source_type, source_id, target_type, target_id,"
                f" relation, nli_label, {self.shape.edge_confidence}, edge_human_corrected,"
                " edge_corrected_at) VALUES (?, 'fragment', ?, 'claim', ?, ?, ?, ?, ?, ?)",
                (
                    key,
                    f"f-{key}",
                    claim,
                    relation or label,
                    None if relation in ("origin", "cites") else label,
                    confidence,
                    int(reviewed_at is not None),
                    reviewed_at,
                ),
            )
        return key

    def correct(
        self, edge: str, correct: str, at: str, *, key: str | None = None, used: bool = False
    ) -> str:
        """Correct an edge as Lyra does: note the label as it stands, overwrite the edge."""
        key, shape = key or f"nlc_{edge}", self.shape
        with self.connect() as connection:
            label, confidence, premise, claim = connection.execute(
                f"SELECT nli_label, {shape.edge_confidence}, text_content, claim_text"
                " FROM edges e JOIN fragments f ON f.id = e.source_id"
                " JOIN claims c ON c.id = e.target_id WHERE e.id = ?",
                (edge,),
            ).fetchone()
            connection.execute(
                f"INSERT INTO nli_corrections (id, edge_id, task_id, premise, {shape.hypothesis},"
                " predicted_label, predicted_confidence, correct_label, reason, corrected_at)"
                " VALUES (?, ?, 't1', ?, ?, ?, ?, ?, 'because', ?)",
                (key, edge, premise, claim, label, confidence or 0.0, correct, at),
            )
            connection.execute(
                f"UPDATE edges SET relation = ?, nli_label = ?, {shape.edge_confidence} = 1.0,"
                " edge_human_corrected = 1, edge_corrected_at = ? WHERE id = ?",
                (correct, correct, at, edge),
            )
        if used:
            self.mark_used(key)
        return key

    def mark_used(self, key: str) -> None:
        with self.connect() as connection:
            if self.shape.adapters:
                connection.execute(
                    "INSERT OR IGNORE INTO adapters (id, version_name, adapter_path, base_model,"
                    " samples_used) VALUES (1, 'v1', 'adapters/v1', 'base', 1)"
                )
            connection.execute(
                f"UPDATE nli_corrections SET {self.shape.mark} = 1 WHERE id = ?", (key,)
            )

    def agree(self, edge: str, at: str, *, key: str | None = None) -> None:
        """Confirm an edge as this generation does: the older one writes a correction too."""
        if self.shape.mark is None and self.shape.hypothesis == "hypothesis":
            with self.connect() as connection:
                (label,) = connection.execute(
                    "SELECT nli_label FROM edges WHERE id = ?", (edge,)
                ).fetchone()
            self.correct(edge, label, at, key=key)
            return
        with self.connect() as connection:
            connection.execute(
                "UPDATE edges SET edge_human_corrected = 1, edge_corrected_at = ? WHERE id = ?",
                (at, edge),
            )


def unsafe(engine: Engine) -> Engine:
    """Don't wait for the disk: a test's file may be lost when the power fails."""

    @event.listens_for(engine, "connect")
    def dont_wait(connection: sqlite3.Connection, _: object) -> None:
        connection.execute("PRAGMA synchronous = OFF")

    return engine


def populate(database: LyraDatabase) -> None:
    """Six edges: two corrected (one of them twice), one agreed, one not reviewed, two not NLI."""
    database.add_edge("e1", "supports", 0.9)
    database.correct("e1", "refutes", "2026-01-01T10:00:00+00:00")
    database.add_edge("e2", "neutral", 0.6, page="p2")
    database.correct("e2", "supports", "2026-01-02T10:00:00+00:00", key="nlc_a")
    database.correct("e2", "refutes", "2026-01-03T10:00:00+00:00", key="nlc_b")
    database.add_edge("e3", "refutes", 0.7, claim="c-e1")
    database.agree("e3", "2026-01-04T10:00:00+00:00")
    database.add_edge("e4", "supports", 0.5)
    database.add_edge("e5", relation="origin")
    database.add_edge("e6", relation="cites")


def fetch(path: Path, sql: str, *parameters: object) -> list[tuple[object, ...]]:
    """Ask the file itself, past all of our code."""
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(sql, parameters).fetchall()


def names_of(path: Path, kind: str = "table") -> Sequence[str]:
    rows = fetch(path, "SELECT name FROM sqlite_master WHERE type = ? ORDER BY name", kind)
    return [str(name) for (name,) in rows]
