"""Suspicion: which human labels look wrong beside all the others, see `opinions`.

A student of another fold is no judge of them: it errs on most corrections, rightly labelled or
not, for it has seen nothing of their page and claim.
"""

from __future__ import annotations

from collections.abc import Mapping

from lyra_nli.dataset.clean import Cleaned
from lyra_nli.storage.scores import DISPUTED
from lyra_nli.training.opinions import FEWEST, Opinions

SUSPECT = 0.5
"""From here on a label is rather wrong than right."""


def suspicions(opinions: Opinions) -> dict[str, float]:
    """Review id -> how likely its label is wrong, by all labels but itself, 0 to 1.

    Of one row nothing can be told, and of none.
    """
    if len(opinions.ids) < FEWEST:
        return {}
    return dict(zip(opinions.ids, opinions.suspicion().tolist(), strict=True))


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
