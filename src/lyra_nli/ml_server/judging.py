"""Judging the pairs of one request, each by the version that was chosen for it."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from lyra_nli.errors import AdapterInvalidError, InputError, ModelError
from lyra_nli.labels import LABELS
from lyra_nli.ml_server.slot import Calibration, Served
from lyra_nli.models.encoding import encode
from lyra_nli.records import Judgement, Pair


def judge_by(chosen: Sequence[Served], pairs: Sequence[Pair]) -> list[Judgement]:
    """Judge in as many passes as there are versions; answers in the order of the pairs.

    Args:
        chosen: who judges each pair; all of one base.

    Raises:
        InputError: listing every pair that can't be judged, by position.
        AdapterInvalidError, ModelError: a version, or the base, answers with NaN.
    """
    positions: dict[Served, list[int]] = defaultdict(list)
    for position, served in enumerate(chosen):
        positions[served].append(position)
    answers: dict[int, Judgement] = {}
    try:
        for served, own in positions.items():
            answers.update(zip(own, _pass(served, [pairs[i] for i in own]), strict=True))
    except InputError:
        # A pass counts its own pairs from 0 and knows nothing of the next one's: name them all.
        encode(chosen[0].judge.base, pairs)
        raise
    return [answers[position] for position in range(len(pairs))]


def _pass(served: Served, pairs: Sequence[Pair]) -> list[Judgement]:
    """Judge, and refuse to pass on what is not a number."""
    judgements = served.judge.judge(pairs)
    if not all(math.isfinite(judgement.confidence) for judgement in judgements):
        kind = AdapterInvalidError if served.version else ModelError
        raise kind(f"{served.model_version} answers with NaN instead of probabilities")
    return _calibrated(judgements, served.calibration)


def _calibrated(judgements: list[Judgement], calibration: Calibration | None) -> list[Judgement]:
    if calibration is None:
        return judgements
    rows = [[judgement.probabilities[label] for label in LABELS] for judgement in judgements]
    confidence = calibration.calibrator.confidence(np.array(rows, dtype=np.float64))
    return [
        replace(judgement, calibrated_confidence=float(c), calibration=calibration.number)
        for judgement, c in zip(judgements, confidence, strict=True)
    ]
