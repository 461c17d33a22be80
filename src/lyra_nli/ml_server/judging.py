"""Judging: pairs and the versions that were chosen for them -> judgements.

Two threads do the work: *texts* turns texts into tokens, *inference* runs every forward pass, of
batches across requests (torch itself uses all cores).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace

import numpy as np
import torch

from lyra_nli.errors import AdapterInvalidError, ModelError
from lyra_nli.labels import LABELS
from lyra_nli.ml_server.batching import Batcher
from lyra_nli.ml_server.cache import Cache
from lyra_nli.ml_server.served import Served
from lyra_nli.ml_server.slot import Slot
from lyra_nli.ml_server.threads import on, worker
from lyra_nli.models.judge import judgements, softmax
from lyra_nli.models.windows import Windows, cut
from lyra_nli.records import Judgement, Pair
from lyra_nli.settings import ServerSettings


class Judging:
    """Asks models: what was asked before is remembered, the rest judged in batches."""

    def __init__(self, settings: ServerSettings) -> None:
        self._inference = worker("nli-inference", settings.threads or torch.get_num_threads())
        self._texts = worker("nli-texts")
        self._batcher = Batcher(self._inference, settings)
        self._most_rows = settings.queue_pairs
        self._cache = Cache(settings.cache_pairs)
        self._repeats = settings.cache_pairs > 0  # those need no room at the model

    async def close(self) -> None:
        """Finish what runs, drop what waits, and end the threads."""
        self._batcher.close()
        for executor in (self._texts, self._inference):
            await asyncio.to_thread(executor.shutdown, wait=True, cancel_futures=True)

    async def judged(
        self,
        slot: Slot,
        chosen: Sequence[Served],
        pairs: Sequence[Pair],
        overlap: int | None = None,
        *,
        background: bool = False,
    ) -> tuple[list[Judgement], float]:
        """Judge pairs; tells too when the turn of the first row came (`time.monotonic`).

        Args:
            chosen: who judges each pair.
            overlap: of the windows that long premises are judged by, tokens; None: they are cut.
            background: between the batches of those who wait.

        Raises:
            InputError: more windows than are judged at once, or pairs that can't be judged.
            BusyError: too many pairs wait already.
            AdapterInvalidError, ModelError: a version, or the base, answers with NaN.
        """
        with ExitStack() as counted:
            if not background:  # refused before texts are read for nothing
                counted.enter_context(self._batcher.expecting(len(pairs), known=self._repeats))
            windows = await on(self._texts, cut, slot.base, pairs, overlap, self._most_rows)
        rows, judges = windows.rows, [chosen[pair] for pair in windows.owners]
        known = {
            i: logits
            for i, (served, row) in enumerate(zip(judges, rows, strict=True))
            if (logits := self._cache.get(served, row)) is not None
        }
        asked = [i for i in range(len(rows)) if i not in known]
        began = time.monotonic()
        if asked:
            own, versions = [rows[i] for i in asked], [judges[i] for i in asked]
            variants = [served.variant for served in versions]
            said, began = await self._batcher.logits(
                slot.engine, own, variants, background=background
            )
            self._cache.put(versions, own, said)
            known |= zip(asked, said, strict=True)
        logits = torch.stack([known[i] for i in range(len(rows))])
        return _judgements(slot, chosen, windows, logits), began


def _judgements(
    slot: Slot, chosen: Sequence[Served], windows: Windows, logits: torch.Tensor
) -> list[Judgement]:
    """Turn logits [rows, classes], in the model's own order, into judgements.

    NaN is refused rather than passed on.
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
