from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import pytest
from serving_world import PAIRS, World, alike, make_world

from lyra_nli.errors import (
    AdapterError,
    AdapterInvalidError,
    AdapterNotFoundError,
    BusyError,
    InputError,
    LateError,
    ModelError,
    StorageError,
)
from lyra_nli.ml_server import bases
from lyra_nli.ml_server.nli import NLIService
from lyra_nli.models.base import Base, load_base
from lyra_nli.models.judge import Judge
from lyra_nli.records import Pair


def run(world: World, work: Callable[[NLIService], Awaitable[None]], *, start: bool = True) -> None:
    """Run a coroutine with a started service."""

    async def all_of_it() -> None:
        service = NLIService(world.settings)
        try:
            if start:
                await service.start()
            await work(service)
        finally:
            await service.close()

    asyncio.run(all_of_it())


def test_answers_are_the_models_own(world: World) -> None:
    expected = Judge(world.fast).judge(PAIRS)

    async def work(service: NLIService) -> None:
        answer = await service.judge(PAIRS)
        assert alike(answer.judgements, expected)
        assert (await service.judge([])).judgements == []

    run(world, work)


def test_before_the_start_it_says_that_it_is_loading(world: World) -> None:
    async def work(service: NLIService) -> None:
        assert not service.ready
        with pytest.raises(ModelError, match="still loading"):
            await service.judge(PAIRS)

    run(world, work, start=False)


def test_a_base_that_can_not_be_loaded_is_remembered(tmp_path: Path, template: World) -> None:
    world = make_world(tmp_path, like=template, fast_model=str(tmp_path / "nowhere"))

    async def work(service: NLIService) -> None:
        with pytest.raises(ModelError):
            await service.start()
        assert not service.ready
        with pytest.raises(ModelError, match="nowhere"):
            await service.judge(PAIRS)

    run(world, work, start=False)


def test_the_active_version_answers_from_the_start(world: World) -> None:
    world.publish()
    world.activate("v1")

    async def work(service: NLIService) -> None:
        answer = await service.judge(PAIRS)
        assert {j.adapter for j in answer.judgements} == {"lora-lyra-v1"}
        base = await service.judge(PAIRS, adapters=["base"] * 3)
        assert {j.adapter for j in base.judgements} == {"base"}
        assert not {*base.model_versions} & {*answer.model_versions}

    run(world, work)


def test_versions_are_chosen_by_name_and_become_resident(world: World) -> None:
    world.publish(seed=1), world.publish(seed=2)

    async def work(service: NLIService) -> None:
        for name in ("v1", "lora-lyra-v2"):
            answer = await service.judge(PAIRS, adapters=[name] * 3)
            assert answer.judgements[0].adapter.endswith(name[-2:])
        assert [r["version"] for r in service.status()["resident"]] == [
            "lora-lyra-v1",
            "lora-lyra-v2",
        ]
        assert (await service.judge(PAIRS)).judgements[0].adapter == "base"
        with pytest.raises(AdapterNotFoundError) as error:
            await service.judge(PAIRS, adapters=["v9"] * 3)
        assert "lora-lyra-v1, lora-lyra-v2" in error.value.hint

    run(world, work)


def test_the_slow_base_loads_at_its_first_use_with_its_own_version(world: World) -> None:
    world.publish(world.slow)
    world.activate("v1")

    async def work(service: NLIService) -> None:
        assert service.models_loaded == {"nli_fast": True, "nli_slow": False}
        slow = await service.judge(PAIRS, use_slow=True)
        assert service.models_loaded == {"nli_fast": True, "nli_slow": True}
        assert slow.judgements[0].adapter == "lora-lyra-v1"
        assert all(v.startswith(world.settings.nli.slow_model) for v in slow.model_versions)
        assert (await service.judge(PAIRS)).judgements[0].adapter == "base"
        with pytest.raises(AdapterError, match="is a version of"):
            await service.judge(PAIRS, adapters=["v1"] * 3)

    run(world, work)


def test_one_model_may_be_both(world: World, tmp_path: Path) -> None:
    nli = world.settings.nli.model_copy(update={"slow_model": world.settings.nli.fast_model})
    both = World(tmp_path, world.settings.model_copy(update={"nli": nli}))
    both.publish()

    async def work(service: NLIService) -> None:
        assert service.models_loaded == {"nli_fast": True, "nli_slow": True}
        await service.load("v1")
        answer = await service.judge(PAIRS, use_slow=True)
        assert answer.judgements[0].adapter == "lora-lyra-v1"
        assert (await service.unload()).message == "lora-lyra-v1 unloaded"

    run(both, work)


def test_a_request_finishes_on_the_version_it_started_with(world: World) -> None:
    world.publish()

    async def work(service: NLIService) -> None:
        busy, held = threading.Event(), threading.Event()
        service._judging._inference.submit(lambda: (held.set(), busy.wait(10)))
        held.wait(10)
        before = asyncio.create_task(service.judge(PAIRS))
        await asyncio.sleep(0)  # it has chosen the base, and waits for the inference thread
        await service.load("v1")  # not held up by it
        after = asyncio.create_task(service.judge(PAIRS))
        await asyncio.sleep(0)
        assert not before.done()
        busy.set()
        assert (await before).judgements[0].adapter == "base"
        assert (await after).judgements[0].adapter == "lora-lyra-v1"

    run(world, work)


def test_a_full_queue_refuses_no_pair_of_a_shadow(world: World) -> None:
    async def work(service: NLIService) -> None:
        slot = service._bases.get(world.settings.nli.fast_model)
        ask = partial(service._judging.judged, slot, [slot.current], PAIRS[:1])
        service._judging._batcher._expected = 10**6
        with pytest.raises(BusyError):
            await ask()
        [judgement], _ = await ask(background=True)
        assert judgement.adapter == "base"

    run(world, work)


def test_versions_change_while_the_slow_base_is_read(world: World, monkeypatch) -> None:
    """It may come from the Hub for minutes; a rollback must not wait for that."""
    world.publish()
    reading, go_on, reads = threading.Event(), threading.Event(), []

    def slowly(name: str, **options: object) -> Base:
        if name == world.settings.nli.slow_model:
            reads.append(name)
            reading.set()
            assert go_on.wait(10)
        return load_base(name, **options)

    monkeypatch.setattr(bases, "load_base", slowly)

    async def work(service: NLIService) -> None:
        first, second = (asyncio.create_task(service.judge(PAIRS, use_slow=True)) for _ in "ab")
        await asyncio.to_thread(reading.wait, 10)
        with pytest.raises(LateError):
            await service.judge(PAIRS, use_slow=True, deadline_seconds=0.05)
        await service.load("v1")
        assert (await service.judge(PAIRS)).judgements[0].adapter == "lora-lyra-v1"
        await service.unload()
        assert not first.done()
        go_on.set()
        assert alike((await first).judgements, (await second).judgements)
        assert len(reads) == 1
        assert service.models_loaded["nli_slow"] is True

    run(world, work)


def test_load_activates_for_all_and_unload_restores_the_base(world: World) -> None:
    version = world.publish()

    async def work(service: NLIService) -> None:
        before = await service.judge(PAIRS)
        change = await service.load(str(version.path))
        assert change.adapter_path == str(version.path)
        [loaded] = service.status()["resident"]
        again = await service.load("v1")
        assert again.message == "lora-lyra-v1 is still active, it was in memory already"
        assert service.status()["resident"] == [loaded]  # nothing is built twice
        (version.path / "adapter_model.safetensors").rename(world.folder / "gone")
        with pytest.raises(AdapterInvalidError, match="adapter_model"):
            await service.load("v1")  # and its files are looked at all the same
        (world.folder / "gone").rename(version.path / "adapter_model.safetensors")
        assert (await service.unload()).message == "lora-lyra-v1 unloaded"
        assert (await service.unload()).message == "no adapter was loaded"
        assert (await service.judge(PAIRS)) == before

    run(world, work)
    with world.registry() as registry:
        events = registry.events()
    assert [(e.action, e.who, e.reason) for e in events] == [
        ("activate", "http", "POST /nli/adapter/load"),
        ("deactivate", "http", "POST /nli/adapter/unload"),
    ]


def test_load_of_nothing_takes_the_settings_then_the_active_version(world: World) -> None:
    world.publish(seed=1), world.publish(seed=2)

    async def work(service: NLIService) -> None:
        with pytest.raises(AdapterNotFoundError) as error:
            await service.load()
        assert "lora-lyra-v1, lora-lyra-v2" in error.value.hint
        world.activate("v1")
        assert "lora-lyra-v1 is still active" in (await service.load()).message

    run(world, work)
    nli = world.settings.nli.model_copy(
        update={"adapter_path": str(world.adapters / "lora-lyra-v2")}
    )
    named = World(world.folder, world.settings.model_copy(update={"nli": nli}))

    async def again(service: NLIService) -> None:
        assert "lora-lyra-v2 is now active" in (await service.load()).message

    run(named, again)


def test_a_broken_version_never_becomes_active(world: World) -> None:
    def damage(tensors) -> None:
        next(iter(tensors.values())).fill_(float("nan"))

    world.publish(damage=damage)

    async def work(service: NLIService) -> None:
        with pytest.raises(AdapterInvalidError, match="NaN"):
            await service.load("v1")
        assert service.status()["adapter_loaded"] is False
        assert (await service.judge(PAIRS)).judgements[0].adapter == "base"

    run(world, work)
    with world.registry() as registry:
        assert registry.active(world.settings.nli.fast_model) is None


def test_a_rejected_version_needs_a_reason_of_a_person(world: World) -> None:
    world.publish(status="rejected")

    async def work(service: NLIService) -> None:
        with pytest.raises(AdapterError, match="rejected"):
            await service.load("v1")
        assert service.status()["adapter_loaded"] is False
        await service.load("v1", reason="for a comparison")
        assert service.status()["version"] == "lora-lyra-v1"

    run(world, work)


def test_a_removed_version_is_gone(world: World) -> None:
    world.publish(seed=1), world.publish(seed=2)
    with world.registry() as registry:
        registry.remove("v1", who="test")

    async def work(service: NLIService) -> None:
        for ask in (service.load("v1"), service.judge(PAIRS, adapters=["v1"] * 3)):
            with pytest.raises(AdapterNotFoundError, match="removed"):
                await ask

    run(world, work)


@pytest.mark.parametrize(
    "path", ["../elsewhere", "{folder}/outside", "/", "adapters/../..", ".", ".."]
)
def test_only_the_registrys_folder_is_read(world: World, path: str) -> None:
    version = world.publish()
    outside = world.folder / "outside"
    version.path.rename(outside)

    async def work(service: NLIService) -> None:
        with pytest.raises(AdapterError):
            await service.load(path.format(folder=world.folder))

    run(world, work)


def test_a_link_out_of_the_folder_is_refused(world: World) -> None:
    version = world.publish()
    outside = version.path.rename(world.folder / "outside")
    version.path.symlink_to(outside)

    async def work(service: NLIService) -> None:
        for reference in (str(version.path), "v1"):
            with pytest.raises(AdapterInvalidError):
                await service.load(reference)

    run(world, work)


@pytest.mark.parametrize("name", ["", " ", "a\x00b", "nothing", "x" * 4000, "\ud800", "a/\ud800"])
def test_odd_names_are_errors_of_ours(world: World, name: str) -> None:
    world.publish()

    async def work(service: NLIService) -> None:
        with pytest.raises((AdapterError, InputError)):
            await service.load(name)

    run(world, work)


def test_an_adapter_of_a_third_base_is_refused(world: World) -> None:
    world.publish(base_model="someone/else")

    async def work(service: NLIService) -> None:
        with pytest.raises(AdapterInvalidError) as error:
            await service.load("v1")
        assert "someone/else" in str(error.value)
        assert world.settings.nli.fast_model in error.value.hint

    run(world, work)


def test_without_a_database_the_base_serves(tmp_path: Path, template: World) -> None:
    world = make_world(tmp_path, like=template, database=False)

    async def work(service: NLIService) -> None:
        assert (await service.judge(PAIRS)).judgements[0].adapter == "base"
        status = service.status()
        assert status["database_found"] is False
        assert "there is no database" in status["follow_error"]
        assert await service.versions() == []
        assert (await service.unload()).message == "no adapter was loaded"
        with pytest.raises(StorageError) as error:
            await service.load(str(world.adapters / "lora-lyra-v1"))
        assert "db init" in error.value.hint
        with pytest.raises(AdapterNotFoundError, match="no database"):
            await service.judge(PAIRS, adapters=["v1"] * 3)

    run(world, work)


def test_all_unfit_pairs_are_named(world: World) -> None:
    pairs = [PAIRS[0], Pair("", "x"), Pair("a premise", " "), Pair("p", "long " * 2000)]

    async def work(service: NLIService) -> None:
        with pytest.raises(InputError) as error:
            await service.judge(pairs)
        assert len(error.value.problems) >= 2

    run(world, work)


def test_a_model_that_answers_nan_is_an_error(world: World) -> None:
    async def work(service: NLIService) -> None:
        slot = service._bases.get(world.settings.nli.fast_model)
        assert slot is not None
        slot.base.model.classifier.bias.fill_(float("nan"))  # type: ignore[union-attr, operator]
        with pytest.raises(ModelError, match="NaN"):
            await service.judge(PAIRS)

    run(world, work)
