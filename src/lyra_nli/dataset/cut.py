"""Cutting: a group that ties most rows together is parted along its claims and its premises.

Hold-out rows have a held-out claim and a held-out premise; rows that have one of the two are set
aside.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Literal

from lyra_nli.dataset.groups import Row, Side, components

Past = Literal["learned", "held"] | None
"""What the active version did with a row."""

_CLAIM_KINDS = ("claim", "hypothesis")
_PREMISE_KINDS = ("page", "fragment", "premise")
"""Anchors of any other kind (``group``) tie claims and premises alike."""


def cut_group(
    rows: Sequence[Row], past: Sequence[Past], share: float, dev: float, seed: int
) -> list[tuple[Side, str]]:
    """Cut one group: hold-out rows have a held-out claim and a held-out premise.

    Returns:
        (side, group) of every row.
    """
    claims, premises = components(rows, _PREMISE_KINDS), components(rows, _CLAIM_KINDS)
    times = [row.at for row in rows]
    held_claims = _held(claims, times, past, share, seed)
    held_premises = _held(premises, times, past, share, seed + 1)
    dev_claims = _sample([c for c in claims if c not in held_claims], dev, seed + 2)
    result: list[tuple[Side, str]] = []
    for claim, premise, was in zip(claims, premises, past, strict=True):
        held = (claim in held_claims) + (premise in held_premises)
        side: Side = "dev" if claim in dev_claims else "train"
        if held:
            side = "holdout" if held == 2 and was != "learned" else "aside"
        result.append((side, claim))
    return result


def _held(
    names: Sequence[str], times: Sequence[str], past: Sequence[Past], share: float, seed: int
) -> set[str]:
    """Names for the hold-out: all that stood there before, then the newest, then learned ones."""
    since: dict[str, str] = {}
    for name, at in zip(names, times, strict=True):
        since[name] = min(since.get(name, at), at)
    learned = {name for name, was in zip(names, past, strict=True) if was == "learned"}
    kept = {name for name, was in zip(names, past, strict=True) if was == "held"} - learned
    return _sample(names, share, seed, first=kept, last=learned, since=since)


def _sample(
    names: Sequence[str],
    share: float,
    seed: int,
    first: Collection[str] = (),
    last: Collection[str] = (),
    since: Mapping[str, str] | None = None,
) -> set[str]:
    """Names, drawn at random, that together hold about this share of the rows.

    Args:
        first: taken in any case.
        last: taken only when the others do not suffice.
        since: when each name came up; the newest are taken, and only the rest is chance.
    """
    sizes = Counter(names)
    order = sorted(sizes)
    random.Random(seed).shuffle(order)
    order.sort(key=lambda name: (since or {}).get(name, ""), reverse=True)
    order.sort(key=lambda name: (name not in first, name in last))
    chosen: set[str] = set()
    held = 0
    for name in order:
        if name in first or held + sizes[name] / 2 <= share * len(names):
            chosen.add(name)
            held += sizes[name]
    return chosen
