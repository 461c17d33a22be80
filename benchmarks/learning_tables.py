"""The tables of the learning benchmark: means over the splits, and ours beside the others."""

from __future__ import annotations

import argparse
import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from domains import read_domain
from learning_ground import halves
from learning_ways import MANY, REVIEWS, SCALED, Job, jobs_of
from numpy.typing import NDArray
from scipy import stats

from lyra_nli.evaluation.clusters import Clusters, flip_test

_EXCHANGED = "ours alone right : ours alone wrong, p by topics, p by splits, splits won"
LAST_COLUMN = {
    "compare": f"{_EXCHANGED}; broken at equal fixed",
    "noise": "of its own gain on right labels, and split by split",
    "ablation": _EXCHANGED,
    "replay": _EXCHANGED,
}
LISTS = ("all", "slips")
"""Turned rows among all reviewed ones; those of them that are corrections, among those."""


def table(
    part: str,
    options: argparse.Namespace,
    jobs: Iterable[Job],
    seeds: Sequence[int],
    found: dict[Job, dict[str, Any]],
) -> str:
    """Means over the seeds, and their spread for the accuracy."""
    rows: dict[tuple[Any, ...], list[dict[str, Any]]] = defaultdict(list)
    for job in jobs:
        rows[job.way, job.reviews, job.turned].append(found[job])
    scaled = rows.pop((SCALED, REVIEWS, 0.0), [])
    examples = read_domain(options.data, options.group)
    judges = [examples[row].group for seed in seeds for row in halves(examples, seed)[2]]
    lines = [
        "| | reviews | turned | accuracy (spread) | base | fixed | broken | Brier | base | ECE "
        f"| base | general | base | {LAST_COLUMN.get(part, '')} |",
        "|---" * 14 + "|",
    ]
    ours = rows["ours", MANY if part == "replay" else REVIEWS, 0.0]
    for (way, reviews, turned), each in rows.items():

        def mean(name: str, each: list[dict[str, Any]] = each) -> str:
            return f"{statistics.mean(one[name] for one in each):.3f}"

        accuracies = [one["accuracy"] for one in each]
        spread = f"{min(accuracies):.3f} to {max(accuracies):.3f}"
        names = ("base_accuracy", "fixed", "broken", "brier", "base_brier", "ece", "base_ece")
        cells = [mean(name) for name in (*names, "general", "base_general")]
        last = ""
        if part in ("compare", "ablation", "replay") and way != "ours":
            last = exchanged(ours, each, judges)
        if part == "compare" and way != "ours":
            last += f"; {at_equal_fixed(scaled, each)}"
        elif part == "noise":
            clean = rows[way, reviews, 0.0]
            kept = [gain([one]) / gain([right]) for one, right in zip(each, clean, strict=True)]
            last = f"{gain(each) / gain(clean):.0%} ({', '.join(f'{one:.0%}' for one in kept)})"
        lines.append(
            f"| {way} | {reviews} | {turned:.0%} | {mean('accuracy')} ({spread}) | "
            f"{' | '.join(cells)} | {last} |"
        )
    return "\n".join(lines)


def gain(each: Sequence[dict[str, Any]]) -> float:
    """Mean accuracy over the base's."""
    return statistics.mean(float(one["accuracy"] - one["base_accuracy"]) for one in each)


def suspects_table(seeds: Sequence[int], found: dict[Job, dict[str, Any]]) -> str:
    """What each score puts into the upper quarter, means over the seeds."""
    rows: dict[int, list[dict[str, float]]] = defaultdict(list)
    for job in jobs_of("suspects", seeds):
        rows[job.reviews].append(found[job])
    lines = [
        "| reviews | score | turned, of all reviewed | slips, of corrections |",
        "|---" * 4 + "|",
    ]
    for reviews, each in rows.items():
        for score in dict.fromkeys(name.rpartition(": ")[0] for name in each[0]):
            shares = (statistics.mean(one[f"{score}: {name}"] for one in each) for name in LISTS)
            lines.append(f"| {reviews} | {score} | {' | '.join(f'{x:.0%}' for x in shares)} |")
    return "\n".join(lines)


def at_equal_fixed(scaled: Sequence[dict[str, Any]], peer: Sequence[dict[str, Any]]) -> str:
    """What ours breaks at the strength at which it fixes as much, against what the peer breaks."""
    equal = [broken_at(y["fixed"], x["strengths"]) for x, y in zip(scaled, peer, strict=True)]
    reached = [(one, y["broken"]) for one, y in zip(equal, peer, strict=True) if one is not None]
    if not reached:
        return "it never fixes as much"
    half = sum(2 * one <= other for one, other in reached)
    ours, theirs = (statistics.mean(each) for each in zip(*reached, strict=True))
    some = "" if len(reached) == len(equal) else f" (in {len(reached)} of {len(equal)} splits)"
    return f"{ours:.3f} against {theirs:.3f}{some}, at most half in {half}"


def exchanged(
    ours: Sequence[dict[str, Any]], other: Sequence[dict[str, Any]], groups: Sequence[str]
) -> str:
    """Pairs that ours alone has right, those that it alone has wrong, and p, see the top.

    Args:
        groups: of the pairs of all splits, one after the other.
    """
    hits = [
        np.array(list("".join(one["hits"] for one in each)), dtype=int) for each in (ours, other)
    ]
    steps = (hits[0] - hits[1]).astype(float)
    sums = Clusters.of(groups).sums(steps[:, None])
    chance = min(1.0, 2 * min(flip_test(sums), flip_test(-sums)))
    ahead = np.array([a["accuracy"] - b["accuracy"] for a, b in zip(ours, other, strict=True)])
    return (
        f"{(steps > 0).sum()} : {(steps < 0).sum()}, {chance:.2g}, {corrected_t(ahead):.2g}, "
        f"{(ahead > 0).sum()} of {len(ahead)}"
    )


def corrected_t(differences: NDArray[np.float64]) -> float:
    """Two-sided p of a mean difference over random halves, which share rows.

    Nadeau & Bengio (2003), Inference for the generalization error: the variance of the mean of k is
    taken as (1/k + judged/learned from) times that of one; halves: 1/k + 1.
    """
    count = len(differences)
    error = np.sqrt((1 / count + 1) * differences.var(ddof=1)) if count > 1 else 0.0
    return float(2 * stats.t.sf(abs(differences.mean()) / error, count - 1)) if error else 1.0


def broken_at(fixed: float, strengths: Sequence[tuple[float, float]]) -> float | None:
    """What an adapter breaks at the strength at which it fixes so much, between those tried.

    None where it never fixes so much.
    """
    points = np.array(sorted([(0.0, 0.0), *map(tuple, strengths)]))
    return float(np.interp(fixed, points[:, 0], points[:, 1])) if fixed <= points[-1, 0] else None
