"""The cache of answers: exact repeats by the same weights, bounded, off by default."""

from __future__ import annotations

import asyncio

import pytest
import torch
from serving_world import PAIRS, World

from lyra_nli.ml_server.cache import Cache
from lyra_nli.ml_server.nli import NLIService
from lyra_nli.ml_server.slot import Slot
from lyra_nli.models.encoding import encode


def test_it_keeps_what_was_used_last(world: World) -> None:
    slot = Slot(world.fast)
    rows, served = encode(world.fast, PAIRS), slot.pristine
    cache = Cache(2)
    for number, row in enumerate(rows):
        cache.put([served], [row], torch.full((1, 3), float(number)))
        cache.get(served, rows[0])
    assert cache.get(served, rows[0]).tolist() == [0.0] * 3
    assert cache.get(served, rows[1]) is None
    assert cache.get(slot.build(world.publish()), rows[0]) is None


@pytest.mark.parametrize(("kept", "batches"), [(0, 3), (100, 1)])
def test_repeats_are_not_judged_again(world: World, kept: int, batches: int) -> None:
    server = world.settings.ml_server.model_copy(update={"cache_pairs": kept})
    service = NLIService(world.settings.model_copy(update={"ml_server": server}))

    async def work() -> None:
        await service.start()
        engine = (await service._slot(use_slow=False)).engine
        judged, whole = [], engine.logits
        engine.logits = lambda rows, variants: judged.append(rows) or whole(rows, variants)
        try:
            first = (await service.judge(PAIRS)).judgements
            assert (await service.judge(PAIRS)).judgements == first
            assert (await service.judge(PAIRS, adapters=["base"] * 3)).judgements == first
            assert len(judged) == batches
        finally:
            await service.close()

    asyncio.run(work())
