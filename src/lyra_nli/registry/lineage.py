"""Lineage: what a version was made from, in words for its report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lyra_nli.registry.manifest import Manifest


def lineage(manifest: Manifest) -> dict[str, str]:
    """What a reader of the report wants to know about a version's origin."""
    metrics, rows = manifest.metrics, manifest.row_ids
    training, sources = metrics["training"], metrics.get("learned_from", {})
    learned = ", ".join(f"{count} {name}" for name, count in sorted(sources.items()))
    domain = metrics.get("domain")
    return {
        **({"domain": f"{domain} alone"} if domain else {}),
        "base model": f"{manifest.base_model} ({manifest.base_fingerprint[:12]})",
        **_start(metrics),
        **_search(metrics),
        "learned from": learned or f"{len(rows['train'])} rows",
        "strength": _strength(training, len(rows["dev"])),
        "set aside": f"{metrics.get('aside', 0)} rows that straddle a cut group or do not fit",
        "dataset": f"{manifest.dataset_hash[:12]} (seed {manifest.seed})",
        "trained parameters": f"{training['trainable']:,} of {training['total']:,} "
        f"({training['trainable'] / training['total']:.2%})",
        "time": f"{training['seconds']:.0f} s, {training['peak_memory'] / 2**20:.0f} MB at most",
        "made at": manifest.created_at[:16],
        "git commit": manifest.git_commit or "unknown",
    }


def _strength(training: Mapping[str, Any], dev: int) -> str:
    judged = f"{training['folds']} folds" if training["folds"] else f"{dev} dev rows"
    strength = training.get("strength", 1.0)  # earlier releases chose the number of epochs
    return f"{strength:g} of 1 after {training['epochs']} epochs, chosen by {judged}"


def _start(metrics: Mapping[str, Any]) -> dict[str, str]:
    start = metrics.get("warm_start")
    return {"started from": f"{start['version']} ({start['digest'][:12]})"} if start else {}


def _search(metrics: Mapping[str, Any]) -> dict[str, str]:
    """What was tried, and what came of it."""
    found = metrics.get("search")
    if not found:
        return {}
    changes = ", ".join(f"{name} {value}" for name, value in sorted(found["changes"].items()))
    chosen = f"{changes} instead of the settings'" if changes else "the settings' own recipe"
    return {
        "search": f"{found['tried']} other recipes in {found['seconds'] / 60:.0f} of "
        f"{found['minutes']:g} minutes, {found['pruned']} given up early; chosen: {chosen} "
        f"(Brier {found['brier']:.3f} out of fold, the settings' own "
        f"{found['brier_of_settings']:.3f})",
        "judged by": "rows which had no say in the choice of their recipe: each half of the folds "
        "was answered by what the other half chose",
    }
