"""A version and its calibration are served together, and change together."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import numpy as np
import pytest
from fastapi import FastAPI
from serving_world import PAIRS, World, body
from sqlalchemy import delete, event, insert, update

from lyra_nli.ml_server.calibrations import Calibrations
from lyra_nli.ml_server.follow import Follower
from lyra_nli.ml_server.nli import NLIService
from lyra_nli.ml_server.routes import create_router
from lyra_nli.ml_server.slot import Slot
from lyra_nli.ml_server.source import RegistrySource
from lyra_nli.models.judge import Judge
from lyra_nli.storage.engine import now, open_database, write
from lyra_nli.storage.tables import nli_calibrations


@pytest.fixture
def slot(world: World) -> Slot:
    return Slot(world.fast)


@pytest.fixture
def follower(world: World) -> Follower:
    return Follower(RegistrySource(world.settings), world.settings.nli)


def calibrate(world: World, number: int, source: str, temperature: object = 2.0) -> None:
    """Make a temperature the current calibration of a version."""
    table = nli_calibrations
    base = world.settings.nli.fast_model
    engine = open_database(world.database)
    with write(engine) as connection:
        own = (table.c.base_model == base, table.c.source == source)
        connection.execute(update(table).where(*own).values(is_current=0))
        connection.execute(
            insert(table).values(
                id=f"cal_{number}",
                version=number,
                base_model=base,
                source=source,
                method="temperature",
                params_json=json.dumps({"temperature": temperature}),
                samples=100,
                created_at=now(),
                is_current=1,
            )
        )
    engine.dispose()


def forget(world: World) -> None:
    engine = open_database(world.database)
    with write(engine) as connection:
        connection.execute(delete(nli_calibrations))
    engine.dispose()


def number(slot: Slot) -> int | None:
    calibration = slot.current.calibration
    return calibration.number if calibration else None


def test_the_base_gets_its_calibration_and_loses_it(
    world: World, slot: Slot, follower: Follower
) -> None:
    seen = []
    for its_number in (1, 2):
        calibrate(world, its_number, "base")
        follower.look([slot])
        seen.append(number(slot))
    forget(world)
    follower.look([slot])

    assert [*seen, number(slot)] == [1, 2, None]
    assert slot.current is slot.pristine


def test_a_new_calibration_comes_with_the_same_weights_and_leaves_old_answers_alone(
    world: World, slot: Slot, follower: Follower
) -> None:
    world.publish()
    world.activate("v1")
    follower.look([slot])
    before = slot.current
    calibrate(world, 1, "lora-lyra-v1")
    follower.look([slot])
    after = slot.current
    follower.look([slot])

    assert before.calibration is None
    assert after.calibration is not None
    assert after.variant is before.variant
    assert slot.current is after, "nothing changed, nothing is made"
    assert slot.all_resident() == [after]


def test_a_version_is_flipped_to_with_its_own_calibration(
    world: World, slot: Slot, follower: Follower, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.publish(seed=1), world.publish(seed=2)
    for i, source in enumerate(("base", "lora-lyra-v1", "lora-lyra-v2")):
        calibrate(world, i, source)
    flipped: list[tuple[str, int | None]] = []
    flip = Slot.flip

    def noted(slot: Slot, served: Any) -> None:
        flip(slot, served)
        flipped.append((slot.current.name, number(slot)))

    monkeypatch.setattr(Slot, "flip", noted)
    for name in ("v1", "v2", "v1"):
        world.activate(name)
        follower.look([slot])

    assert flipped == [("lora-lyra-v1", 1), ("lora-lyra-v2", 2), ("lora-lyra-v1", 1)]
    assert slot.pristine.calibration is not None
    assert slot.pristine.calibration.number == 0


def test_versions_that_are_only_resident_are_kept_calibrated_too(
    world: World, slot: Slot, follower: Follower
) -> None:
    version = world.publish()
    slot.keep(slot.build(version))
    calibrate(world, 5, "lora-lyra-v1")
    follower.look([slot])

    resident = slot.resident(version)
    assert resident is not None
    assert resident.calibration is not None
    assert slot.current.calibration is None


def test_a_calibration_that_can_not_be_read_is_told_and_the_last_one_stays(
    world: World, slot: Slot, follower: Follower
) -> None:
    world.publish()
    calibrate(world, 1, "base")
    follower.look([slot])
    calibrate(world, 2, "base", "warm")
    calibrate(world, 3, "lora-lyra-v1", "cold")
    world.activate("v1")
    follower.look([slot])

    assert follower.error is not None
    assert "lora-lyra-v1 keeps the calibration that it had: calibration 3" in follower.error
    assert "base keeps" in follower.error
    assert (slot.current.name, number(slot)) == ("lora-lyra-v1", None), "served all the same"
    assert slot.pristine.calibration is not None
    assert slot.pristine.calibration.number == 1

    calibrate(world, 4, "base")
    calibrate(world, 5, "lora-lyra-v1")
    follower.look([slot])
    assert follower.error is None
    assert number(slot) == 5


def serve(
    world: World, work: Callable[[httpx.AsyncClient, NLIService], Awaitable[None]], **options: Any
) -> None:
    async def all_of_it() -> None:
        service = NLIService(world.settings)
        app = FastAPI()
        app.include_router(create_router(service, **options))
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
            try:
                await service.start()
                await work(client, service)
            finally:
                await service.close()

    asyncio.run(all_of_it())


async def ask(client: httpx.AsyncClient, **more: Any) -> list[dict[str, Any]]:
    results: list[dict[str, Any]] = (await client.post("/nli", json=body(PAIRS, **more))).json()[
        "results"
    ]
    return results


def softened(world: World, temperature: float) -> list[float]:
    """The confidence at a temperature, from the logits themselves."""
    logits = Judge(world.fast).logits(PAIRS).astype(np.float64) / temperature
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return list((powers / powers.sum(axis=1, keepdims=True)).max(axis=1))


def test_answers_carry_both_confidences(world: World) -> None:
    calibrate(world, 7, "base", 2.0)
    raw = [judgement.confidence for judgement in Judge(world.fast).judge(PAIRS)]

    async def work(client: httpx.AsyncClient, _: NLIService) -> None:
        results = await ask(client)
        assert [result["confidence"] for result in results] == pytest.approx(raw, abs=1e-5)
        assert [result["calibrated_confidence"] for result in results] == pytest.approx(
            softened(world, 2.0), abs=1e-5
        )
        assert {result["calibration"] for result in results} == {7}
        assert {result["raw_confidence"] for result in results} == {None}
        for result in results:
            assert result["probabilities"][result["label"]] == result["confidence"]

    serve(world, work)


def test_the_old_field_can_hold_the_calibrated_confidence(world: World) -> None:
    world.publish()
    calibrate(world, 7, "base", 2.0)
    raw = [judgement.confidence for judgement in Judge(world.fast).judge(PAIRS)]

    async def work(client: httpx.AsyncClient, _: NLIService) -> None:
        results = await ask(client)
        assert [result["raw_confidence"] for result in results] == pytest.approx(raw, abs=1e-5)
        for result in results:
            assert result["confidence"] == result["calibrated_confidence"]
        for result in await ask(client, adapter="v1"):  # has none: as the model says it
            assert result["confidence"] == max(result["probabilities"].values())
            assert result["raw_confidence"] is None
            assert result["calibrated_confidence"] is None

    serve(world, work, calibrated=True)


def test_loading_and_unloading_change_the_calibration_with_the_weights(world: World) -> None:
    world.publish()
    calibrate(world, 1, "base")
    calibrate(world, 2, "lora-lyra-v1")

    async def work(client: httpx.AsyncClient, service: NLIService) -> None:
        assert {r["calibration"] for r in await ask(client)} == {1}
        assert {r["calibration"] for r in await ask(client, adapter="v1")} == {2}
        await service.load("v1")
        assert {r["calibration"] for r in await ask(client)} == {2}
        assert service.status()["calibration"] == 2
        await service.unload()
        assert {r["calibration"] for r in await ask(client)} == {1}

    serve(world, work)


def test_no_answer_ever_mixes_a_version_with_anothers_calibration(world: World) -> None:
    world.publish(seed=1), world.publish(seed=2)
    numbers = {"base": 1, "lora-lyra-v1": 2, "lora-lyra-v2": 3}
    for source, its_number in numbers.items():
        calibrate(world, its_number, source)

    async def work(client: httpx.AsyncClient, service: NLIService) -> None:
        seen: set[tuple[str, int]] = set()
        stop = asyncio.Event()

        async def ask_on() -> None:
            while not stop.is_set():
                seen.update((r["adapter"], r["calibration"]) for r in await ask(client))

        asking = [asyncio.create_task(ask_on()) for _ in range(3)]
        for _ in range(4):
            for name in ("v1", "v2"):
                await service.load(name)
                await asyncio.sleep(0.01)
            await service.unload()
            await asyncio.sleep(0.01)
        stop.set()
        await asyncio.gather(*asking)
        assert seen == set(numbers.items())

    serve(world, work)


def test_a_rolled_back_calibration_is_served_without_a_restart(world: World) -> None:
    calibrate(world, 1, "base")

    async def work(client: httpx.AsyncClient, service: NLIService) -> None:
        assert {r["calibration"] for r in await ask(client)} == {1}
        forget(world)
        await service.follow()
        assert {r["calibration"] for r in await ask(client)} == {None}
        assert {r["calibrated_confidence"] for r in await ask(client)} == {None}

    serve(world, work)


def test_probabilities_stay_the_models_own(world: World) -> None:
    calibrate(world, 1, "base", 5.0)
    expected = Judge(world.fast).judge(PAIRS)

    async def work(client: httpx.AsyncClient, _: NLIService) -> None:
        for result, judgement in zip(await ask(client), expected, strict=True):
            assert result["probabilities"] == pytest.approx(judgement.probabilities, abs=1e-5)

    serve(world, work, calibrated=True)


def test_a_look_asks_for_one_table_only(world: World) -> None:
    asked: list[str] = []
    engine = open_database(world.database, read_only=True)
    event.listen(engine, "before_cursor_execute", lambda *arguments: asked.append(arguments[2]))
    Calibrations(engine)
    engine.dispose()
    assert [sql for sql in asked if "table_" in sql]
    assert all("nli_calibrations" in sql for sql in asked if "table_" in sql), asked


def test_a_routed_version_has_its_own_calibration(world: World, slot: Slot) -> None:
    world.publish()
    nli = world.settings.nli.model_copy(update={"routes": {"example.org": "v1"}})
    follower = Follower(RegistrySource(world.settings), nli)
    for its_number in (3, 4):
        calibrate(world, its_number, "lora-lyra-v1")
        calibrate(world, its_number + 10, "base")
        follower.look([slot])
        numbers = [
            served.calibration and served.calibration.number
            for served in slot.choose(["https://example.org/x", ""])
        ]
        assert numbers == [its_number, its_number + 10]
