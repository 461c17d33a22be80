"""Batches across requests: fair, bounded, in time, and every answer with its own request."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from lyra_nli.errors import BusyError, LateError
from lyra_nli.ml_server.batching import Batcher
from lyra_nli.ml_server.deadline import deadline
from lyra_nli.models.encoding import EncodedPair
from lyra_nli.settings import ServerSettings


class Gated:
    """An engine that answers with row length and variant, when it is let."""

    dtype = torch.float32

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()

    def logits(self, rows, variants):
        self.batches.append([len(row) for row in rows])
        self.entered.set()
        assert self.gate.wait(10)
        if any(variant == "broken" for variant in variants):
            raise RuntimeError("no memory")
        return torch.tensor(
            [[len(row), v or 0, 0.0] for row, v in zip(rows, variants, strict=True)]
        )


def rows(*lengths: int) -> list[EncodedPair]:
    return [EncodedPair((1,) * n, (0,) * n, truncated=False) for n in lengths]


@pytest.fixture
def engine() -> Gated:
    return Gated()


def run(settings: ServerSettings, scenario) -> None:
    with ThreadPoolExecutor(1) as executor:
        asyncio.run(scenario(Batcher(executor, settings)))


async def held(batcher: Batcher, engine: Gated, *lengths: int) -> asyncio.Task:
    """Begin a request and keep the model busy with it."""
    engine.gate.clear()
    engine.entered.clear()
    task = asyncio.create_task(batcher.logits(engine, rows(*lengths), [None] * len(lengths)))
    await asyncio.to_thread(engine.entered.wait, 10)
    return task


def test_requests_that_come_meanwhile_share_a_batch(engine):
    async def scenario(batcher: Batcher) -> None:
        first = await held(batcher, engine, 5)
        others = [
            asyncio.create_task(batcher.logits(engine, rows(n, n + 1), [n, n])) for n in (10, 20)
        ]
        await asyncio.sleep(0)
        engine.gate.set()
        assert (await first)[0].tolist() == [[5, 0, 0]]
        for n, task in zip((10, 20), others, strict=True):
            assert (await task)[0].tolist() == [[n, n, 0], [n + 1, n, 0]]
        assert engine.batches == [[5], [11, 10, 21, 20]]

    run(ServerSettings(), scenario)


def test_a_large_request_leaves_room_for_a_small_one(engine):
    async def scenario(batcher: Batcher) -> None:
        first = await held(batcher, engine, 5)
        large = asyncio.create_task(batcher.logits(engine, rows(*[10] * 20), [None] * 20))
        small = asyncio.create_task(batcher.logits(engine, rows(9), [None]))
        await asyncio.sleep(0)
        engine.gate.set()
        await asyncio.gather(first, large, small)
        assert engine.batches[1] == [10] * 9 + [9]  # a half each, then the room that is left
        assert sum(map(len, engine.batches)) == 22

    run(ServerSettings(batch_tokens=100), scenario)


def test_a_long_row_does_not_wait_for_ever_beside_many_short_ones(engine):
    """It is longer than its share of any batch, as long as others come."""

    async def scenario(batcher: Batcher) -> None:
        first = await held(batcher, engine, 5)
        long = asyncio.create_task(batcher.logits(engine, rows(50, 8), [None] * 2))
        await asyncio.sleep(0)
        bulk = [
            asyncio.create_task(batcher.logits(engine, rows(*[10] * 30), [None] * 30))
            for _ in range(4)
        ]
        await asyncio.sleep(0)
        engine.gate.set()
        await long
        assert not any(task.done() for task in bulk)
        assert engine.batches[1] == [50, 8, 10, 10, 10, 10]  # and nobody is left out
        await asyncio.gather(first, *bulk)

    run(ServerSettings(batch_tokens=100), scenario)


def test_two_engines_take_turns(engine):
    slow = Gated()

    async def scenario(batcher: Batcher) -> None:
        first = await held(batcher, engine, 5)
        many = asyncio.create_task(batcher.logits(engine, rows(*[50] * 8), [None] * 8))
        await asyncio.sleep(0)
        other = asyncio.create_task(batcher.logits(slow, rows(7), [None]))
        await asyncio.sleep(0)
        engine.gate.set()
        await other
        assert not many.done()
        assert len(engine.batches) <= 2
        await asyncio.gather(first, many)

    run(ServerSettings(batch_tokens=100), scenario)


def test_one_request_counts_for_half_of_the_queue_at_most(engine):
    """However many rows it has, the others get in, and it gets in beside them."""

    async def scenario(batcher: Batcher) -> None:
        first = await held(batcher, engine, 5)
        small = asyncio.create_task(batcher.logits(engine, rows(*[5] * 3), [None] * 3))
        await asyncio.sleep(0)
        huge = asyncio.create_task(batcher.logits(engine, rows(*[5] * 500), [None] * 500))
        await asyncio.sleep(0)
        batcher.check_room(2)
        with pytest.raises(BusyError):
            batcher.check_room(3)
        engine.gate.set()
        await asyncio.gather(first, small, huge)

    run(ServerSettings(queue_pairs=10), scenario)


def test_a_row_longer_than_a_batch_goes_alone(engine):
    async def scenario(batcher: Batcher) -> None:
        answer, _ = await batcher.logits(engine, rows(3, 50), [None, None])
        assert answer[:, 0].tolist() == [3, 50]
        assert engine.batches == [[50], [3]]

    run(ServerSettings(batch_tokens=10), scenario)


def test_too_many_are_told_when_to_come_back(engine):
    async def scenario(batcher: Batcher) -> None:
        await batcher.logits(engine, rows(5), [None])
        first = await held(batcher, engine, 5)
        waiting = [
            asyncio.create_task(batcher.logits(engine, rows(*[5] * n), [None] * n)) for n in (4, 5)
        ]
        await asyncio.sleep(0)
        with pytest.raises(BusyError, match="9 pairs wait already, 10 may") as error:
            await batcher.logits(engine, rows(5, 5), [None, None])
        assert error.value.retry_after >= 1
        engine.gate.set()
        await asyncio.gather(first, *waiting)
        await batcher.logits(engine, rows(*[5] * 12), [None] * 12)  # alone, it may be larger

    run(ServerSettings(queue_pairs=10), scenario)


def test_pairs_whose_texts_are_read_count_as_waiting(engine):
    async def scenario(batcher: Batcher) -> None:
        with batcher.expecting(4), batcher.expecting(500):  # that one counts for half of the queue
            with pytest.raises(BusyError, match="9 pairs wait already, 10 may"):
                batcher.check_room(2)
            with pytest.raises(BusyError), batcher.expecting(2, known=True):
                pass
        first = await held(batcher, engine, 5)
        waiting = [
            asyncio.create_task(batcher.logits(engine, rows(*[5] * 5), [None] * 5)) for _ in "ab"
        ]
        await asyncio.sleep(0)
        with pytest.raises(BusyError), batcher.expecting(1):
            pass
        with batcher.expecting(1, known=True):  # an exact repeat needs no model
            pass
        engine.gate.set()
        await asyncio.gather(first, *waiting)

    run(ServerSettings(queue_pairs=10), scenario)


@pytest.mark.parametrize(
    ("wait_ms", "batches"), [(0.0, [[5], [6, 7], [7], [6]]), (200.0, [[5], [6, 7], [7, 6]])]
)
def test_a_busy_model_waits_a_little_for_who_was_just_answered(engine, wait_ms, batches):
    async def scenario(batcher: Batcher) -> None:
        first = await held(batcher, engine, 5)
        answered, *others = (
            asyncio.create_task(batcher.logits(engine, rows(n), [None])) for n in (6, 7, 7)
        )
        await asyncio.sleep(0)
        engine.gate.set()
        await answered
        again = batcher.logits(engine, rows(6), [None])
        await asyncio.gather(first, *others, again)
        assert engine.batches == batches

    run(ServerSettings(batch_tokens=14, batch_wait_ms=wait_ms), scenario)


def test_at_the_end_nobody_is_left_waiting(engine):
    async def scenario(batcher: Batcher) -> None:
        first = await held(batcher, engine, 5)
        left = asyncio.create_task(batcher.logits(engine, rows(7), [None]))
        await asyncio.sleep(0)
        batcher.close()
        engine.gate.set()
        assert (await first)[0].tolist() == [[5, 0, 0]]
        with pytest.raises(asyncio.CancelledError):
            await left
        assert engine.batches == [[5]]

    run(ServerSettings(), scenario)


def test_what_is_late_is_given_up_and_never_judged(engine):
    async def scenario(batcher: Batcher) -> None:
        first = await held(batcher, engine, 5)
        with pytest.raises(LateError, match=r"within 0\.05 seconds"):
            async with deadline(300.0, 0.05):
                await batcher.logits(engine, rows(7, 7), [None, None])
        engine.gate.set()
        await first
        await batcher.logits(engine, rows(8), [None])
        assert engine.batches == [[5], [8]]

    run(ServerSettings(), scenario)


def test_of_what_is_late_the_rest_is_not_judged(engine):
    async def scenario(batcher: Batcher) -> None:
        engine.gate.clear()
        with pytest.raises(LateError):
            async with deadline(0.05, None):
                await batcher.logits(engine, rows(10, 10, 10), [None] * 3)
        engine.gate.set()
        await batcher.logits(engine, rows(8), [None])
        assert engine.batches == [[10], [8]]

    run(ServerSettings(batch_tokens=10), scenario)


def test_the_background_has_its_turn_after_the_batch_that_runs(engine):
    async def scenario(batcher: Batcher) -> None:
        first = await held(batcher, engine, 5)
        late = asyncio.create_task(batcher.logits(engine, rows(6), [None], background=True))
        await asyncio.sleep(0)
        urgent = asyncio.create_task(batcher.logits(engine, rows(7), [None]))
        await asyncio.sleep(0)
        engine.gate.set()
        await asyncio.gather(first, late, urgent)
        assert engine.batches == [[5], [6], [7]]

    run(ServerSettings(), scenario)


def test_engines_are_not_mixed(engine):
    other = Gated()

    async def scenario(batcher: Batcher) -> None:
        first = await held(batcher, engine, 5)
        tasks = [
            asyncio.create_task(batcher.logits(one, rows(n), [None]))
            for one, n in ((engine, 6), (other, 7), (engine, 8))
        ]
        await asyncio.sleep(0)
        engine.gate.set()
        await asyncio.gather(first, *tasks)
        assert (engine.batches, other.batches) == ([[5], [6, 8]], [[7]])

    run(ServerSettings(), scenario)


def test_a_failure_reaches_those_who_asked_and_the_next_is_answered(engine):
    async def scenario(batcher: Batcher) -> None:
        with pytest.raises(RuntimeError, match="no memory"):
            await batcher.logits(engine, rows(5), ["broken"])
        answer, _ = await batcher.logits(engine, rows(6), [None])
        assert answer.tolist() == [[6, 0, 0]]

    run(ServerSettings(), scenario)


def test_one_row_that_breaks_a_batch_fails_alone(engine):
    async def scenario(batcher: Batcher) -> None:
        first = await held(batcher, engine, 5)
        broken, whole = (
            asyncio.create_task(batcher.logits(engine, rows(n), [v]))
            for n, v in ((6, "broken"), (7, 1))
        )
        await asyncio.sleep(0)
        engine.gate.set()
        await first
        with pytest.raises(RuntimeError, match="no memory"):
            await broken
        assert (await whole)[0].tolist() == [[7, 1, 0]]
        assert engine.batches == [[5], [6, 7], [6], [7]]

    run(ServerSettings(), scenario)


def test_the_background_is_judged_in_small_batches_by_turns_with_who_waits(engine):
    async def scenario(batcher: Batcher) -> None:
        first = await held(batcher, engine, 5)
        later = [
            asyncio.create_task(batcher.logits(engine, rows(n), [None], background=True))
            for n in (300, 301, 600)
        ]
        await asyncio.sleep(0)
        sooner = asyncio.create_task(batcher.logits(engine, rows(6), [None]))
        await asyncio.sleep(0)
        engine.gate.set()
        await asyncio.gather(first, sooner, *later)
        assert engine.batches == [[5], [300], [6], [301], [600]]

    run(ServerSettings(), scenario)


def test_callers_that_never_rest_do_not_starve_the_background(engine):
    async def scenario(batcher: Batcher) -> None:
        async def caller() -> None:
            while not shadows.done():
                await batcher.logits(engine, rows(5), [None])

        async def background() -> None:
            for _ in range(10):
                await batcher.logits(engine, rows(9), [None], background=True)

        shadows = asyncio.create_task(background())
        async with asyncio.timeout(10):
            await asyncio.gather(shadows, *(caller() for _ in range(3)))

    run(ServerSettings(), scenario)
