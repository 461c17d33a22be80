"""The server as it is used: real HTTP on a real port, a real database, other processes."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from serving_world import (
    PAIRS,
    Tensors,
    World,
    alike,
    body,
    live_server,
    make_world,
    threshold,
    wait_until,
)

from lyra_nli.client import AsyncMLClient, MLClient, async_nli_judge, nli_judge
from lyra_nli.errors import ServerError
from lyra_nli.models.judge import Judge
from lyra_nli.records import Judgement, Pair

pytestmark = pytest.mark.integration

_IN_REGISTRY = """
import sys
from pathlib import Path
from lyra_nli.registry.versions import Registry
from lyra_nli.storage.engine import open_database
_, database, adapters, action, name = sys.argv
registry = Registry(open_database(database), Path(adapters))
if action == "activate":
    registry.activate(name, who="another process", reason="a test")
else:
    getattr(registry, action)(name, who="another process", reason="a test")
"""


@pytest.fixture
def world(tmp_path: Path) -> World:
    return make_world(tmp_path)


@pytest.fixture
def url(world: World) -> Iterator[str]:
    with live_server(world.settings) as url:
        yield url


@pytest.fixture
def client(url: str) -> Iterator[MLClient]:
    with MLClient(url) as client:
        yield client


def _elsewhere(world: World, action: str, name: str) -> None:
    """Do something to the registry in another process."""
    command = [sys.executable, "-c", _IN_REGISTRY, world.database, str(world.adapters)]
    subprocess.run([*command, action, name], check=True, timeout=60)


def test_another_process_activates_and_rolls_back(world: World, client: MLClient) -> None:
    world.publish(seed=1), world.publish(seed=2)
    base = world.settings.nli.fast_model

    def serves(name: str) -> bool:
        return {judgement.adapter for judgement in client.judge(PAIRS)} == {name}

    assert serves("base")
    for action, argument, served in (
        ("activate", "v1", "lora-lyra-v1"),
        ("activate", "v2", "lora-lyra-v2"),
        ("rollback", base, "lora-lyra-v1"),
        ("deactivate", base, "base"),
    ):
        _elsewhere(world, action, argument)
        assert wait_until(lambda name=served: serves(name)) < 2.0
        status = client.status()
        assert (status["version"] or "base") == served
        assert status["follow_error"] is None


def test_unload_restores_the_base_to_the_bit(world: World, client: MLClient) -> None:
    expected = client.judge(PAIRS)
    world.publish()
    assert alike(expected, Judge(world.fast).judge(PAIRS))
    client.load_adapter("v1")
    changed = client.judge(PAIRS)
    assert all(judgement.adapter == "lora-lyra-v1" for judgement in changed)
    assert [j.probabilities for j in changed] != [j.probabilities for j in expected]
    client.unload_adapter()

    assert client.judge(PAIRS) == expected


def _nan(tensors: Tensors) -> None:
    next(iter(tensors.values())).fill_(float("nan"))


def _shape(tensors: Tensors) -> None:
    key = next(iter(tensors))
    tensors[key] = tensors[key][:, :5].contiguous()


def test_unfit_adapters_are_refused_and_the_server_goes_on(world: World, client: MLClient) -> None:
    good = world.publish()
    client.load_adapter(str(good.path))
    expected = client.judge(PAIRS)
    world.publish(damage=_nan, seed=2)
    world.publish(damage=_shape, seed=3)
    world.publish(base_fingerprint="0" * 64, seed=4)
    world.publish(base_model="someone/else", seed=5)
    pickled = world.publish(seed=6)
    (pickled.path / "adapter_model.bin").write_bytes(b"\x80\x04.")
    changed = world.publish(seed=7)
    with (changed.path / "adapter_model.safetensors").open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\x7f")

    for name, said in {
        "v2": "NaN",
        "v3": "shape",
        "v4": "trained for another",
        "v5": "someone/else",
        "v6": "pickle",
        "v7": "changed since it was sealed",
    }.items():
        with pytest.raises(ServerError) as error:
            client.load_adapter(name)
        assert error.value.status == 422
        assert said in str(error.value)
        assert client.judge(PAIRS) == expected
    with world.registry() as registry:
        active = registry.active(world.settings.nli.fast_model)
    assert active is not None
    assert active.name == good.name


def test_an_unfit_version_that_was_activated_elsewhere_is_told_in_the_status(
    world: World, client: MLClient
) -> None:
    world.publish(damage=_nan)
    world.publish(seed=2)
    expected = client.judge(PAIRS)
    _elsewhere(world, "activate", "v1")  # the registry knows digests, not tensors

    wait_until(lambda: client.status()["follow_error"] is not None)
    assert "NaN" in client.status()["follow_error"]
    assert client.judge(PAIRS) == expected
    _elsewhere(world, "activate", "v2")
    wait_until(lambda: client.status()["version"] == "lora-lyra-v2")
    wait_until(lambda: client.status()["follow_error"] is None)


def test_swaps_under_load_lose_no_request_and_mix_no_versions(world: World, url: str) -> None:
    names = ["base", *(world.publish(seed=seed).name for seed in (1, 2))]
    stop = threading.Event()
    wrong: list[object] = []

    def hammer(expected: dict[str, list[Judgement]]) -> None:
        with MLClient(url) as own:
            while not stop.is_set():
                try:
                    got = own.judge(PAIRS)
                except ServerError as error:
                    wrong.append(error)
                else:
                    wrong.extend([] if alike(got, expected[got[0].adapter]) else [got])

    with MLClient(url) as client:
        expected = {name: client.judge(PAIRS, adapter=name) for name in names}
        threads = [threading.Thread(target=hammer, args=[expected]) for _ in range(4)]
        for thread in threads:
            thread.start()
        for name in names[1:] * 5:
            client.load_adapter(name)
            client.unload_adapter()
        stop.set()
        for thread in threads:
            thread.join()
    assert wrong == []


def test_fast_then_slow(world: World, url: str) -> None:
    fast = Judge(world.fast).judge(PAIRS)
    below, unsure = threshold(world)
    expected = list(fast)
    [expected[unsure]] = Judge(world.slow).judge([PAIRS[unsure]])
    assert expected != fast

    async def through_async() -> None:
        async with AsyncMLClient(url) as client:
            assert alike(await async_nli_judge(client, PAIRS, below), expected)
            assert (await client.health())["models_loaded"]["nli_slow"] is True

    with MLClient(url) as client:
        assert alike(nli_judge(client, PAIRS, below), expected)
    asyncio.run(through_async())


def test_errors_reach_the_caller_whole(client: MLClient) -> None:
    with pytest.raises(ServerError) as error:
        client.judge([PAIRS[0], Pair("", "x"), Pair("x", " ")])
    assert error.value.status == 422
    assert [problem.split(":")[0] for problem in error.value.problems] == ["pair '1'", "pair '2'"]
    with pytest.raises(ServerError) as error:
        client.judge(PAIRS, adapter="v9")
    assert error.value.status == 404


def test_a_huge_body_is_refused_and_the_server_goes_on(url: str) -> None:
    def endless() -> Iterator[bytes]:
        yield b'{"pairs": ['
        for _ in range(70):
            yield b" " * 2**20

    with httpx.Client(trust_env=False) as http:
        headers = {"Content-Type": "application/json"}
        try:
            response = http.post(f"{url}/nli", content=endless(), headers=headers)
        except httpx.WriteError:
            pass  # the server answered and closed while we were still sending
        else:
            assert response.status_code == 413
            assert "64 MB" in response.json()["error"]
        assert http.post(f"{url}/nli", json=body(PAIRS)).json()["ok"] is True


def test_a_database_made_later_is_followed(tmp_path: Path) -> None:
    from lyra_nli.storage.upgrade import init_database

    world = make_world(tmp_path, database=False)
    with live_server(world.settings) as url, MLClient(url) as client:
        assert client.status()["database_found"] is False
        init_database(world.database)
        wait_until(lambda: client.status()["follow_error"] is None)
        world.publish()
        world.activate("v1")
        wait_until(lambda: client.status()["version"] == "lora-lyra-v1")


_SERVE = """
import sys
from lyra_nli.errors import LyraNliError
from lyra_nli.ml_server.main import serve
from lyra_nli.settings import load_settings
try:
    serve(load_settings())
except LyraNliError as error:
    print(error, file=sys.stderr)
    sys.exit(error.exit_code)
"""


def _serve(world: World, port: int) -> subprocess.Popen[str]:
    environment = {
        **os.environ,
        "LYRA_NLI__FAST_MODEL": world.settings.nli.fast_model,
        "LYRA_NLI__ADAPTERS_DIR": str(world.adapters),
        "LYRA_NLI__PRECISION": "fp32",
        "LYRA_STORAGE__DATABASE_PATH": world.database,
        "LYRA_ML_SERVER__PORT": str(port),
    }
    return subprocess.Popen(
        [sys.executable, "-c", _SERVE], env=environment, stderr=subprocess.PIPE, text=True
    )


def test_the_process_serves_refuses_a_second_one_and_ends_in_order(world: World) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    process = _serve(world, port)

    def ready() -> bool:
        assert process.poll() is None, "the server ended"
        try:
            return httpx.get(f"{url}/readyz", trust_env=False).status_code == 200
        except httpx.TransportError:
            return False

    try:
        wait_until(ready, 60)
        with MLClient(url) as client:
            assert alike(client.judge(PAIRS), Judge(world.fast).judge(PAIRS))
            second = _serve(world, port)
            _, said = second.communicate(timeout=60)
            assert second.returncode == 2
            assert f"port {port}" in said
            assert "Loading weights" not in said, "no model is loaded for nothing"
            assert len(client.judge(PAIRS)) == len(PAIRS)
        process.send_signal(signal.SIGINT)
        _, log = process.communicate(timeout=30)
        assert process.returncode == 0
        assert "Traceback" not in log
    finally:
        process.kill()
        process.communicate()
