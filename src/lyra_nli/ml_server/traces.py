"""OpenTelemetry traces: a span for every request, and in it the waiting and the judging.

They are sent by OTLP over HTTP when ``monitoring.otlp_endpoint`` or OpenTelemetry's own variable
``OTEL_EXPORTER_OTLP_ENDPOINT`` says where; its other variables (``OTEL_SERVICE_NAME``,
``OTEL_TRACES_SAMPLER``, ...) count too. Nothing global is set up, so an application that mounts
our routers keeps its own traces.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Final

from starlette.datastructures import Headers
from starlette.types import Scope

from lyra_nli import __version__
from lyra_nli.errors import SettingsError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

logger = logging.getLogger(__name__)

VARIABLES: Final = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")

CLOSE_SECONDS: Final = 3.0
"""What may be spent on the last spans when the server ends."""

Attributes = Mapping[str, str | int]

Answered = Callable[[str, int], None]
"""To be called with the route and the status of a request, before its span ends."""


class Traces:
    """Where spans go; here nowhere, for nobody wants to know."""

    def request(self, scope: Scope) -> AbstractContextManager[Answered]:  # noqa: ARG002
        """Open the span of an HTTP request, a child of the caller's if it names one."""
        return nullcontext(_unheard)

    def record(self, name: str, began: float, ended: float, about: Attributes) -> None:
        """Add a span to the present request, between two times of the monotonic clock."""

    def close(self) -> None:
        """Send what waits. Blocks."""


def open_traces(endpoint: str | None) -> Traces:
    """Choose where spans go; nowhere when nobody says where.

    Args:
        endpoint: ``http://localhost:4318``; None leaves it to OpenTelemetry's variables.

    Raises:
        SettingsError: an endpoint is set, and the packages are not installed.
    """
    if not (endpoint or any(os.environ.get(name) for name in VARIABLES)):
        return Traces()
    try:
        return OtlpTraces(_provider(endpoint))
    except ModuleNotFoundError as error:
        words = f"OpenTelemetry traces need packages that are not installed ({error.name})"
        hint = "Install them with `pip install 'lyra-nli[otel]'`."
        if endpoint:
            raise SettingsError(words, hint=hint) from error
        logger.warning("%s. %s", words, hint)  # the variable may be meant for other programs
        return Traces()


class OtlpTraces(Traces):
    """Spans to a collector, sent in batches by a thread of the exporter."""

    def __init__(self, provider: TracerProvider) -> None:
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._provider = provider
        self._tracer = provider.get_tracer("lyra_nli", __version__)
        self._callers = TraceContextTextMapPropagator()

    @contextmanager
    def request(self, scope: Scope) -> Iterator[Answered]:
        """Open the span of an HTTP request, a child of the caller's if it names one."""
        from opentelemetry.trace import SpanKind, StatusCode

        method = scope["method"]
        about = {
            "http.request.method": method,
            "url.path": scope["path"],
            "url.scheme": scope["scheme"],
        }
        caller = self._callers.extract(Headers(scope=scope))
        with self._tracer.start_as_current_span(
            method, context=caller, kind=SpanKind.SERVER, attributes=about
        ) as span:

            def answered(route: str, status: int) -> None:
                span.update_name(f"{method} {route}")
                span.set_attributes({"http.route": route, "http.response.status_code": status})
                if status >= 500:
                    span.set_status(StatusCode.ERROR)

            yield answered

    def record(self, name: str, began: float, ended: float, about: Attributes) -> None:
        """Add a span to the present request, between two times of the monotonic clock."""
        to_wall = time.time_ns() - time.monotonic_ns()
        start, end = (round(1e9 * moment) + to_wall for moment in (began, ended))
        self._tracer.start_span(name, start_time=start, attributes=dict(about)).end(end)

    def close(self) -> None:
        """Send what waits. Blocks."""
        # Its own time limits don't hold where nobody listens at the other end.
        sending = threading.Thread(target=self._provider.shutdown, daemon=True)
        sending.start()
        sending.join(CLOSE_SECONDS)


def _unheard(route: str, status: int) -> None:
    """Do nothing."""


def _provider(endpoint: str | None) -> TracerProvider:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    named = {} if os.environ.get("OTEL_SERVICE_NAME") else {"service.name": "lyra-nli"}
    resource = Resource.create({**named, "service.version": __version__})
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    target = f"{endpoint.rstrip('/')}/v1/traces" if endpoint else None
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(target)))
    return provider
