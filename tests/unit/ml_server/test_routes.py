from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from serving_world import PAIRS, World, body, make_world

from lyra_nli.labels import LABELS
from lyra_nli.ml_server import wire
from lyra_nli.ml_server.main import create_app, running
from lyra_nli.ml_server.nli import NLIService
from lyra_nli.ml_server.routes import create_router
from lyra_nli.models.judge import Judge
from lyra_nli.records import Pair
from lyra_nli.registry.versions import Registry

Work = Callable[[httpx.AsyncClient], Awaitable[None]]


def run(world: World, work: Work, *, start: bool = True, mount: str = "") -> None:
    """Run a coroutine with a client of the router, mounted in an application of someone else."""

    async def all_of_it() -> None:
        service = NLIService(world.settings)
        app = FastAPI()
        app.include_router(create_router(service, max_pairs=50), prefix=mount)
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
            try:
                if start:
                    await service.start()
                await work(client)
            finally:
                await service.close()

    asyncio.run(all_of_it())


def refused(response: httpx.Response, status: int) -> dict[str, Any]:
    """The body of an error, after a look at its shape."""
    said: dict[str, Any] = response.json()
    assert response.status_code == status, said
    assert set(said) == {"ok", "results", "error", "message", "problems", "hint"}
    assert said["ok"] is False
    assert said["results"] == []
    assert said["error"] == said["message"] != ""
    return said


def test_nli_answers_in_lyras_shape(world: World) -> None:
    expected = Judge(world.fast).judge(PAIRS)

    async def work(client: httpx.AsyncClient) -> None:
        response = await client.post("/nli", json=body(PAIRS))
        assert response.status_code == 200
        answer = response.json()
        assert set(answer) == {"ok", "results", "error"}
        assert answer["ok"] is True
        assert answer["error"] is None
        for i, (result, judgement) in enumerate(zip(answer["results"], expected, strict=True)):
            assert result["pair_id"] == f"p{i}"
            assert result["label"] == judgement.label
            assert result["confidence"] == max(result["probabilities"].values())
            assert result["raw_label"] == judgement.raw_label
            assert result["probabilities"] == pytest.approx(judgement.probabilities, abs=1e-5)
            assert result["truncated"] is False
            assert result["adapter"] == "base"
            assert result["model_version"].startswith(world.settings.nli.fast_model + "@")
            assert set(result["probabilities"]) == set(LABELS)

    run(world, work)


def test_both_generations_of_field_names_are_one(world: World) -> None:
    old = body(PAIRS)
    new = {
        "pairs": [
            {"pair_id": p["pair_id"], "premise": p["premise"], "nli_hypothesis": p["hypothesis"]}
            for p in old["pairs"]
        ],
        "use_slow": None,
    }
    both = {"pairs": [{**o, **n} for o, n in zip(old["pairs"], new["pairs"], strict=True)]}

    async def work(client: httpx.AsyncClient) -> None:
        answers = [(await client.post("/nli", json=request)).json() for request in (old, new, both)]
        assert answers[0]["ok"] is True
        assert answers[0] == answers[1] == answers[2]

    run(world, work)


def test_every_problem_of_a_request_is_listed_with_its_pair(world: World) -> None:
    pairs = [
        {"pair_id": "none", "premise": "p"},
        {"pair_id": "two", "premise": "p", "hypothesis": "a", "nli_hypothesis": "b"},
        {"pair_id": 7, "premise": "p", "hypothesis": "h"},
        {"premise": "p", "hypothesis": "h"},
        {"pair_id": "long", "premise": "x" * 1_000_001, "hypothesis": "h"},
        {"pair_id": "null", "premise": None, "hypothesis": "h"},
        "no object",
    ]

    async def work(client: httpx.AsyncClient) -> None:
        said = refused(await client.post("/nli", json={"pairs": pairs}), 422)
        text = "\n".join(said["problems"])
        assert len(said["problems"]) == len(pairs)
        for part in (
            "pair 'none': hypothesis is missing",
            "pair 'two': hypothesis and nli_hypothesis differ",
            "pair 7: pair_id",
            "pair number 3: pair_id",
            "pair 'long': premise",
            "pair 'null': premise",
            "pair number 6",
        ):
            assert part in text, part
        assert len(text) < 1500, "texts are not echoed"

    run(world, work)


def test_empty_texts_are_named_by_pair(world: World) -> None:
    pairs = [PAIRS[0], Pair(" ", "x"), Pair("x", "\n\t"), Pair("x", "")]

    async def work(client: httpx.AsyncClient) -> None:
        said = refused(await client.post("/nli", json=body(pairs)), 422)
        assert [problem.split(":")[0] for problem in said["problems"]] == [
            "pair 'p1'", "pair 'p2'", "pair 'p3'",
        ]  # fmt: skip

    run(world, work)


def test_repeated_ids_and_too_many_pairs_are_refused(world: World) -> None:
    async def work(client: httpx.AsyncClient) -> None:
        request = body(PAIRS)
        for pair in request["pairs"]:
            pair["pair_id"] = "same"
        said = refused(await client.post("/nli", json=request), 422)
        assert said["problems"] == ["pair 'same': stands 3 times"]
        said = refused(await client.post("/nli", json=body(PAIRS * 17)), 422)
        assert "51 pairs" in said["error"]
        assert "max_pairs" in said["hint"]
        assert (await client.post("/nli", json=body(PAIRS * 16))).status_code == 200

    run(world, work)


def test_no_pairs_give_no_results(world: World) -> None:
    async def work(client: httpx.AsyncClient) -> None:
        answer = await client.post("/nli", json={"pairs": []})
        assert answer.json() == {"ok": True, "results": [], "error": None}

    run(world, work)


def test_odd_texts_are_judged(world: World) -> None:
    odd = [
        "[SEP] [CLS] </s>",
        "a\x00b",
        "🧪" * 50,
        "العقار يقلل الخطر",
        "\u202eabc",
        "\ufeff.",
        "x" * 9999,
    ]
    pairs = [Pair(text, text[:40]) for text in odd]

    async def work(client: httpx.AsyncClient) -> None:
        response = await client.post("/nli", json=body(pairs))
        assert response.status_code == 200, response.text
        assert len(response.json()["results"]) == len(odd)

    run(world, work)


def test_a_long_premise_is_cut_and_told_a_long_hypothesis_is_refused(world: World) -> None:
    long = "Mortality did not differ. " * 4000  # 100 kB

    async def work(client: httpx.AsyncClient) -> None:
        cut = await client.post("/nli", json=body([Pair(long, "It differs."), PAIRS[0]]))
        assert [result["truncated"] for result in cut.json()["results"]] == [True, False]
        said = refused(await client.post("/nli", json=body([PAIRS[0], Pair("p", long)])), 422)
        assert said["problems"][0].startswith("pair 'p1': the hypothesis has")

    run(world, work)


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"", 422),
        (b"null", 422),
        (b"[]", 422),
        (b"{", 422),
        (b'{"pairs": {}}', 422),
        (b'{"pairs": []', 422),
        (b"[" * 100_000, 400),
        (b'{"pairs": "\xff"}', 400),
        (b'{"pairs":[{"pair_id":"\\ud800","premise":"a","hypothesis":"b"}]}', 422),
        (b'{"pairs":[{"pair_id":"a","premise":"\\ud800","hypothesis":"b"}]}', 422),
        (b'{"pairs":[{"pair_id":"\\udfff","premise":"","hypothesis":""}]}', 422),
        (b'{"pairs":[],"adapter":"\\ud800"}', 422),
    ],
)
def test_broken_bodies_are_refused(world: World, content: bytes, status: int) -> None:
    async def work(client: httpx.AsyncClient) -> None:
        headers = {"Content-Type": "application/json"}
        refused(await client.post("/nli", content=content, headers=headers), status)

    run(world, work)


def test_a_body_over_the_limit_is_refused(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "MAX_BODY_BYTES", 2**20)

    async def work(client: httpx.AsyncClient) -> None:
        said = refused(await client.post("/nli", json=body([Pair("x" * 2**20, "h")])), 413)
        assert "1 MB" in said["error"]
        assert (await client.post("/nli", json=body(PAIRS))).status_code == 200

    run(world, work)


def test_a_full_queue_says_when_to_come_back(world: World) -> None:
    few = world.settings.ml_server.model_copy(update={"queue_pairs": 4})

    async def all_of_it() -> None:
        service = NLIService(world.settings.model_copy(update={"ml_server": few}))
        app = FastAPI()
        app.include_router(create_router(service))
        await service.start()
        busy, batcher = threading.Event(), service._judging._batcher
        service._judging._inference.submit(busy.wait, 10)
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:

            def ask(pairs: list[Pair]) -> asyncio.Task[httpx.Response]:
                return asyncio.create_task(client.post("/nli", json=body(pairs)))

            first = ask(PAIRS[:1])
            while batcher._pump.done():
                await asyncio.sleep(0.01)
            waiting = [ask(PAIRS[:2]), ask(PAIRS[:2])]
            while sum(len(task.rows) for task in batcher._waiting) < 4:
                await asyncio.sleep(0.01)
            response = await ask(PAIRS[:1])
            said = refused(response, 429)
            assert "4 pairs wait already, 4 may" in said["error"]
            assert int(response.headers["Retry-After"]) >= 1
            busy.set()
            for answer in await asyncio.gather(first, *waiting):
                assert answer.status_code == 200
        await service.close()

    asyncio.run(all_of_it())


def test_the_version_of_a_request_can_be_chosen(world: World) -> None:
    world.publish(seed=1), world.publish(seed=2), world.publish(world.slow)

    async def work(client: httpx.AsyncClient) -> None:
        for adapter, name in {"base": "base", "v1": "lora-lyra-v1", None: "base"}.items():
            answer = await client.post("/nli", json=body(PAIRS, adapter=adapter))
            assert {r["adapter"] for r in answer.json()["results"]} == {name}
        said = refused(await client.post("/nli", json=body(PAIRS, adapter="v9")), 404)
        assert "lora-lyra-v1, lora-lyra-v2, lora-lyra-v3" in said["hint"]
        refused(await client.post("/nli", json=body(PAIRS, adapter="v3")), 409)
        slow = await client.post("/nli", json=body(PAIRS, adapter="v3", use_slow=True))
        assert slow.json()["results"][0]["adapter"] == "lora-lyra-v3"

    run(world, work)


def test_load_status_list_and_unload(world: World) -> None:
    version = world.publish()

    async def work(client: httpx.AsyncClient) -> None:
        status = (await client.get("/nli/adapter/status")).json()
        assert status["adapter_loaded"] is False
        assert status["adapter_path"] is None
        assert status["base_model"] == world.settings.nli.fast_model

        loaded = await client.post("/nli/adapter/load", json={"adapter_path": str(version.path)})
        assert loaded.json() == {
            "ok": True,
            "adapter_path": str(version.path),
            "message": "lora-lyra-v1 is now active, freshly loaded",
        }
        status = (await client.get("/nli/adapter/status")).json()
        assert status["adapter_loaded"] is True
        assert status["adapter_path"] == str(version.path)
        assert status["version"] == "lora-lyra-v1"
        assert status["digest"] == version.digest
        assert status["base_fingerprint"] == version.base_fingerprint
        assert status["loaded_at"].startswith("20")
        assert status["follow_error"] is None
        assert status["resident"][0]["bytes"] > 0
        assert status["slow"]["base_loaded"] is False

        [item] = (await client.get("/nli/adapters")).json()["adapters"]
        assert item["name"] == "lora-lyra-v1"
        assert item["aliases"] == ["active"]
        assert item["resident"] is True

        again = await client.post("/nli/adapter/load")  # as Lyra may: no body at all
        assert again.json()["ok"] is True
        for message in ("lora-lyra-v1 unloaded", "no adapter was loaded"):
            unloaded = await client.post("/nli/adapter/unload")
            assert unloaded.json() == {"ok": True, "message": message}
        assert (await client.get("/nli/adapter/status")).json()["adapter_loaded"] is False

    run(world, work)


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_pages_of_other_sites_change_nothing(world: World, site: str) -> None:
    world.publish()

    async def work(client: httpx.AsyncClient) -> None:
        await client.post("/nli/adapter/load", json={"adapter_path": "v1"})
        for path in ("/nli/adapter/load", "/nli/adapter/unload"):
            refused(await client.post(path, headers={"Sec-Fetch-Site": site}), 403)
        assert (await client.get("/nli/adapter/status")).json()["version"] == "lora-lyra-v1"

    run(world, work)


def test_refused_loads_have_the_right_status(world: World) -> None:
    rejected, broken = world.publish(status="rejected"), world.publish(seed=2)
    (broken.path / "evil.pkl").write_bytes(b"\x80\x04.")

    async def work(client: httpx.AsyncClient) -> None:
        async def load(**request: str) -> httpx.Response:
            return await client.post("/nli/adapter/load", json=request)

        refused(await client.post("/nli/adapter/load"), 404)
        refused(await load(adapter_path="v9"), 404)
        refused(await load(adapter_path=str(world.adapters / "lora-lyra-v9")), 404)
        said = refused(await load(adapter_path="/etc"), 422)
        assert "not a version's folder" in said["error"]
        said = refused(await load(adapter_path="v2"), 422)
        assert "evil.pkl: a pickle" in said["problems"][0]
        said = refused(await load(adapter_path=str(rejected.path)), 409)
        assert "reason" in said["hint"]
        assert (await load(adapter_path="v1", reason="a test")).status_code == 200

    run(world, work)


def test_without_a_database_the_base_is_served_and_that_is_told(
    tmp_path: Path, template: World
) -> None:
    async def work(client: httpx.AsyncClient) -> None:
        assert (await client.post("/nli", json=body(PAIRS))).json()["ok"] is True
        status = (await client.get("/nli/adapter/status")).json()
        assert status["database_found"] is False
        assert "there is no database" in status["follow_error"]
        response = await client.post("/nli/adapter/load", json={"adapter_path": "v1"})
        assert "db init" in refused(response, 503)["hint"]
        assert response.headers["Retry-After"]
        listed = (await client.get("/nli/adapters")).json()
        assert listed["adapters"] == []
        assert "no database" in listed["message"]

    run(make_world(tmp_path, like=template, database=False), work)


def test_health_before_and_after_the_warm_up(world: World) -> None:
    async def work(client: httpx.AsyncClient) -> None:
        assert (await client.get("/livez")).status_code == 200
        ready = await client.get("/readyz")
        assert (ready.status_code, ready.json()["ready"]) == (503, False)
        health = (await client.get("/health")).json()
        assert health["status"] == "loading"
        assert health["models_loaded"] == {"nli_fast": False, "nli_slow": False}
        response = await client.post("/nli", json=body(PAIRS))
        assert "still loading" in refused(response, 503)["error"]
        assert response.headers["Retry-After"]

        warm = await client.post("/warmup")
        assert warm.json()["ok"] is True
        assert warm.json()["models_loaded"]["nli_fast"] is True
        assert (await client.get("/readyz")).json() == {"ready": True, "error": None}
        assert (await client.get("/health")).json()["status"] == "ok"

    run(world, work, start=False)


def test_a_base_that_can_not_be_had_is_told_everywhere(tmp_path: Path, template: World) -> None:
    async def work(client: httpx.AsyncClient) -> None:
        refused(await client.post("/warmup"), 503)
        health = (await client.get("/health")).json()
        assert health["status"] == "error"
        assert "nowhere" in health["error"]
        assert (await client.get("/readyz")).status_code == 503
        refused(await client.post("/nli", json=body(PAIRS)), 503)

    run(
        make_world(tmp_path, like=template, fast_model=str(tmp_path / "nowhere")), work, start=False
    )


def test_the_router_works_under_a_prefix(world: World) -> None:
    async def work(client: httpx.AsyncClient) -> None:
        assert (await client.post("/ml/nli", json=body(PAIRS))).json()["ok"] is True
        refused(await client.post("/ml/nli", json={}), 422)

    run(world, work, mount="/ml")


def test_a_bug_is_a_500_that_shows_nothing_of_the_inside(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: object, **__: object) -> None:
        raise RuntimeError("secret inside")

    monkeypatch.setattr(NLIService, "judge", broken)
    app = create_app(world.settings)

    async def work() -> None:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
            response = await client.post("/nli", json=body(PAIRS))
            refused(response, 500)
            assert "secret" not in response.text
            refused(await client.get("/nowhere"), 404)
            refused(await client.get("/nli"), 405)

    asyncio.run(work())


def test_openapi_shows_examples(world: World) -> None:
    schema = create_app(world.settings).openapi()

    for path in ("/nli", "/nli/adapter/load", "/nli/adapter/unload", "/nli/adapter/status",
                 "/nli/adapters", "/health", "/warmup", "/livez", "/readyz"):  # fmt: skip
        assert path in schema["paths"], path
    for name in ("NLIRequest", "NLIResponse", "ErrorResponse", "LoadRequest", "LoadResponse"):
        assert schema["components"]["schemas"][name]["examples"], name
    json.dumps(schema)


def test_another_application_can_run_the_service(world: World) -> None:
    world.publish()
    failures: list[BaseException] = []

    async def work() -> None:
        service = NLIService(world.settings)
        async with running(service, follow_seconds=0.05, on_failure=failures.append):
            while not service.ready:
                await asyncio.sleep(0.01)
            world.activate("v1")
            for _ in range(200):
                if service.status()["adapter_loaded"]:
                    break
                await asyncio.sleep(0.02)
            answer = await service.judge(PAIRS)
            assert answer.judgements[0].adapter == "lora-lyra-v1"

    asyncio.run(work())
    assert failures == []


def test_a_bug_in_following_leaves_the_server_serving_and_is_told(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work() -> None:
        service = NLIService(world.settings)
        failures: list[BaseException] = []
        await service.start()
        async with running(service, follow_seconds=0.01, on_failure=failures.append):
            monkeypatch.setattr(Registry, "active", lambda *_: 1 / 0)
            while service.status()["follow_error"] is None:
                await asyncio.sleep(0.01)
            assert "ZeroDivisionError" in service.status()["follow_error"]
            assert len((await service.judge(PAIRS)).judgements) == len(PAIRS)
        assert failures == []

    asyncio.run(work())
