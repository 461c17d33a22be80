"""Judging one request: logits of the versions that were chosen for its pairs -> judgements."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from lyra_nli.errors import AdapterInvalidError, ModelError
from lyra_nli.labels import LABELS
from lyra_nli.ml_server.served import Served
from lyra_nli.ml_server.slot import Slot
from lyra_nli.models.judge import judgements, softmax
from lyra_nli.models.windows import Windows
from lyra_nli.records import Judgement


def judged(
    slot: Slot, chosen: Sequence[Served], windows: Windows, logits: torch.Tensor
) -> list[Judgement]:
    """Turn logits [rows, classes], in the model's own order, into judgements.

    Args:
        chosen: who judged each pair.
        windows: the rows that were judged.

    Raises:
        AdapterInvalidError, ModelError: a version, or the base, answers with NaN: it is refused
            rather than passed on.
    """
    probabilities = softmax(logits[:, list(slot.base.labels.order)].numpy())
    for owner, row in zip(windows.owners, probabilities, strict=True):
        served = chosen[owner]
        if not np.isfinite(row).all():
            kind = AdapterInvalidError if served.version else ModelError
            raise kind(f"{served.model_version} answers with NaN instead of probabilities")
    said = judgements(slot.base, windows, probabilities, [served.name for served in chosen])
    return [_calibrated(each, served) for each, served in zip(said, chosen, strict=True)]


def _calibrated(said: Judgement, served: Served) -> Judgement:
    if served.calibration is None:
        return said
    row = np.array([[said.probabilities[label] for label in LABELS]])
    [confidence] = served.calibration.calibrator.confidence(row)
    return replace(
        said, calibrated_confidence=float(confidence), calibration=served.calibration.number
    )
