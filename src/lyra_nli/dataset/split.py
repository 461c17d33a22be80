"""Splitting: what is judged shares no page, fragment, claim or text with what is learned.

Rows that share an anchor form a group (connected components), and a group stands on one
side. Where one claim or page ties most rows together, no such split exists without loss: the
largest groups are then cut along both their claims and their premises, and rows that straddle
the cut are set aside and counted. So is a group that new rows made of two: one that the active
version learned from and one that it was judged on.

The hold-out takes the groups that came up last: a version is judged on what people turned to
after what it learned from, as it will be when it serves.
"""

from __future__ import annotations

import math
import random
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from lyra_nli.dataset.cut import Past, cut_group
from lyra_nli.dataset.groups import Row, Side, components

_PAST: Mapping[Side | None, Past] = {"train": "learned", "dev": "learned", "holdout": "held"}

_ENOUGH = 0.5
"""Whole groups must fill this share of the wanted hold-out; else the largest ones are cut."""

_CUT = 0.3
"""Share of claims and of premises that a cut gives to the hold-out (0.3 * 0.3 of the rows)."""

_SMALL = 0.25
"""Groups of at most this share of the hold-out are held out because they are new."""

_FRESH = 0.5
"""Share of the rows without a past that may be held out: the others are what is new to learn."""


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
    most = past.count("held") + _FRESH * past.count(None)
    holdout = min(holdout, most / max(1, len(rows)))
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
        of_members = cut_group(
            [rows[i] for i in members], [past[i] for i in members], share, dev, seed
        )
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
    """Sides for whole groups: what was seen keeps its place, the newest small ones are held out.

    A hold-out of one large group would prove little. All sides are stratified: other groups go
    where their labels are missing most.
    """
    by_group: dict[str, list[int]] = defaultdict(list)
    for index in members:
        by_group[groups[index]].append(index)
    total = Counter(rows[index].label for index in members)
    targets: dict[Side, float] = {"holdout": holdout, "dev": dev, "train": 1 - holdout - dev}
    counts: dict[Side, Counter[str]] = {side: Counter() for side in targets}
    order = sorted(by_group)
    random.Random(seed).shuffle(order)
    order.sort(key=lambda group: -len(by_group[group]))
    order.sort(key=lambda group: min(rows[index].at for index in by_group[group]), reverse=True)
    known = {group: {past[index] for index in by_group[group]} - {None} for group in order}
    # Groups with a past first, so that the fresh ones fill what is missing, the newest first.
    for group in sorted(order, key=lambda name: not known[name]):
        labels = Counter(rows[index].label for index in by_group[group])
        allowed: tuple[Side, ...] = ("holdout", "dev", "train")
        if "learned" in known[group]:
            allowed = ("dev", "train")
        elif "held" in known[group]:
            allowed = ("holdout",)
        needs = {side: _need(counts[side], labels, total, targets[side]) for side in allowed}
        small = labels.total() <= _SMALL * holdout * len(members)
        room = all(counts["holdout"][x] + labels[x] <= holdout * total[x] for x in labels)
        newest = "holdout" in allowed and small and room
        side = "holdout" if newest else max(needs, key=needs.__getitem__)
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
