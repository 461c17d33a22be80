"""What keeps account of the answers: metrics, traces, and the log of predictions."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lyra_nli.ml_server.metrics import Metrics
from lyra_nli.ml_server.traces import Attributes, open_traces
from lyra_nli.monitoring.prediction_rows import Judged
from lyra_nli.monitoring.predictions import PredictionLog
from lyra_nli.records import Judgement, Pair
from lyra_nli.settings import Settings
from lyra_nli.storage.engine import now

NO_ROUTE: Final = "(none)"
"""The route of requests that no route takes; their paths are anybody's invention."""


@dataclass(frozen=True, slots=True)
class Timing:
    """When a request asked the model, when its turn came, and when it was answered.

    Seconds of the monotonic clock, which a change of the wall clock doesn't move.
    """

    asked: float
    began: float
    ended: float

    @property
    def waited(self) -> float:
        """Seconds until its turn came."""
        return self.began - self.asked

    @property
    def judged(self) -> float:
        """Seconds that the model took."""
        return self.ended - self.began


class Observer:
    """Told of every answer; what it does takes microseconds and can't fail.

    Raises:
        SettingsError: traces are wanted, and their packages are not installed.
    """

    def __init__(self, settings: Settings) -> None:
        self.metrics = Metrics()
        self.traces = open_traces(settings.monitoring.otlp_endpoint)
        self.log = PredictionLog(settings.storage, settings.monitoring)

    def start(self) -> None:
        """Begin to write the log."""
        self.log.start()

    def close(self) -> None:
        """Write and send what waits. Blocks."""
        self.log.close()
        self.traces.close()

    def queued(self) -> AbstractContextManager[object]:
        """Count a request while it waits for the model or is judged."""
        return self.metrics.queue_depth.track_inprogress()

    def judged(
        self,
        base_model: str,
        pairs: Sequence[Pair],
        judgements: Sequence[Judgement],
        sources: Sequence[str],
        timing: Timing,
    ) -> None:
        """Take note of the answers to one request, inside its task."""
        self.metrics.judged(base_model, judgements, timing.waited, timing.judged)
        self.traces.record("wait", timing.asked, timing.began, {})
        about: Attributes = {
            "lyra_nli.base_model": base_model,
            "lyra_nli.version": ", ".join(dict.fromkeys(j.adapter for j in judgements)),
            "lyra_nli.pairs": len(pairs),
        }
        self.traces.record("judge", timing.began, timing.ended, about)
        milliseconds = 1000 * (timing.ended - timing.asked)
        self.log.put(Judged(now(), base_model, pairs, judgements, milliseconds, sources))


class Observed:
    """ASGI middleware: every request with its route, status and duration."""

    def __init__(self, app: ASGIApp, observer: Observer) -> None:
        self._app = app
        self._observer = observer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and watch what becomes of it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = 500  # what a request is answered with that ends in an exception

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        began = time.monotonic()
        with self._observer.traces.request(scope) as answered:
            try:
                await self._app(scope, receive, watched)
            finally:
                route = getattr(scope.get("route"), "path", NO_ROUTE)
                seconds = time.monotonic() - began
                self._observer.metrics.request(scope["method"], route, status, seconds)
                answered(route, status)
