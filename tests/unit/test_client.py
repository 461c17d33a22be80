from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import httpx
import pytest

from lyra_nli.client import AsyncMLClient, MLClient, async_nli_judge, nli_judge
from lyra_nli.client_protocol import PAIRS_PER_REQUEST
from lyra_nli.errors import InputError, ServerError
from lyra_nli.records import Judgement, Pair

Handler = Callable[[httpx.Request], httpx.Response]
Ask = Callable[..., Any]

PAIRS = [Pair("Rain fell.", "It was wet."), Pair("Rain fell.", "It was dry.")]


def result(pair_id: str, label: str = "supports", confidence: float = 0.9) -> dict[str, Any]:
    rest = (1 - confidence) / 2
    probabilities = dict.fromkeys(("supports", "refutes", "neutral"), rest)
    return {
        "pair_id": pair_id,
        "label": label,
        "confidence": confidence,
        "raw_label": "entailment",
        "probabilities": {**probabilities, label: confidence},
        "truncated": False,
        "adapter": "base",
    }


def answer(request: httpx.Request, **changes: Any) -> httpx.Response:
    ids = [pair["pair_id"] for pair in json.loads(request.content)["pairs"]]
    results = [result(pair_id, **changes) for pair_id in ids]
    return httpx.Response(200, json={"ok": True, "results": results, "error": None})


@pytest.fixture(params=["sync", "async"])
def ask(request: pytest.FixtureRequest) -> Ask:
    """Call a method of either client (or nli_judge) against a handler."""

    def sync(handler: Handler, method: str, *args: Any, url: str = "http://s", **kw: Any) -> Any:
        transport = httpx.MockTransport(handler)
        with MLClient(url, backoff=0.001, attempts=4, transport=transport) as client:
            if method == "nli_judge":
                return nli_judge(client, *args, **kw)
            return getattr(client, method)(*args, **kw)

    def through_async(
        handler: Handler, method: str, *args: Any, url: str = "http://s", **kw: Any
    ) -> Any:
        async def work() -> Any:
            transport = httpx.MockTransport(handler)
            async with AsyncMLClient(url, backoff=0.001, attempts=4, transport=transport) as client:
                if method == "nli_judge":
                    return await async_nli_judge(client, *args, **kw)
                return await getattr(client, method)(*args, **kw)

        return asyncio.run(work())

    return sync if request.param == "sync" else through_async


def test_judgements_come_in_the_order_of_the_pairs(ask: Ask) -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        sent = json.loads(request.content)
        assert sent["use_slow"] is True
        assert sent["adapter"] == "v3"
        results = [
            result(pair["pair_id"], label="refutes" if "dry" in pair["hypothesis"] else "supports")
            for pair in reversed(sent["pairs"])
        ]
        return httpx.Response(200, json={"ok": True, "results": results})

    got = ask(handler, "judge", PAIRS, use_slow=True, adapter="v3")

    assert [judgement.label for judgement in got] == ["supports", "refutes"]
    assert got[0] == Judgement(
        label="supports",
        confidence=0.9,
        probabilities=pytest.approx({"supports": 0.9, "refutes": 0.05, "neutral": 0.05}),
        raw_label="entailment",
        truncated=False,
        adapter="base",
    )


def test_wishes_are_sent_only_where_there_are_any(ask: Ask) -> None:
    bodies: list[dict[str, Any]] = []

    def handler(request: httpx.Request) -> httpx.Response:
        bodies.append(json.loads(request.content))
        return answer(request)

    ask(handler, "judge", PAIRS)
    ask(handler, "judge", PAIRS, slow_below=0.7, windows=False, deadline_seconds=2.5)

    assert {*bodies[0]} == {"pairs", "use_slow", "adapter"}
    wishes = {"slow_below": 0.7, "windows": False, "deadline_seconds": 2.5}
    assert bodies[1] == {**bodies[0], **wishes}


def test_windows_are_read_and_older_servers_have_none(ask: Ask) -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        old, new = result("0"), {**result("1"), "windows": 4, "evidence": [120, 480]}
        return httpx.Response(200, json={"ok": True, "results": [old, new]})

    old, new = ask(handler, "judge", PAIRS)

    assert (old.windows, old.evidence) == (1, None)
    assert (new.windows, new.evidence) == (4, (120, 480))


def test_many_pairs_go_in_several_requests(ask: Ask) -> None:
    sizes: list[int] = []

    def handler(request: httpx.Request) -> httpx.Response:
        sizes.append(len(json.loads(request.content)["pairs"]))
        return answer(request)

    assert ask(handler, "judge", []) == []
    assert sizes == []
    assert len(ask(handler, "judge", PAIRS * PAIRS_PER_REQUEST)) == 2 * PAIRS_PER_REQUEST
    assert sizes == [PAIRS_PER_REQUEST, PAIRS_PER_REQUEST]
    sizes.clear()
    ask(handler, "judge", [Pair("x" * 3_000_000, "y")] * 3)
    assert sizes == [2, 1]


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_server_is_asked_again(ask: Ask, status: int) -> None:
    calls: list[float] = []

    def handler(request: httpx.Request) -> httpx.Response:
        calls.append(time.monotonic())
        busy = httpx.Response(status, headers={"Retry-After": "0.2"}, json={"ok": False})
        return answer(request) if len(calls) > 1 else busy

    assert len(ask(handler, "judge", PAIRS)) == 2
    assert len(calls) == 2
    assert calls[1] - calls[0] >= 0.2, "it waits as long as it is asked to"


def test_retry_after_may_be_a_date_and_must_not_be_too_long(ask: Ask) -> None:
    calls: list[str] = []

    def busy(header: str) -> Handler:
        def handler(request: httpx.Request) -> httpx.Response:
            calls.append(header)
            return httpx.Response(503, headers={"Retry-After": header}, json={"error": "busy"})

        return handler

    now = datetime.now(UTC)
    for header, expected in (
        ("3600", 1),
        (format_datetime(now + timedelta(hours=1), usegmt=True), 1),
        (format_datetime(now - timedelta(hours=1), usegmt=True), 4),
        ("nan", 4),
        ("soon", 4),
    ):
        calls.clear()
        with pytest.raises(ServerError, match="busy") as error:
            ask(busy(header), "judge", PAIRS)
        assert error.value.status == 503
        assert len(calls) == expected, header


@pytest.mark.parametrize(
    "error", [httpx.ConnectError, httpx.ConnectTimeout, httpx.ReadError, httpx.RemoteProtocolError]
)
def test_connection_errors_are_tried_again(ask: Ask, error: type[httpx.TransportError]) -> None:
    calls: list[int] = []

    def handler(request: httpx.Request) -> httpx.Response:
        calls.append(1)
        if len(calls) < 4:
            raise error("gone")
        return answer(request)

    assert len(ask(handler, "judge", PAIRS)) == 2
    calls[:] = [1] * -10
    with pytest.raises(ServerError, match="http://s/") as raised:
        ask(lambda _: (_ for _ in ()).throw(error("gone")), "judge", PAIRS)
    assert raised.value.status is None
    assert raised.value.hint


def test_a_slow_answer_is_not_asked_for_twice(ask: Ask) -> None:
    calls: list[int] = []

    def handler(request: httpx.Request) -> httpx.Response:
        calls.append(1)
        raise httpx.ReadTimeout("slow")

    with pytest.raises(ServerError, match="in time"):
        ask(handler, "judge", PAIRS)
    assert len(calls) == 1


@pytest.mark.parametrize("status", [400, 404, 409, 413, 422, 500, 502])
def test_other_refusals_are_told_at_once(ask: Ask, status: int) -> None:
    calls: list[int] = []

    def handler(request: httpx.Request) -> httpx.Response:
        calls.append(1)
        said = {"ok": False, "error": "no", "problems": ["pair '0': empty"], "hint": "do that"}
        return httpx.Response(status, json=said)

    with pytest.raises(ServerError) as error:
        ask(handler, "judge", PAIRS)
    assert len(calls) == 1
    assert error.value.status == status
    assert error.value.message == "no"
    assert error.value.problems == ("pair '0': empty",)
    assert error.value.hint == "do that"


def _without(key: str) -> dict[str, Any]:
    return {name: value for name, value in result("0").items() if name != key}


@pytest.mark.parametrize(
    "body",
    [
        {"ok": False, "results": [], "error": "it failed"},
        {"ok": True, "results": []},
        {"ok": True, "results": None},
        {"ok": True, "results": ["0"]},
        {"ok": True, "results": [{**result("0"), "label": "entailment"}]},
        {"ok": True, "results": [{**result("0"), "probabilities": None}]},
        {"ok": True, "results": [{**result("0"), "probabilities": {"supports": 1.0}}]},
        {"ok": True, "results": [result("0", confidence=7.0)]},
        {"ok": True, "results": [_without("label")]},
        {"ok": True, "results": [_without("adapter")]},
        [],
        "text",
    ],
)
def test_what_is_no_answer_is_an_error_never_a_label(ask: Ask, body: Any) -> None:
    with pytest.raises(ServerError):
        ask(lambda _: httpx.Response(200, json=body), "judge", PAIRS[:1])


def test_another_program_on_the_port_is_told(ask: Ask) -> None:
    page = httpx.Response(404, text="<html>nginx</html>")
    with pytest.raises(ServerError, match="not as an ML server does"):
        ask(lambda _: page, "status")


def test_the_other_calls(ask: Ask) -> None:
    seen: list[tuple[str, str, Any]] = []

    def handler(request: httpx.Request) -> httpx.Response:
        sent = json.loads(request.content) if request.content else None
        seen.append((request.method, request.url.path, sent))
        return httpx.Response(200, json={"ok": True, "message": "done"})

    url = "http://s/ml"
    assert ask(handler, "health", url=url)["message"] == "done"
    ask(handler, "status", url=url)
    ask(handler, "load_adapter", "adapters/lora-lyra-v1", reason="better", url=url)
    ask(handler, "load_adapter", url=url)
    ask(handler, "unload_adapter", url=url)
    assert seen == [
        ("GET", "/ml/health", None),
        ("GET", "/ml/nli/adapter/status", None),
        ("POST", "/ml/nli/adapter/load",
         {"adapter_path": "adapters/lora-lyra-v1", "reason": "better"}),
        ("POST", "/ml/nli/adapter/load", {"adapter_path": None, "reason": None}),
        ("POST", "/ml/nli/adapter/unload", {"reason": None}),
    ]  # fmt: skip


@pytest.mark.parametrize("url", ["", "localhost:8100", "ftp://x", "http://", "http://a:b:c", "x y"])
def test_what_is_no_url_is_told(url: str) -> None:
    for kind in (MLClient, AsyncMLClient):
        with pytest.raises(InputError):
            kind(url)


def test_half_a_surrogate_pair_is_told(ask: Ask) -> None:
    with pytest.raises(InputError, match="surrogate"):
        ask(answer, "judge", [Pair("\ud800", "x")])


def test_a_server_that_is_not_there_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with (
        MLClient(f"http://127.0.0.1:{port}", attempts=2, backoff=0.001) as client,
        pytest.raises(ServerError) as error,
    ):
        client.health()
    assert str(port) in error.value.message
    assert "lyra-nli serve" in error.value.hint


# --- nli_judge ----------------------------------------------------------------------------


def _two_models(slow: Callable[[httpx.Request], httpx.Response]) -> tuple[Handler, list[Any]]:
    requests: list[Any] = []

    def handler(request: httpx.Request) -> httpx.Response:
        sent = json.loads(request.content)
        requests.append(sent)
        if sent["use_slow"]:
            return slow(request)
        results = [
            result(pair["pair_id"], confidence=float(pair["premise"])) for pair in sent["pairs"]
        ]
        return httpx.Response(200, json={"ok": True, "results": results})

    return handler, requests


def test_the_slow_model_is_asked_only_where_the_fast_one_is_unsure(ask: Ask) -> None:
    handler, requests = _two_models(lambda r: answer(r, label="neutral", confidence=0.6))
    pairs = [Pair(sure, "h") for sure in ("0.9", "0.5", "0.7", "0.69")]

    got = ask(handler, "nli_judge", pairs)

    assert [(j.label, j.confidence) for j in got] == [
        ("supports", 0.9),
        ("neutral", 0.6),
        ("supports", 0.7),
        ("neutral", 0.6),
    ]
    assert [pair["premise"] for pair in requests[1]["pairs"]] == ["0.5", "0.69"]


def test_sure_answers_need_no_slow_model(ask: Ask) -> None:
    handler, requests = _two_models(lambda _: httpx.Response(500))

    assert len(ask(handler, "nli_judge", [Pair("0.9", "h")])) == 1
    assert len(ask(handler, "nli_judge", [Pair("0.5", "h")], threshold=0.4)) == 1
    assert ask(handler, "nli_judge", []) == []
    assert len(requests) == 2


def test_a_failing_slow_model_is_an_error(ask: Ask) -> None:
    handler, _ = _two_models(lambda _: httpx.Response(500, json={"error": "broken"}))

    with pytest.raises(ServerError, match="broken"):
        ask(handler, "nli_judge", [Pair("0.9", "h"), Pair("0.5", "h")])


def test_the_calibrated_confidence_is_read_where_the_server_knows_one(ask: Ask) -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        known = {**result("0"), "calibrated_confidence": 0.75, "calibration": 4}
        unknown = {**result("1"), "calibrated_confidence": None, "calibration": None}
        older_server = result("2")
        return httpx.Response(200, json={"ok": True, "results": [known, unknown, older_server]})

    answers = ask(handler, "judge", [*PAIRS, PAIRS[0]])
    assert [(each.calibrated_confidence, each.calibration) for each in answers] == [
        (0.75, 4),
        (None, None),
        (None, None),
    ]


def test_confidence_is_the_models_own_also_from_a_server_that_shows_another(ask: Ask) -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        shown = {"confidence": 0.6, "raw_confidence": 0.9, "calibrated_confidence": 0.6}
        return httpx.Response(200, json={"ok": True, "results": [{**result("0"), **shown}]})

    [answer] = ask(handler, "judge", PAIRS[:1])
    assert (answer.confidence, answer.calibrated_confidence) == (0.9, 0.6)


@pytest.mark.parametrize("wrong", [1.5, -0.1, "high"])
def test_a_calibrated_confidence_that_is_none_is_an_error(ask: Ask, wrong: object) -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        damaged = {**result("0"), "calibrated_confidence": wrong}
        return httpx.Response(200, json={"ok": True, "results": [damaged]})

    with pytest.raises(ServerError, match="can't be read"):
        ask(handler, "judge", PAIRS[:1])


def test_a_key_travels_with_every_request(ask: Ask) -> None:
    sent: list[Any] = []

    def handler(request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content)
        sent.append(body.get("key"))
        return answer(request)

    ask(handler, "judge", PAIRS, key="task 7")
    ask(handler, "judge", PAIRS)
    ask(handler, "nli_judge", PAIRS, threshold=1.0, key="b")
    assert sent == ["task 7", None, "b", "b"]


def test_sources_travel_with_their_pairs(ask: Ask) -> None:
    sent: list[tuple[Any, list[str]]] = []

    def handler(request: httpx.Request) -> httpx.Response:
        asked = json.loads(request.content)
        sent.append((asked["adapter"], [pair["source_url"] for pair in asked["pairs"]]))
        return answer(request, confidence=0.9 if not asked["use_slow"] else 0.95)

    urls = ["https://a.org", "https://b.org"]
    ask(handler, "judge", PAIRS)
    ask(handler, "judge", PAIRS, adapter="v3", sources=urls)
    ask(handler, "nli_judge", PAIRS, threshold=0.92, sources=urls)
    assert sent == [(None, ["", ""]), ("v3", urls), (None, urls), (None, urls)]
    with pytest.raises(InputError, match="2 pairs and 1 sources"):
        ask(handler, "judge", PAIRS, sources=urls[:1])
