"""Labelled pairs for the benchmarks: the user's own file, or the demo's project."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

from lyra_nli.dataset.groups import Row, components
from lyra_nli.demo.phrases import load_text
from lyra_nli.demo.world import World, build_world
from lyra_nli.labels import parse_label
from lyra_nli.records import Example, Pair, normalise


def read_domain(file: Path | None, group: str = "topic") -> list[Example]:
    """Every pair as a correction: only a model's answers can tell which are.

    Each pair once, and none whose copies are labelled differently, as cleaning has it; a copy of a
    pair would tell its label. Rows that share a premise are of one group, as in a dataset.

    Args:
        file: JSONL with ``premise``, ``hypothesis``, ``label``; None: the demo's project.
        group: the column whose values stay on one side of a split.
    """
    if file is None:
        return rows_of(build_world())
    rows = read_rows(file, group)
    labels: dict[str, set[str]] = defaultdict(set)
    first: dict[str, Example] = {}
    for row in rows:
        labels[row.pair.key].add(row.label)
        first.setdefault(row.pair.key, row)
    kept = [row for key, row in first.items() if len(labels[key]) == 1]
    anchors = [{f"group:{row.group}", f"premise:{normalise(row.pair.premise)}"} for row in kept]
    groups = components(
        [Row(row.id, row.label, frozenset(own)) for row, own in zip(kept, anchors, strict=True)]
    )
    return [replace(row, group=name) for row, name in zip(kept, groups, strict=True)]


def read_rows(file: Path, group: str = "topic") -> list[Example]:
    """Every line of a file, as it is."""
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


def invent_domain(seed: int, clinic_share: float) -> list[Example]:
    """Every pair of an invented project, likewise.

    Args:
        seed: another seed, another project: other names, figures and wordings.
        clinic_share: of topics about trials; the others are about laws and programmes.
    """
    mix = {**load_text("mix"), "clinic_share": clinic_share}
    return rows_of(build_world(seed, mix=mix))


def rows_of(world: World) -> list[Example]:
    """The pairs of a project, grouped by topic."""
    pairs = world.pairs()
    return [Example(e.id, pairs[e.id], e.label, "correction", e.topic) for e in world.edges]
