"""Suspicion: which human labels look wrong beside all the others, see `opinions`.

A student of another fold is no judge of them: it errs on most corrections, rightly labelled or
not, for it has seen nothing of their page and claim.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lyra_nli.dataset.clean import Cleaned
from lyra_nli.models.base import Base
from lyra_nli.records import Example
from lyra_nli.storage.scores import DISPUTED
from lyra_nli.training.lessons import REVIEWED
from lyra_nli.training.machine import compute_dtype
from lyra_nli.training.opinions import FEWEST, read_opinions

SUSPECT = 0.5
"""From here on a label is rather wrong than right."""


def suspicions(base: Base, examples: Sequence[Example]) -> dict[str, float]:
    """Review id -> how likely its label is wrong, by all labels but itself, 0 to 1.

    Of one row nothing can be told, and of none.

    Raises:
        InputError: listing every pair that can't be read.
    """
    reviewed = [example for example in examples if example.source in REVIEWED]
    if len(reviewed) < FEWEST:
        return {}
    found = read_opinions(base, reviewed, compute_dtype("auto")).suspicion()
    return dict(zip((example.id for example in reviewed), found.tolist(), strict=True))


def suspects(suspicion: Mapping[str, float], cleaned: Cleaned) -> dict[str, float]:
    """Review id -> how much its label is worth a second look, where it is.

    What people have said twice is settled. What they have said differently comes before all.
    """
    doubtful = {
        row: value
        for row, value in suspicion.items()
        if value > SUSPECT and row not in cleaned.confirmed
    }
    return doubtful | dict.fromkeys(cleaned.disputed, DISPUTED)
