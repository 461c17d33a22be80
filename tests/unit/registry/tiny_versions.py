"""Manifests and adapters of a few bytes, for tests and for the processes that they start."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from lyra_nli.registry.artifact import Manifest

BASE = "starter"
FINGERPRINT = "ab" * 32

OUTCOME: dict[str, Any] = {
    "status": "passed",
    "run_id": None,
    "parent": None,
    "samples_used": 120,
    "metrics": {"brier_before": 0.3, "brier_after": 0.2, "accuracy": 0.9},
    "verdict": "pass",
    "report_path": "report.md",
}


def new_manifest(**changes: Any) -> Manifest:
    values: dict[str, Any] = {
        "base_model": BASE,
        "base_revision": None,
        "base_fingerprint": FINGERPRINT,
        "dataset_hash": "d" * 64,
        "split_hash": "e" * 64,
        "row_ids": {"train": ["nli_reviews:1", "nli_reviews:2"], "dev": [], "holdout": []},
        "recipe": {"rank": 8, "learning_rate": 5e-4},
        "dataset_settings": {"seed": 13},
        "library_versions": {"torch": "2.13.0"},
        "git_commit": None,
        "seed": 13,
        "threads": 1,
        "created_at": "2026-01-01T00:00:00+00:00",
        "metrics": {"accuracy": 0.9},
    }
    return Manifest(**{**values, **changes})


def write_adapter(folder: Path, value: float = 0.5) -> None:
    tensors = {"base_model.model.layer.lora_A.weight": np.full((2, 3), value, dtype="float32")}
    save_file(tensors, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({"r": 2}), "utf-8")
    (folder / "report.md").write_text("# Report\n", "utf-8")
