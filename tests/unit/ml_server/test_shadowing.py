"""The shadow's draw, its budget, and what goes wrong; the judging is made up."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from lyra_nli.errors import AdapterInvalidError
from lyra_nli.ml_server import shadowing
from lyra_nli.ml_server.on_trial import OnTrial
from lyra_nli.ml_server.shadowing import Shadow
from lyra_nli.records import Judgement, Pair
from lyra_nli.registry.trials import Trial

PAIRS = [Pair(f"Premise {n}.", "Claim.") for n in range(100)]


def said(label: str, adapter: str = "v1") -> Judgement:
    chances = {"supports": 0.1, "refutes": 0.1, "neutral": 0.1, label: 0.8}
    return Judgement(label, 0.8, chances, label, False, adapter)  # type: ignore[arg-type]


def on_trial(share: float = 1.0) -> OnTrial:
    trial = Trial("nlt_1", "base", "shadow", "v2", share, "2026", "ada", "")
    return OnTrial(trial, SimpleNamespace(name="v2"))  # type: ignore[arg-type]


class Kept:
    """What the log is told."""

    def __init__(self) -> None:
        self.judged: list[Any] = []
        self.skipped = 0

    def put(self, judged: Any) -> None:
        self.judged.append(judged)

    def skip(self, *_: Any) -> None:
        self.skipped += 1


class Model:
    """Takes a while, never two at a time."""

    def __init__(self, seconds: float = 0.0, error: Exception | None = None) -> None:
        self.seconds, self.error = seconds, error
        self.busy = 0.0
        self.at_once = 0

    async def judge(self, *_: Any) -> tuple[Judgement, float]:
        self.at_once += 1
        assert self.at_once == 1
        began = time.monotonic()
        await asyncio.sleep(self.seconds)
        self.at_once -= 1
        self.busy += (took := time.monotonic() - began)
        if self.error:
            raise self.error
        return said("refutes", "v2"), took


def show(shadow: Shadow, slot: Any, pairs: list[Pair]) -> None:
    shadow.saw(slot, range(len(pairs)), pairs, [said("supports")] * len(pairs), (), ())


def test_it_takes_no_more_than_its_share_of_the_time() -> None:
    model, kept = Model(0.01), Kept()

    async def scenario() -> float:
        shadow = Shadow(model.judge, kept, 0.2)  # type: ignore[arg-type]
        show(shadow, SimpleNamespace(trials={"shadow": on_trial()}), PAIRS[:20])
        began = time.monotonic()
        while len(kept.judged) < 10:
            await asyncio.sleep(0.005)
        share = model.busy / (time.monotonic() - began)
        await shadow.close()
        return share

    assert asyncio.run(scenario()) < 0.25
    assert len(kept.judged) < 20


def test_what_does_not_fit_is_skipped_and_nothing_is_asked_without_time() -> None:
    kept = Kept()

    async def scenario(cpu: float) -> Any:
        shadow = Shadow(Model().judge, kept, cpu)  # type: ignore[arg-type]
        on = on_trial()
        show(shadow, SimpleNamespace(trials={"shadow": on}), PAIRS)
        await shadow.close()
        return on.tally

    assert asyncio.run(scenario(0.5)).skipped == 100 - shadowing.MAX_WAITING
    assert kept.skipped == 100 - shadowing.MAX_WAITING
    assert asyncio.run(scenario(0.0)).skipped == 100


def test_what_takes_too_long_at_a_stretch_is_skipped() -> None:
    kept = Kept()

    async def scenario() -> None:
        shadow = Shadow(Model().judge, kept, 1.0)  # type: ignore[arg-type]
        windows = [1, shadowing.MAX_WINDOWS, shadowing.MAX_WINDOWS + 1, 1000]
        answers = [replace(said("supports"), windows=count) for count in windows]
        slot: Any = SimpleNamespace(trials={"shadow": on_trial()})
        shadow.saw(slot, range(4), PAIRS[:4], answers, (), ())
        while len(kept.judged) < 2:
            await asyncio.sleep(0.005)
        await shadow.close()

    asyncio.run(scenario())
    assert (len(kept.judged), kept.skipped) == (2, 2)


def test_a_share_of_the_pairs_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shadowing, "MAX_WAITING", 0)
    kept = Kept()

    async def scenario() -> None:
        shadow = Shadow(Model().judge, kept, 1.0)  # type: ignore[arg-type]
        show(shadow, SimpleNamespace(trials={"shadow": on_trial(0.3)}), PAIRS * 20)

    asyncio.run(scenario())
    assert 500 < kept.skipped < 700


def test_what_waits_for_a_trial_that_is_over_is_dropped() -> None:
    model, kept = Model(), Kept()
    slot = SimpleNamespace(trials={"shadow": on_trial()})

    async def scenario() -> None:
        shadow = Shadow(model.judge, kept, 1.0)  # type: ignore[arg-type]
        show(shadow, slot, PAIRS[:10])
        slot.trials = {}
        show(shadow, slot, PAIRS[:10])
        assert shadow._worker is not None
        await asyncio.wait_for(shadow._worker, 5)

    asyncio.run(scenario())
    assert (kept.judged, kept.skipped, model.busy) == ([], 0, 0.0)


@pytest.mark.parametrize("error", [AdapterInvalidError("NaN"), RuntimeError("no memory")])
def test_one_that_fails_is_counted_and_said_once(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    kept = Kept()

    async def scenario() -> Any:
        shadow = Shadow(Model(error=error).judge, kept, 1.0)  # type: ignore[arg-type]
        on = on_trial()
        show(shadow, SimpleNamespace(trials={"shadow": on}), PAIRS[:5])
        assert shadow._worker is not None
        await asyncio.wait_for(shadow._worker, 5)
        return on.tally

    tally = asyncio.run(scenario())
    assert (tally.judged, tally.failed, tally.problem) == (0, 5, str(error))
    assert len(caplog.records) == 1
