"""What a request may ask for, over real HTTP: a deadline, the slow model where unsure, windows."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner
from serving_world import PAIRS, World, alike, body, live_server, make_world, threshold, wait_until

from lyra_nli.cli.main import cli
from lyra_nli.client import AsyncMLClient, MLClient, nli_judge
from lyra_nli.errors import ServerError
from lyra_nli.models.judge import Judge
from lyra_nli.prediction import Judges, predict_file, read_pairs
from lyra_nli.records import Judgement, Pair

pytestmark = pytest.mark.integration

TEXT = "the drug lowers risk of stroke in adults a man is eating no trial difference"
WORDS = TEXT.split()
LONG = Pair(" ".join(WORDS[i * i % 13] for i in range(300)), "the drug lowers the risk")


@pytest.fixture
def world(tmp_path: Path) -> World:
    return make_world(tmp_path)


@pytest.fixture
def url(world: World) -> Iterator[str]:
    with live_server(world.settings) as url:
        yield url


def post(url: str, **request: object) -> httpx.Response:
    return httpx.post(f"{url}/nli", json=request, trust_env=False, timeout=60)


def test_the_server_does_what_nli_judge_does(world: World, url: str) -> None:
    below, unsure = threshold(world)
    with MLClient(url) as client:
        expected = nli_judge(client, PAIRS, below)
        assert alike(client.judge(PAIRS, slow_below=below), expected)
    results = post(url, **body(PAIRS), slow_below=below).json()["results"]
    nli = world.settings.nli
    for number, result in enumerate(results):
        assert result["base_model"] == (nli.slow_model if number == unsure else nli.fast_model)
        assert result["model_version"].startswith(result["base_model"])

    async def through_async() -> list[Judgement]:
        async with AsyncMLClient(url) as client:
            return await client.judge(PAIRS, slow_below=below)

    assert alike(asyncio.run(through_async()), expected)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"slow_below": 0.7, "use_slow": True}, "send it or slow_below"),
        ({"slow_below": 0}, "slow_below"),
        ({"slow_below": 1.1}, "slow_below"),
        ({"deadline_seconds": 0}, "deadline_seconds"),
        ({"deadline_seconds": "soon"}, "deadline_seconds"),
        ({"windows": "many"}, "windows"),
    ],
)
def test_wishes_that_can_not_be_met_are_named(url: str, more: dict[str, object], said: str) -> None:
    response = post(url, **body(PAIRS), **more)
    assert response.status_code == 422
    assert said in "\n".join(response.json()["problems"])


def test_a_deadline_is_kept_and_the_rest_goes_on(url: str) -> None:
    many = [Pair(f"{LONG.premise} {i}", LONG.hypothesis) for i in range(50)]
    with ThreadPoolExecutor(1) as pool, MLClient(url, attempts=1) as client:
        slow = pool.submit(client.judge, many, windows=True)
        with pytest.raises(ServerError) as error:
            client.judge(PAIRS, deadline_seconds=1e-4)
        assert error.value.status == 504
        assert "deadline_seconds" in error.value.hint
        assert len(slow.result()) == 50
        assert len(client.judge(PAIRS, deadline_seconds=60)) == 3


def test_windows_say_what_predict_says(world: World, url: str) -> None:
    world.publish()
    world.activate("v1")
    nli = world.settings.nli.model_copy(update={"windows": True})
    file, out = world.folder / "pairs.jsonl", world.folder / "answers.jsonl"
    pairs = [LONG, *PAIRS]
    lines = body(pairs)["pairs"]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    settings = world.settings.model_copy(update={"nli": nli})
    predict_file(Judges(settings, None), read_pairs(file), out)
    predicted = [json.loads(line) for line in out.read_text().splitlines()]

    with MLClient(url) as client:
        wait_until(lambda: client.status()["version"] == "lora-lyra-v1")
        got = client.judge(pairs, windows=True)
        plain = client.judge(pairs)
    results = post(url, **body(pairs), windows=True).json()["results"]

    assert (plain[0].truncated, plain[0].windows, plain[0].evidence) == (True, 1, None)
    assert (got[0].truncated, got[0].windows > 2) == (False, True)
    for answer, result, other in zip(predicted, results, got, strict=True):
        assert answer["adapter"] == result["adapter"] == "lora-lyra-v1"
        assert answer["probabilities"] == pytest.approx(result["probabilities"], abs=1e-5)
        for name in ("label", "windows", "evidence", "truncated"):
            assert answer[name] == result[name]
        assert (other.windows, other.label) == (result["windows"], result["label"])
        assert (list(other.evidence) if other.evidence else None) == result["evidence"]
    start, end = results[0]["evidence"]
    assert 0 <= start < end <= len(LONG.premise)


def test_more_windows_than_may_wait_are_refused(world: World) -> None:
    """One request would keep the others out for minutes."""
    few = world.settings.ml_server.model_copy(update={"queue_pairs": 2})
    with live_server(world.settings.model_copy(update={"ml_server": few})) as url:
        response = post(url, **body([LONG, *PAIRS]), windows=True)
        assert response.status_code == 422
        assert "more than 2 windows in one request" in response.json()["error"]
        assert "ml_server.queue_pairs" in response.json()["hint"]
        assert post(url, **body([LONG, *PAIRS])).status_code == 200  # pairs count as pairs


def test_predict_takes_windows_as_an_option(world: World) -> None:
    nli = world.settings.nli
    environment = {
        "LYRA_NLI__FAST_MODEL": nli.fast_model,
        "LYRA_NLI__ADAPTERS_DIR": nli.adapters_dir,
    }
    texts = ["--premise", LONG.premise, "--hypothesis", LONG.hypothesis]
    said = []
    for option in ([], ["--windows"]):
        command = ["predict", "--db", world.database, *texts, *option]
        result = CliRunner().invoke(cli, command, env=environment, catch_exceptions=False)
        assert result.exit_code == 0
        said.append(json.loads(result.stdout))
    assert [answer["truncated"] for answer in said] == [True, False]
    assert said[0]["windows"] == 1 < said[1]["windows"]


def test_an_idle_slow_model_goes_and_comes_back(tmp_path: Path) -> None:
    world = make_world(tmp_path, slow_idle_minutes=0.01)
    with live_server(world.settings) as url, MLClient(url) as client:
        before = client.status()
        for _ in range(2):
            answers = client.judge(PAIRS, use_slow=True)
            assert alike(answers, Judge(world.slow).judge(PAIRS))
            wait_until(lambda: client.status()["slow"]["base_loaded"] is False)
            status = client.status()
            assert status["memory_bytes"] == before["memory_bytes"]
            assert status["slow"]["last_used"] is not None
            assert client.health()["models_loaded"] == {"nli_fast": True, "nli_slow": False}


def test_a_slow_model_without_room_is_a_503_and_the_fast_one_answers(tmp_path: Path) -> None:
    world = make_world(tmp_path, memory_mb=0.3)
    with live_server(world.settings) as url, MLClient(url, attempts=1) as client:
        assert client.status()["memory_limit_mb"] == 0.3
        taken = client.status()["memory_bytes"]
        with pytest.raises(ServerError) as error:
            client.judge(PAIRS, use_slow=True)
        assert error.value.status == 503
        assert "nli.memory_mb" in str(error.value)
        assert len(client.judge(PAIRS)) == 3
        assert client.status()["memory_bytes"] == taken
