"""Judging one request: logits of the versions that were chosen for its pairs -> judgements."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from lyra_nli.errors import AdapterInvalidError, ModelError
from lyra_nli.labels import LABELS
from lyra_nli.ml_server.slot import Served, Slot
from lyra_nli.models.encoding import EncodedPair
from lyra_nli.models.judge import judgement, softmax
from lyra_nli.records import Judgement


def judged(
    slot: Slot, chosen: Sequence[Served], rows: Sequence[EncodedPair], logits: torch.Tensor
) -> list[Judgement]:
    """Turn logits [rows, classes], in the model's own order, into judgements.

    Args:
        chosen: who judged each row.

    Raises:
        AdapterInvalidError, ModelError: a version, or the base, answers with NaN: it is refused
            rather than passed on.
    """
    probabilities = softmax(logits[:, list(slot.base.labels.order)].numpy())
    for served, row in zip(chosen, probabilities, strict=True):
        if not np.isfinite(row).all():
            kind = AdapterInvalidError if served.version else ModelError
            raise kind(f"{served.model_version} answers with NaN instead of probabilities")
    return [
        _calibrated(judgement(slot.base, p, served.name, truncated=row.truncated), served)
        for p, row, served in zip(probabilities, rows, chosen, strict=True)
    ]


def _calibrated(said: Judgement, served: Served) -> Judgement:
    if served.calibration is None:
        return said
    row = np.array([[said.probabilities[label] for label in LABELS]])
    [confidence] = served.calibration.calibrator.confidence(row)
    return replace(
        said, calibrated_confidence=float(confidence), calibration=served.calibration.number
    )
