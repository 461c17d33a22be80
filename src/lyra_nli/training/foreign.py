"""Foreign pairs: a premise beside a hypothesis of another group, which it says nothing about.

Nobody has to review them, and they teach what corrections show too little of: that most texts
neither support nor refute a claim (in-batch negatives: Karpukhin et al. 2020, Dense passage
retrieval, 3.2). What they are worth is measured in docs/learning.md.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence
from dataclasses import replace

from lyra_nli.records import Example, Pair

_WEIGHT = 0.5
"""Not every foreign premise is silent about a claim."""


def foreign_pairs(examples: Sequence[Example], share: float, seed: int) -> list[Example]:
    """Draw `share` times as many foreign pairs as there are reviewed rows.

    Args:
        examples: replayed rows are left alone.

    Returns:
        Neutral rows in the premise's group, each once; none where all rows are of one group, and
        none that people have judged: they may have found that it is not neutral.
    """
    reviewed = [example for example in examples if example.source != "replay"]
    judged = {example.pair.key for example in reviewed}
    rng = random.Random(seed)
    found: dict[str, Example] = {}
    for _ in range(round(share * len(reviewed))):
        one, other = rng.choice(reviewed), rng.choice(reviewed)
        if one.group != other.group:
            pair = Pair(one.pair.premise, other.pair.hypothesis)
            if pair.key in judged:
                continue
            key = f"foreign:{one.id}:{other.id}"
            found[key] = replace(
                one, id=key, pair=pair, label="neutral", source="foreign", weight=_WEIGHT
            )
    return list(found.values())


def without_texts(rows: Sequence[Example], held: Collection[Example]) -> list[int]:
    """Positions of the foreign pairs made of no text of the held rows."""
    texts = {text for e in held for text in (e.pair.premise, e.pair.hypothesis)}
    return [
        position
        for position, row in enumerate(rows)
        if row.source == "foreign" and not texts & {row.pair.premise, row.pair.hypothesis}
    ]
