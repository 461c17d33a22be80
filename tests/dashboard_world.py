"""A database with a history that was worked out by hand, for the pages of the dashboard."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from lyra_nli.dashboard.memory import Memory
from lyra_nli.dashboard.view import Fields, View, open_view
from lyra_nli.evaluation.gate import Evidence, judge_candidate
from lyra_nli.labels import LABELS, Label
from lyra_nli.ml_server.database import Database
from lyra_nli.records import Example, Pair
from lyra_nli.registry.artifact import Manifest, staged
from lyra_nli.registry.versions import Registry, Version
from lyra_nli.settings import Settings
from lyra_nli.storage.engine import open_database
from lyra_nli.storage.upgrade import init_database

BASE = "starter"


def ago(days: float) -> str:
    """A moment that many days before now, as databases keep it."""
    return (datetime.now(UTC) - timedelta(days=days)).isoformat()


@dataclass
class History:
    """A folder with a database and a registry; every method adds to them."""

    folder: Path
    memory: Memory = field(default_factory=Memory)

    def __post_init__(self) -> None:
        self.engines = Database(self.settings.storage, read_only=True)

    @property
    def settings(self) -> Settings:
        return Settings.model_validate(
            {
                "storage": {"database_path": str(self.database), "busy_timeout_seconds": 1},
                "nli": {"fast_model": BASE, "adapters_dir": str(self.folder / "adapters")},
            }
        )

    @property
    def database(self) -> Path:
        return self.folder / "lyra.db"

    def init(self) -> History:
        init_database(str(self.database))
        return self

    def show(self, page: Callable[[View], Fields], *, patience: float = 60.0) -> Fields:
        """What a page shows, in its envelope; with the memory of what it showed before."""
        view = open_view(self.settings, BASE, self.engines.engine, self.memory, patience)
        return view.answer(page(view))

    def run(self, sql: str, *values: Any) -> None:
        with closing(sqlite3.connect(self.database)) as connection, connection:
            connection.execute(sql, values)

    def add(self, table: str, **values: Any) -> None:
        marks = ", ".join("?" * len(values))
        self.run(f"INSERT INTO {table} ({', '.join(values)}) VALUES ({marks})", *values.values())

    def review(
        self,
        name: str,
        model: str,
        human: str,
        *,
        version: str | None = None,
        days: float = 0.0,
        sampling: str = "random",
        **more: Any,
    ) -> None:
        values = {
            "id": f"nlr_{name}",
            "edge_id": f"edge_{name}",
            "pair_key": f"pair_{name}",
            "premise": "p",
            "hypothesis": "h",
            "predicted_label": model,
            "predicted_confidence": 0.9,
            "predicted_by": version,
            "correct_label": human,
            "sampling": sampling,
            "reviewed_at": ago(days),
        }
        self.add("nli_reviews", **(values | more))

    def answers(self, n: int, *, version: str, label: str = "supports", days: float = 0.0) -> None:
        """Count answers, as the log of predictions does."""
        self.add(
            "nli_prediction_counts",
            day=ago(days)[:10],
            base_model=BASE,
            version=version,
            kind="label",
            bucket=label,
            n=n,
        )

    def log(self, pair: str, *, version: str, days: float = 2, **more: Any) -> None:
        """Log an answer: supports, of which the model is 0.8 sure."""
        values = {
            "at": ago(days),
            "pair_key": pair,
            "base_model": BASE,
            "version": version,
            "label": "supports",
            "supports": 0.8,
            "refutes": 0.1,
            "neutral": 0.1,
            "premise_chars": 10,
            "hypothesis_chars": 10,
            "milliseconds": 5.0,
        }
        self.add("nli_predictions", **(values | more))

    def publish(self, **changes: Any) -> Version:
        """Register a version with a verdict of the real gate; its tensors are only bytes.

        Of the 12 hold-out rows the base has 6 right, and the candidate 9: it fixes 4, breaks 1.
        """
        engine = open_database(str(self.database))
        registry = Registry(engine, self.folder / "adapters")
        verdict = gate_verdict()
        values: dict[str, Any] = {
            "base_model": BASE,
            "base_revision": None,
            "base_fingerprint": "f" * 64,
            "dataset_hash": "d" * 64,
            "split_hash": "e" * 64,
            "row_ids": {"train": ["r1", "r2"], "dev": [], "holdout": ["r3"]},
            "recipe": {"rank": 8},
            "dataset_settings": {},
            "library_versions": {},
            "git_commit": None,
            "seed": 13,
            "threads": 1,
            "created_at": ago(30),
            "metrics": {"verdict": verdict, "accuracy_before": 0.5, "accuracy_after": 0.75},
        }
        manifest = Manifest(**(values | changes))
        with staged(registry.directory) as staging:
            (staging / "adapter_model.safetensors").write_bytes(b"tensors")
            (staging / "adapter_config.json").write_text("{}", "utf-8")
            (staging / "report.md").write_text("# Gate report\n", "utf-8")
            version = registry.publish(
                manifest,
                staging,
                status="passed",
                run_id=None,
                parent=None,
                samples_used=100,
                metrics=manifest.metrics,
                verdict="pass",
                report_path="report.md",
            )
        engine.dispose()
        return version

    def activate(self, name: str, *, days: float = 0.0) -> None:
        """Let a version serve, since that many days."""
        engine = open_database(str(self.database))
        registry = Registry(engine, self.folder / "adapters")
        registry.activate(name, who="ann", reason="better")
        engine.dispose()
        newest = "(SELECT max(id) FROM nli_version_events)"
        self.run(f"UPDATE nli_version_events SET at = ? WHERE id = {newest}", ago(days))


def gate_verdict() -> dict[str, Any]:
    labels = [LABELS[n % 3] for n in range(12)]
    rows = [
        Example(f"r{n}", Pair("a", "b"), label, "correction", str(n))
        for n, label in enumerate(labels)
    ]
    said = {
        name: probabilities(labels, wrong)
        for name, wrong in (("base", {0, 1, 2, 3, 4, 5}), ("candidate", {4, 5, 6}))
    }
    evidence = Evidence(tuple(rows), said)
    return judge_candidate(evidence, evidence, Settings().gate, kind="holdout").to_dict()


def probabilities(labels: Sequence[Label], wrong: set[int]) -> Any:
    import numpy as np

    rows = []
    for n, label in enumerate(labels):
        best = (LABELS.index(label) + (n in wrong)) % 3
        rows.append([0.8 if index == best else 0.1 for index in range(3)])
    return np.array(rows)
