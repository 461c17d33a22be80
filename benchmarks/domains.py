"""Labelled pairs for the benchmarks: the user's own file, or the demo's project."""

from __future__ import annotations

import json
from pathlib import Path

from lyra_nli.demo.world import build_world
from lyra_nli.labels import parse_label
from lyra_nli.records import Example, Pair


def read_domain(file: Path | None, group: str = "topic") -> list[Example]:
    """Every pair as a correction: only a model's answers can tell which are.

    Args:
        file: JSONL with ``premise``, ``hypothesis``, ``label``; None: the demo's project.
        group: the column whose values stay on one side of a split.
    """
    if file is None:
        world = build_world()
        pairs = world.pairs()
        return [Example(e.id, pairs[e.id], e.label, "correction", e.topic) for e in world.edges]
    rows = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
    return [
        Example(
            id=f"row:{index}",
            pair=Pair(row["premise"], row["hypothesis"]),
            label=parse_label(row["label"]),
            source="correction",
            group=str(row.get(group, index)),
        )
        for index, row in enumerate(rows)
    ]
