"""Memory: the slow base comes, goes and comes back; a bound is kept, and what can't fit is told."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from serving_world import PAIRS, World, alike, make_world
from tiny_models import make_tiny_model

from lyra_nli.errors import ModelError
from lyra_nli.ml_server.memory import MB
from lyra_nli.ml_server.nli import NLIService
from lyra_nli.models.judge import Judge


def run(world: World, work: Callable[[NLIService], Awaitable[None]]) -> None:
    async def all_of_it() -> None:
        service = NLIService(world.settings)
        try:
            await service.start()
            await work(service)
        finally:
            await service.close()

    asyncio.run(all_of_it())


def changed(world: World, **nli: Any) -> World:
    settings = world.settings
    more = settings.nli.model_copy(update=nli)
    return World(world.folder, settings.model_copy(update={"nli": more}))


def bound(service: NLIService, spare: int) -> None:
    """Let bases and versions take what they take now, and so many bytes more."""
    memory = service._bases._memory
    memory._limit = memory.used + spare


def fast(service: NLIService):
    slot = service._bases.get(service._nli.fast_model)
    assert slot is not None
    return slot


class TestIdle:
    def test_an_unused_slow_model_goes_and_comes_back(self, world: World) -> None:
        expected = Judge(world.slow).judge(PAIRS)

        async def work(service: NLIService) -> None:
            await service.judge(PAIRS, use_slow=True)
            slot = service._bases.get(world.settings.nli.slow_model)
            gone = weakref.ref(slot.base.model)
            del slot
            taken = service.status()["memory_bytes"]
            await service.follow()
            assert service.models_loaded["nli_slow"] is True, "not idle for so long"
            service._bases._usage[world.settings.nli.slow_model]._idle_since -= 61
            await service.follow()
            assert service.models_loaded == {"nli_fast": True, "nli_slow": False}
            status = service.status()
            assert status["slow"]["base_bytes"] is None
            assert status["slow"]["last_used"] is not None
            assert status["memory_bytes"] < taken
            assert gone() is None, "somebody still holds the weights"
            answer = await service.judge(PAIRS, use_slow=True)
            assert alike(answer.judgements, expected)
            await service.follow()
            assert service.models_loaded["nli_slow"] is True

        gc.collect()
        gc.disable()  # weights go by themselves, not when the collector happens to come
        try:
            run(changed(world, slow_idle_minutes=1.0), work)
        finally:
            gc.enable()

    def test_who_asks_keeps_it_and_is_answered_when_it_goes(self, world: World) -> None:
        expected = Judge(world.slow).judge(PAIRS)

        async def work(service: NLIService) -> None:
            await service.judge(PAIRS[:1], use_slow=True)
            busy, held = threading.Event(), threading.Event()
            service._judging._inference.submit(lambda: (held.set(), busy.wait(10)))
            held.wait(10)
            asking = asyncio.create_task(service.judge(PAIRS, use_slow=True))
            await asyncio.sleep(0.05)
            usage = service._bases._usage[world.settings.nli.slow_model]
            usage._idle_since -= 61
            await service.follow()
            assert service.models_loaded["nli_slow"] is True, "it is in use"
            service._bases.unload_slow()
            busy.set()
            assert alike((await asking).judgements, expected)
            assert service.models_loaded["nli_slow"] is False

        run(changed(world, slow_idle_minutes=1.0), work)

    def test_by_default_it_stays(self, world: World) -> None:
        async def work(service: NLIService) -> None:
            await service.judge(PAIRS, use_slow=True)
            service._bases._usage[world.settings.nli.slow_model]._idle_since -= 1e6
            await service.follow()
            assert service.models_loaded["nli_slow"] is True

        run(world, work)

    def test_one_model_that_is_both_never_goes(self, world: World) -> None:
        both = changed(world, slow_model=world.settings.nli.fast_model, slow_idle_minutes=1.0)

        async def work(service: NLIService) -> None:
            await service.judge(PAIRS, use_slow=True)
            service._bases._usage[both.settings.nli.slow_model]._idle_since -= 61
            await service.follow()
            assert service.models_loaded == {"nli_fast": True, "nli_slow": True}

        run(both, work)


class TestBound:
    def test_status_counts_what_is_there(self, world: World) -> None:
        world.publish()

        async def work(service: NLIService) -> None:
            await service.judge(PAIRS, adapters=["v1"] * 3)
            status = service.status()
            versions = sum(each["bytes"] for each in status["resident"])
            assert versions > 0
            assert status["memory_bytes"] == status["base_bytes"] + versions
            await service.judge(PAIRS, use_slow=True)
            more = service.status()
            assert more["memory_bytes"] == status["memory_bytes"] + more["slow"]["base_bytes"]
            assert more["device"] == "cpu"

        run(changed(world, device="cpu"), work)

    def test_a_slow_model_that_can_not_fit_is_refused_before_it_is_loaded(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def work(service: NLIService) -> None:
            bound(service, 1000)
            with monkeypatch.context() as patch:
                patch.setattr("lyra_nli.ml_server.bases.load_base", None)  # never called
                with pytest.raises(
                    ModelError, match=r"needs 0\.1 MB of memory, and 0\.0 of the"
                ) as error:
                    await service.judge(PAIRS, use_slow=True)
                assert "nli.memory_mb" in error.value.hint
            with pytest.raises(ModelError, match=r"nli\.memory_mb"):
                await service.judge(PAIRS, slow_below=1.0)
            assert len((await service.judge(PAIRS)).judgements) == 3
            bound(service, MB)
            assert len((await service.judge(PAIRS, use_slow=True)).judgements) == 3
            assert service._bases._memory.used <= service._bases._memory._limit

        run(changed(world, memory_mb=100), work)

    def test_a_fast_model_that_can_not_fit_ends_the_start(self, tmp_path: Path) -> None:
        world = make_world(tmp_path)
        service = NLIService(changed(world, memory_mb=1).settings)
        service._bases._memory._limit = 1000
        with pytest.raises(ModelError, match=r"nli\.memory_mb"):
            asyncio.run(service.start())

    def test_versions_go_for_the_slow_model_longest_unused_first(self, world: World) -> None:
        for seed in range(4):
            world.publish(seed=seed)
        world.activate("v1")

        async def work(service: NLIService) -> None:
            for name in ("v2", "v3", "v4", "v2"):
                await service.judge(PAIRS, adapters=[name] * 3)
            names = [served.name[-2:] for served in fast(service).all_resident()]
            assert names == ["v1", "v3", "v4", "v2"]
            [size] = {served.own_bytes for served in fast(service).all_resident()}
            await service.judge(PAIRS, use_slow=True)
            slow = service.status()["slow"]["base_bytes"]
            service._bases.unload_slow()
            bound(service, slow - size - 1)
            await service.judge(PAIRS, use_slow=True)
            names = [served.name[-2:] for served in fast(service).all_resident()]
            assert names == ["v1", "v2"]

        run(changed(world, memory_mb=100), work)

    def test_the_idle_slow_model_goes_for_a_version(self, world: World) -> None:
        world.publish()

        async def work(service: NLIService) -> None:
            await service.judge(PAIRS, use_slow=True)
            bound(service, 0)
            await service.judge(PAIRS, adapters=["v1"] * 3)
            assert service.models_loaded["nli_slow"] is False

        run(changed(world, memory_mb=100), work)

    def test_a_version_that_can_not_fit_is_refused_and_nothing_goes_for_it(
        self, world: World
    ) -> None:
        world.publish(seed=1), world.publish(seed=2)

        async def work(service: NLIService) -> None:
            await service.load("v1")
            bound(service, 10)
            with pytest.raises(ModelError, match="the version needs"):
                await service.judge(PAIRS, adapters=["v2"] * 3)
            with pytest.raises(ModelError, match="the version needs"):
                await service.load("v2")
            answer = await service.judge(PAIRS)
            assert {j.adapter for j in answer.judgements} == {"lora-lyra-v1"}

        run(changed(world, memory_mb=100), work)

    def test_a_version_on_its_way_in_with_its_base_is_counted(self, world: World) -> None:
        version = world.publish(world.slow)
        world.activate(version.name)

        async def work(service: NLIService) -> None:
            await service.judge(PAIRS, use_slow=True)
            slow = service.status()["slow"]["base_bytes"]
            service._bases.unload_slow()
            bound(service, slow + 10)
            answer = await service.judge(PAIRS, use_slow=True)
            assert {j.adapter for j in answer.judgements} == {"base"}
            assert "the version needs" in service.status()["follow_error"]
            assert service._bases._memory.used <= service._bases._memory._limit

        run(changed(world, memory_mb=100), work)

    def test_a_deberta_may_be_the_slow_one(self, world: World, tmp_path: Path) -> None:
        folder = str(make_tiny_model(tmp_path / "deberta", "deberta-v2", seed=7))
        other = changed(world, slow_model=folder, memory_mb=100)
        expected = Judge(other.slow).judge(PAIRS)

        async def work(service: NLIService) -> None:
            answer = await service.judge(PAIRS, use_slow=True)
            assert alike(answer.judgements, expected)

        run(other, work)
