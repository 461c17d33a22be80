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
from dataclasses import dataclass

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
    shares = _Shares(min(holdout, most / max(1, len(rows))), dev, seed)
    wanted = shares.holdout * len(rows)
    cut = dict.fromkeys(_of_both(groups, past), 0.0)
    sizes = Counter(group for group in groups if group not in cut)
    # A group that fits into the hold-out whole is worth more whole.
    large = sorted((size, group) for group, size in sizes.items() if size > wanted)
    best = _place(rows, groups, past, cut, shares)
    while large and best[0].count("holdout") < _ENOUGH * wanted:
        cut[large.pop()[1]] = min(_CUT, math.sqrt(shares.holdout))
        placed = _place(rows, groups, past, cut, shares)
        if placed[0].count("holdout") > best[0].count("holdout"):
            best = placed
    return best


@dataclass(frozen=True)
class _Shares:
    """What is wanted of the rows for the hold-out and for the dev split, and what draws them."""

    holdout: float
    dev: float
    seed: int

    @property
    def targets(self) -> dict[Side, float]:
        return {"holdout": self.holdout, "dev": self.dev, "train": 1 - self.holdout - self.dev}


def _place(
    rows: Sequence[Row],
    groups: Sequence[str],
    past: Sequence[Past],
    cut: Mapping[str, float],
    shares: _Shares,
) -> tuple[list[Side], list[str]]:
    """Sides and groups of all rows.

    Args:
        cut: the groups to be cut, each with the share of its claims and premises to hold out.
    """
    members: dict[str, list[int]] = defaultdict(list)
    for index, group in enumerate(groups):
        members[group].append(index)
    uncut = {group: own for group, own in members.items() if group not in cut}
    names = list(groups)
    sides = {
        index: side
        for group, side in _assign(uncut, rows, past, shares).items()
        for index in uncut[group]
    }
    for giant, share in sorted(cut.items()):
        own = members[giant]
        parted = cut_group(
            [rows[i] for i in own], [past[i] for i in own], share, shares.dev, shares.seed
        )
        for index, (side, name) in zip(own, parted, strict=True):
            sides[index], names[index] = side, name
    return [sides[i] for i in range(len(rows))], names


def _assign(
    members: Mapping[str, Sequence[int]],
    rows: Sequence[Row],
    past: Sequence[Past],
    shares: _Shares,
) -> dict[str, Side]:
    """Sides for whole groups: what was seen keeps its place, the newest small ones are held out.

    A hold-out of one large group would prove little. All sides are stratified: other groups go
    where their labels are missing most.

    Args:
        members: positions of each group's rows.
    """
    sides: dict[str, Side] = {}
    labels = {group: Counter(rows[i].label for i in own) for group, own in members.items()}
    total = sum(labels.values(), Counter[str]())
    targets = shares.targets
    counts: dict[Side, Counter[str]] = {side: Counter() for side in targets}
    known = {group: {past[i] for i in own} - {None} for group, own in members.items()}
    # Groups with a past first, so that the fresh ones fill what is missing, the newest first.
    for group in sorted(
        _newest_first(members, rows, shares.seed), key=lambda name: not known[name]
    ):
        mine = labels[group]
        allowed: tuple[Side, ...] = ("holdout", "dev", "train")
        if "learned" in known[group]:
            allowed = ("dev", "train")
        elif "held" in known[group]:
            allowed = ("holdout",)
        needs = {side: _need(counts[side], mine, total, targets[side]) for side in allowed}
        small = mine.total() <= _SMALL * shares.holdout * total.total()
        room = all(counts["holdout"][x] + mine[x] <= shares.holdout * total[x] for x in mine)
        newest = "holdout" in allowed and small and room
        sides[group] = "holdout" if newest else max(needs, key=needs.__getitem__)
        counts[sides[group]] += mine
    return sides


def _newest_first(
    members: Mapping[str, Sequence[int]], rows: Sequence[Row], seed: int
) -> list[str]:
    """Groups by when their first row came up; of those of one time the largest, then by lot."""
    order = sorted(members)
    random.Random(seed).shuffle(order)
    order.sort(key=lambda group: -len(members[group]))
    order.sort(key=lambda group: min(rows[i].at for i in members[group]), reverse=True)
    return order


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
