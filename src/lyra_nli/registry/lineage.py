"""Lineage: what a version was made from, in words for its report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lyra_nli.dataset.build import Dataset
from lyra_nli.registry.manifest import Manifest


def lineage(manifest: Manifest, dataset: Dataset) -> dict[str, object]:
    """What a reader of the report wants to know about the candidate's origin."""
    training = manifest.metrics["training"]
    return {
        "base model": f"{manifest.base_model} ({manifest.base_fingerprint[:12]})",
        "learned from": ", ".join(
            f"{count} {source}"
            for source, count in sorted(dataset.count("train", "source").items())
        ),
        "early stopping": _stopping(training, dataset),
        "set aside": f"{len(dataset.aside)} rows that straddle a cut group or do not fit",
        "dataset": manifest.dataset_hash[:12],
        "trained parameters": f"{training['trainable']:,} of {training['total']:,} "
        f"({training['trainable'] / training['total']:.2%})",
        "time": f"{training['seconds']:.0f} s, {training['peak_memory'] / 2**20:.0f} MB at most",
        "git commit": manifest.git_commit or "unknown",
    }


def _stopping(training: Mapping[str, Any], dataset: Dataset) -> str:
    judged = f"{training['folds']} folds" if training["folds"] else f"{len(dataset.dev)} dev rows"
    return f"epoch {training['best_epoch']} of {training['epochs']}, chosen by {judged}"
