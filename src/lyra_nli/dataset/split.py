"""Splitting: what is judged shares no page, fragment, claim or text with what is learned.

Rows that share an anchor form a group (connected components), and a group stands on one
side. Where one claim or page ties most rows together, no such split exists without loss: the
largest groups are then cut along both their claims and their premises, and rows that straddle
the cut are set aside and counted. So is a group that new rows made of two: one that the active
version learned from and one that it was judged on.
"""

from __future__ import annotations

import math
import random
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

Side = Literal["train", "dev", "holdout", "aside"]

Past = Literal["learned", "held"] | None
"""What the active version did with a row."""

_PAST: Mapping[Side | None, Past] = {"train": "learned", "dev": "learned", "holdout": "held"}

_ENOUGH = 0.5
"""Whole groups must fill this share of the wanted hold-out; else the largest ones are cut."""

_CUT = 0.3
"""Share of claims and of premises that a cut gives to the hold-out (0.3 * 0.3 of the rows)."""

_CLAIM_KINDS = ("claim", "hypothesis")
_PREMISE_KINDS = ("page", "fragment", "premise")
"""Anchors of any other kind (``group``) tie claims and premises alike."""


@dataclass(frozen=True, slots=True)
class Row:
    """What splitting needs to know of a row."""

    id: str
    label: str
    anchors: frozenset[str]


def components(rows: Sequence[Row], without: Sequence[str] = ()) -> list[str]:
    """For each row, the name of its connected component over shared anchors.

    Args:
        without: anchors of these kinds (the part before the colon) don't connect.

    A component is named after the smallest id among its rows.
    """
    parent = list(range(len(rows)))

    def find(item: int) -> int:
        while parent[item] != item:
            parent[item] = parent[parent[item]]
            item = parent[item]
        return item

    owner: dict[str, int] = {}
    for index, row in enumerate(rows):
        for anchor in row.anchors:
            if anchor.partition(":")[0] not in without:
                parent[find(index)] = find(owner.setdefault(anchor, index))
    name: dict[int, str] = {}
    for index, row in enumerate(rows):
        root = find(index)
        name[root] = min(name.get(root, row.id), row.id)
    return [name[find(index)] for index in range(len(rows))]


def split(
    rows: Sequence[Row],
    *,
    holdout: float,
    dev: float,
    seed: int,
    seen: Mapping[str, Side] | None = None,
) -> tuple[list[Side], list[str]]:
    """Give every row a side and a group.

    Args:
        holdout: wanted share of rows in the hold-out.
        dev: wanted share in the dev split.
        seen: sides that the active version used. What it learned from never enters the
            hold-out, so that both can be judged on the same rows; its hold-out stays one,
            unless new rows tie it to what was learned so closely that no cut parts them.

    Returns:
        (sides, groups), both in the order of `rows`.
    """
    groups = components(rows)
    past = [_PAST.get((seen or {}).get(row.id)) for row in rows]
    cut = dict.fromkeys(_of_both(groups, past), 0.0)
    sizes = Counter(group for group in groups if group not in cut)
    # A group that fits into the hold-out whole is worth more whole.
    large = sorted((size, group) for group, size in sizes.items() if size > holdout * len(rows))
    best = _place(rows, groups, past, cut, holdout, dev, seed)
    while large and best[0].count("holdout") < _ENOUGH * holdout * len(rows):
        cut[large.pop()[1]] = min(_CUT, math.sqrt(holdout))
        placed = _place(rows, groups, past, cut, holdout, dev, seed)
        if placed[0].count("holdout") > best[0].count("holdout"):
            best = placed
    return best


def leaks(rows: Sequence[Row], sides: Sequence[Side]) -> list[str]:
    """Anchors that stand both in the hold-out and in what is learned from; must be empty."""
    places: dict[str, set[bool]] = defaultdict(set)
    for row, side in zip(rows, sides, strict=True):
        if side != "aside":
            for anchor in row.anchors:
                places[anchor].add(side == "holdout")
    return sorted(anchor for anchor, both in places.items() if len(both) > 1)


def _place(
    rows: Sequence[Row],
    groups: Sequence[str],
    past: Sequence[Past],
    cut: Mapping[str, float],
    holdout: float,
    dev: float,
    seed: int,
) -> tuple[list[Side], list[str]]:
    """Sides and groups of all rows.

    Args:
        cut: the groups to be cut, each with the share of its claims and premises to hold out.
    """
    sides: dict[int, Side] = {}
    names = list(groups)
    ordinary = [i for i, group in enumerate(groups) if group not in cut]
    _assign(sides, ordinary, rows, groups, holdout, dev, seed, past)
    for giant, share in sorted(cut.items()):
        members = [i for i, group in enumerate(groups) if group == giant]
        of_members = _cut([rows[i] for i in members], [past[i] for i in members], share, dev, seed)
        for row, (side, name) in zip(members, of_members, strict=True):
            sides[row], names[row] = side, name
    return [sides[i] for i in range(len(rows))], names


def _assign(
    sides: dict[int, Side],
    members: Sequence[int],
    rows: Sequence[Row],
    groups: Sequence[str],
    holdout: float,
    dev: float,
    seed: int,
    past: Sequence[Past],
) -> None:
    """Sides for whole groups: what was seen keeps its place, the rest is stratified."""
    by_group: dict[str, list[int]] = defaultdict(list)
    for index in members:
        by_group[groups[index]].append(index)
    total = Counter(rows[index].label for index in members)
    targets: dict[Side, float] = {"holdout": holdout, "dev": dev, "train": 1 - holdout - dev}
    counts: dict[Side, Counter[str]] = {side: Counter() for side in targets}
    order = sorted(by_group)
    random.Random(seed).shuffle(order)
    order.sort(key=lambda group: -len(by_group[group]))
    known = {group: {past[index] for index in by_group[group]} - {None} for group in order}
    # Groups with a past first, so that the fresh ones fill what is missing.
    for group in sorted(order, key=lambda name: not known[name]):
        labels = Counter(rows[index].label for index in by_group[group])
        allowed: tuple[Side, ...] = ("holdout", "dev", "train")
        if "learned" in known[group]:
            allowed = ("dev", "train")
        elif "held" in known[group]:
            allowed = ("holdout",)
        side = max(allowed, key=lambda s: _need(counts[s], labels, total, targets[s]))
        counts[side] += labels
        sides.update(dict.fromkeys(by_group[group], side))


def _need(have: Counter[str], group: Counter[str], total: Counter[str], target: float) -> float:
    """How much a side's squared shortfall over the labels shrinks when it takes the group."""
    if not target:
        return float("-inf")
    gain = 0.0
    for label, size in sorted(total.items()):  # sums of floats depend on the order
        wanted = target * size
        before, after = wanted - have[label], wanted - have[label] - group[label]
        gain += (before**2 - after**2) / wanted
    return gain


def _of_both(names: Sequence[str], past: Sequence[Past]) -> set[str]:
    """Names of which some rows were learned from and others held out."""
    learned = {name for name, was in zip(names, past, strict=True) if was == "learned"}
    held = {name for name, was in zip(names, past, strict=True) if was == "held"}
    return learned & held


def _cut(
    rows: Sequence[Row], past: Sequence[Past], share: float, dev: float, seed: int
) -> list[tuple[Side, str]]:
    """Cut one group: hold-out rows have a held-out claim and a held-out premise.

    Returns:
        (side, group) of every row.
    """
    claims, premises = components(rows, _PREMISE_KINDS), components(rows, _CLAIM_KINDS)
    held_claims = _held(claims, past, share, seed)
    held_premises = _held(premises, past, share, seed + 1)
    dev_claims = _sample([c for c in claims if c not in held_claims], dev, seed + 2)
    result: list[tuple[Side, str]] = []
    for claim, premise, was in zip(claims, premises, past, strict=True):
        held = (claim in held_claims) + (premise in held_premises)
        side: Side = "dev" if claim in dev_claims else "train"
        if held:
            side = "holdout" if held == 2 and was != "learned" else "aside"
        result.append((side, claim))
    return result


def _held(names: Sequence[str], past: Sequence[Past], share: float, seed: int) -> set[str]:
    """Names for the hold-out: all that stood there before, then fresh ones, then learned ones."""
    learned = {name for name, was in zip(names, past, strict=True) if was == "learned"}
    kept = {name for name, was in zip(names, past, strict=True) if was == "held"} - learned
    return _sample(names, share, seed, first=kept, last=learned)


def _sample(
    names: Sequence[str],
    share: float,
    seed: int,
    first: Collection[str] = (),
    last: Collection[str] = (),
) -> set[str]:
    """Names, drawn at random, that together hold about this share of the rows.

    Args:
        first: taken in any case.
        last: taken only when the others do not suffice.
    """
    sizes = Counter(names)
    order = sorted(sizes)
    random.Random(seed).shuffle(order)
    order.sort(key=lambda name: (name not in first, name in last))
    chosen: set[str] = set()
    held = 0
    for name in order:
        if name in first or held + sizes[name] / 2 <= share * len(names):
            chosen.add(name)
            held += sizes[name]
    return chosen
