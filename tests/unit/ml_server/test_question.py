"""What a request may ask beyond its pairs: the slow model where unsure, windows, a deadline."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable

import pytest
from serving_world import PAIRS, World, alike, threshold

from lyra_nli.errors import LateError, ModelError
from lyra_nli.ml_server.nli import NLIService
from lyra_nli.models.judge import Judge
from lyra_nli.records import Pair

LONG = Pair("the drug lowers the risk of stroke in adults . " * 40, "The drug lowers mortality.")


def run(world: World, work: Callable[[NLIService], Awaitable[None]]) -> None:
    async def all_of_it() -> None:
        service = NLIService(world.settings)
        try:
            await service.start()
            await work(service)
        finally:
            await service.close()

    asyncio.run(all_of_it())


class TestCascade:
    def test_the_slow_model_answers_where_the_fast_one_is_unsure(self, world: World) -> None:
        below, unsure = threshold(world)
        expected = Judge(world.fast).judge(PAIRS)
        [expected[unsure]] = Judge(world.slow).judge([PAIRS[unsure]])

        async def work(service: NLIService) -> None:
            answer = await service.judge(PAIRS, slow_below=below)
            assert alike(answer.judgements, expected)
            nli = world.settings.nli
            names = [nli.slow_model if i == unsure else nli.fast_model for i in range(3)]
            assert answer.base_models == names
            assert [v.split("@")[0] for v in answer.model_versions] == names

        run(world, work)

    def test_who_is_sure_enough_does_not_load_the_slow_model(self, world: World) -> None:
        async def work(service: NLIService) -> None:
            answer = await service.judge(PAIRS, slow_below=0.01)
            assert set(answer.base_models) == {world.settings.nli.fast_model}
            assert service.models_loaded["nli_slow"] is False

        run(world, work)

    @pytest.mark.parametrize(
        ("asked", "fast", "slow"),
        [
            ("", "lora-lyra-v1", "lora-lyra-v3"),
            ("active", "lora-lyra-v1", "lora-lyra-v3"),
            ("base", "base", "base"),
            ("v2", "lora-lyra-v2", "lora-lyra-v3"),
        ],
    )
    def test_the_slow_models_own_version_answers(
        self, world: World, asked: str, fast: str, slow: str
    ) -> None:
        world.publish(seed=1), world.publish(seed=2), world.publish(world.slow, seed=3)
        world.activate("v1"), world.activate("v3")

        async def work(service: NLIService) -> None:
            for below, name in ((0.01, fast), (1.0, slow)):
                answer = await service.judge(PAIRS, adapters=[asked] * 3, slow_below=below)
                assert {j.adapter for j in answer.judgements} == {name}

        run(world, work)

    def test_a_slow_model_that_fails_is_an_error_and_no_answer(self, world: World) -> None:
        nli = world.settings.nli.model_copy(update={"slow_model": str(world.folder / "nowhere")})
        broken = World(world.folder, world.settings.model_copy(update={"nli": nli}))

        async def work(service: NLIService) -> None:
            with pytest.raises(ModelError, match="nowhere"):
                await service.judge(PAIRS, slow_below=1.0)
            assert len((await service.judge(PAIRS)).judgements) == 3

        run(broken, work)

    def test_only_answers_that_were_given_are_counted(self, world: World) -> None:
        below, unsure = threshold(world)
        seen: list[tuple[str, list[Pair]]] = []

        async def work(service: NLIService) -> None:
            def judged(base_model, pairs, judgements, sources, timing) -> None:
                assert len(pairs) == len(judgements) == len(sources)
                seen.append((base_model, list(pairs)))

            service.observer.judged = judged  # type: ignore[method-assign]
            await service.judge(PAIRS, sources=["a", "b", "c"], slow_below=below)

        run(world, work)
        nli = world.settings.nli
        sure = [pair for i, pair in enumerate(PAIRS) if i != unsure]
        assert seen == [(nli.fast_model, sure), (nli.slow_model, [PAIRS[unsure]])]


class TestWindows:
    def test_a_request_may_ask_for_windows(self, world: World) -> None:
        pairs = [PAIRS[0], LONG, PAIRS[1]]

        async def work(service: NLIService) -> None:
            for windows, overlap in ((None, None), (False, None), (True, 128)):
                answer = await service.judge(pairs, windows=windows)
                expected = Judge(world.fast, overlap=overlap).judge(pairs)
                assert alike(answer.judgements, expected)
                for said, wanted in zip(answer.judgements, expected, strict=True):
                    assert (said.windows, said.evidence) == (wanted.windows, wanted.evidence)
            assert answer.judgements[1].windows > 2
            assert answer.judgements[1].truncated is False

        run(world, work)

    def test_rows_of_versions_keep_their_windows(self, world: World) -> None:
        world.publish(seed=1), world.publish(seed=2)

        async def work(service: NLIService) -> None:
            names = ["v1", "base", "v2"]
            together = await service.judge([LONG] * 3, adapters=names, windows=True)
            for name, said in zip(names, together.judgements, strict=True):
                alone = await service.judge([LONG], adapters=[name], windows=True)
                assert alike([said], alone.judgements)
                assert said.evidence == alone.judgements[0].evidence

        run(world, work)

    def test_the_settings_may_ask_for_windows(self, world: World) -> None:
        nli = world.settings.nli.model_copy(update={"windows": True, "window_overlap": 10})
        by_windows = World(world.folder, world.settings.model_copy(update={"nli": nli}))

        async def work(service: NLIService) -> None:
            answer = await service.judge([LONG])
            assert (
                answer.judgements[0].windows
                == Judge(world.fast, overlap=10).judge([LONG])[0].windows
            )
            assert (await service.judge([LONG], windows=False)).judgements[0].truncated is True

        run(by_windows, work)

    def test_every_window_counts_in_the_queue(self, world: World) -> None:
        async def work(service: NLIService) -> None:
            counted: list[int] = []
            logits = service._judging._batcher.logits

            async def counting(engine, rows, variants, **how):
                counted.append(len(rows))
                return await logits(engine, rows, variants, **how)

            service._judging._batcher.logits = counting  # type: ignore[method-assign, assignment]
            answer = await service.judge([LONG, PAIRS[0]], windows=True)
            assert counted == [answer.judgements[0].windows + 1]

        run(world, work)


class TestDeadline:
    def test_a_requests_own_deadline(self, world: World) -> None:
        async def work(service: NLIService) -> None:
            busy, held = threading.Event(), threading.Event()
            service._judging._inference.submit(lambda: (held.set(), busy.wait(10)))
            held.wait(10)
            patient = asyncio.create_task(service.judge(PAIRS))
            with pytest.raises(LateError, match=r"0\.05 seconds") as error:
                await service.judge(PAIRS, deadline_seconds=0.05)
            assert "deadline_seconds" in error.value.hint
            assert not patient.done()
            busy.set()
            assert len((await patient).judgements) == 3

        run(world, work)

    def test_it_covers_the_loading_of_the_slow_model(self, world: World) -> None:
        async def work(service: NLIService) -> None:
            busy, held = threading.Event(), threading.Event()
            service._loader.submit(lambda: (held.set(), busy.wait(10)))
            held.wait(10)
            with pytest.raises(LateError):
                await service.judge(PAIRS, use_slow=True, deadline_seconds=0.05)
            busy.set()
            assert len((await service.judge(PAIRS, use_slow=True)).judgements) == 3

        run(world, work)

    def test_the_settings_bound_it(self, world: World) -> None:
        server = world.settings.ml_server.model_copy(update={"deadline_seconds": 0.05})
        hasty = World(world.folder, world.settings.model_copy(update={"ml_server": server}))

        async def work(service: NLIService) -> None:
            busy, held = threading.Event(), threading.Event()
            service._judging._inference.submit(lambda: (held.set(), busy.wait(10)))
            held.wait(10)
            with pytest.raises(LateError, match=r"0\.05 seconds, ml_server"):
                await service.judge(PAIRS, deadline_seconds=60.0)
            busy.set()

        run(hasty, work)
