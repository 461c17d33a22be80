"""Traces, sent to a real OTLP/HTTP collector on a socket."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from serving_world import PAIRS, World, body, live_server

from lyra_nli.errors import SettingsError
from lyra_nli.ml_server.traces import VARIABLES, OtlpTraces, Traces, open_traces
from lyra_nli.settings import Settings

CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Collector:
    """What arrived, and where."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.paths: list[str] = []
        self.requests: list[ExportTraceServiceRequest] = []

    @property
    def spans(self) -> list[Span]:
        resources = (each for request in self.requests for each in request.resource_spans)
        scopes = (each for resource in resources for each in resource.scope_spans)
        return [span for scope in scopes for span in scope.spans]

    def named(self, name: str) -> list[Span]:
        return [span for span in self.spans if span.name == name]


@pytest.fixture
def collector() -> Iterator[Collector]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = int(self.headers["Content-Length"])
            found.requests.append(ExportTraceServiceRequest.FromString(self.rfile.read(length)))
            found.paths.append(self.path)
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found = Collector(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield found
    server.shutdown()
    server.server_close()


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*VARIABLES, "OTEL_SERVICE_NAME"):
        monkeypatch.delenv(name, raising=False)


def attributes(span: Span) -> dict[str, object]:
    return {each.key: each.value.string_value or each.value.int_value for each in span.attributes}


def with_endpoint(world: World, endpoint: str | None) -> Settings:
    monitoring = world.settings.monitoring.model_copy(update={"otlp_endpoint": endpoint})
    return world.settings.model_copy(update={"monitoring": monitoring})


@contextmanager
def asked(settings: Settings) -> Iterator[str]:
    """A server that has answered one good request, one bad one and one to nowhere."""
    with live_server(settings) as url, httpx.Client(base_url=url, trust_env=False) as client:
        good = client.post("/nli", json=body(PAIRS), headers={"traceparent": CALLER})
        assert good.status_code == 200
        assert client.post("/nli", json={"pairs": 1}).status_code == 422
        assert client.get("/secret/17").status_code == 404
        yield url


def test_a_request_is_a_span_with_its_waiting_and_judging(
    world: World, collector: Collector
) -> None:
    with asked(with_endpoint(world, collector.url + "/")):
        pass

    assert set(collector.paths) == {"/v1/traces"}
    good, bad = sorted(collector.named("POST /nli"), key=lambda span: span.start_time_unix_nano)
    [wait], [judge] = collector.named("wait"), collector.named("judge")
    assert good.trace_id.hex() == "0af7651916cd43dd8448eb211c80319c"
    assert good.parent_span_id.hex() == "b7ad6b7169203331"
    assert good.kind == Span.SPAN_KIND_SERVER
    assert wait.parent_span_id == judge.parent_span_id == good.span_id
    assert wait.trace_id == judge.trace_id == good.trace_id != bad.trace_id
    assert good.start_time_unix_nano <= wait.start_time_unix_nano + 2_000_000
    assert wait.end_time_unix_nano == pytest.approx(judge.start_time_unix_nano, abs=1_000_000)
    assert judge.end_time_unix_nano <= good.end_time_unix_nano + 2_000_000
    assert attributes(judge) == {
        "lyra_nli.base_model": world.settings.nli.fast_model,
        "lyra_nli.version": "base",
        "lyra_nli.pairs": 3,
    }
    assert attributes(good)["http.response.status_code"] == 200
    assert attributes(bad)["http.response.status_code"] == 422
    assert bad.status.code == Status.STATUS_CODE_UNSET, "the caller's fault, not the server's"


def test_an_unknown_path_gives_a_span_a_name_but_no_route(
    world: World, collector: Collector
) -> None:
    with asked(with_endpoint(world, collector.url)):
        pass

    [nowhere] = collector.named("GET (none)")
    assert attributes(nowhere)["url.path"] == "/secret/17"
    assert attributes(nowhere)["http.response.status_code"] == 404


def test_the_server_names_itself_unless_the_environment_does(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = []
    for name in (None, "judge-7"):
        if name:
            monkeypatch.setenv("OTEL_SERVICE_NAME", name)
        traces = open_traces(collector.url)
        traces.record("judge", 1.0, 2.0, {})
        traces.close()
        [resource] = collector.requests[-1].resource_spans
        values = {each.key: each.value.string_value for each in resource.resource.attributes}
        names.append(values["service.name"])

    assert names == ["lyra-nli", "judge-7"]


def test_opentelemetrys_own_variable_is_enough(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
    traces = open_traces(None)
    traces.record("judge", 1.0, 3.5, {"lyra_nli.pairs": 2})
    traces.close()

    [span] = collector.spans
    assert span.end_time_unix_nano - span.start_time_unix_nano == 2_500_000_000


def test_nothing_is_sent_where_nobody_says_where(world: World) -> None:
    traces = open_traces(None)
    assert type(traces) is Traces
    with asked(with_endpoint(world, None)):
        pass


def test_without_the_packages_a_setting_is_an_error_that_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(SettingsError) as error:
        open_traces("http://127.0.0.1:4318")
    assert "pip install 'lyra-nli[otel]'" in error.value.hint


def test_without_the_packages_a_variable_for_all_programs_is_only_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318")
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)

    assert type(open_traces(None)) is Traces
    assert "pip install 'lyra-nli[otel]'" in caplog.text


def test_a_collector_that_is_gone_costs_no_answer(world: World, collector: Collector) -> None:
    gone = "http://127.0.0.1:9"
    assert isinstance(open_traces(gone), OtlpTraces)
    with asked(with_endpoint(world, gone)) as url:
        for _ in range(5):
            answer = httpx.post(f"{url}/nli", json=body(PAIRS), trust_env=False)
            assert answer.status_code == 200
