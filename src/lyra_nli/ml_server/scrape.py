"""``GET /metrics``: what the server counted, what it serves now, and what the database says."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Final, Protocol

from fastapi import APIRouter, Request, Response
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder

from lyra_nli import __version__
from lyra_nli.errors import LyraNliError
from lyra_nli.ml_server.nli import NLIService
from lyra_nli.monitoring.figures import Figures, read_figures
from lyra_nli.settings import Settings

FRESH_SECONDS: Final = 5.0
"""The database is read again after this; scrapes in between share one reading."""

OUTCOMES: Final = ("judged", "disagreed", "skipped", "failed")
"""Of a pair on trial, as in ``Tally``."""

Samples = Mapping[tuple[str, ...], float]


class Collector(Protocol):
    """What prometheus_client asks at every scrape."""

    def collect(self) -> Iterator[Metric]:
        """Give the metrics."""


def create_metrics_router(service: NLIService, settings: Settings) -> APIRouter:
    """``GET /metrics``, as text for Prometheus or in the OpenMetrics format, as it is asked."""
    router = APIRouter(tags=["monitoring"])
    registry = service.observer.metrics.registry
    collectors: tuple[Collector, ...] = (ServiceCollector(service), DatabaseCollector(settings))
    for collector in collectors:
        registry.register(collector)

    @router.get("/metrics", response_class=Response)
    def metrics(request: Request) -> Response:  # in a thread: it reads the database
        """Give all metrics, in the exposition format of Prometheus."""
        encode, media_type = choose_encoder(request.headers.get("accept", ""))
        return Response(encode(registry), headers={"Content-Type": media_type})

    return router


class ServiceCollector:
    """What is served now, and how the log of predictions is doing."""

    def __init__(self, service: NLIService) -> None:
        self._service = service

    def describe(self) -> tuple[Metric, ...]:
        """Say nothing, or it would be asked already when it is registered."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Give the metrics."""
        status = self._service.status()
        yield _gauge("build_info", "The program", ("version",), {(__version__,): 1})
        yield _gauge("ready", "1 when pairs are judged", (), {(): self._service.ready})
        yield _gauge(
            "active_version_info",
            "What answers when a request names no version",
            ("speed", "base_model", "version", "digest", "calibration"),
            {
                (
                    speed,
                    slot["base_model"],
                    slot["version"] or "base",
                    slot["digest"] or "",
                    str(slot["calibration"] or ""),
                ): 1
                for speed, slot in (("fast", status), ("slow", status["slow"]))
                if slot["base_loaded"]
            },
        )
        yield _gauge(
            "adapter_load_seconds",
            "What it took to check and build each version in memory",
            ("base_model", "version"),
            {(v["base_model"], v["version"]): v["load_seconds"] for v in status["resident"]},
        )
        yield _gauge(
            "following",
            "0 when the registry can't be followed",
            (),
            {(): status["follow_error"] is None},
        )
        yield _gauge(
            "watching",
            "0 when the watch can't look, which ends canaries and rolls back",
            (),
            {(): status["watch_error"] is None},
        )
        trials = CounterMetricFamily(
            "lyra_nli_trial_pairs",
            "Pairs of the open shadow and canary; a disagreement of a shadow was judged, too",
            labels=("kind", "base_model", "version", "outcome"),
        )
        for trial in status["trials"]:
            for outcome in OUTCOMES:
                labels = (trial["kind"], trial["base_model"], trial["version"], outcome)
                trials.add_metric(labels, trial[outcome])
        yield trials
        log = status["prediction_log"]
        yield CounterMetricFamily(
            "lyra_nli_predictions_logged", "Pairs written to the log", log["written"]
        )
        yield CounterMetricFamily(
            "lyra_nli_predictions_dropped", "Pairs that should have been logged", log["dropped"]
        )


class DatabaseCollector:
    """What the database says; when it can't be read, only that."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._figures: Figures | None = None
        self._fresh_until = -math.inf

    def describe(self) -> tuple[Metric, ...]:
        """Say nothing, or it would be asked already when it is registered."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Give the metrics."""
        figures = self._read()
        yield _gauge("database_up", "1 when it can be read", (), {(): figures is not None})
        if figures is None:
            return
        reviews: Samples = {("agreed",): figures.agreed, ("corrected",): figures.corrected}
        yield _gauge("reviews", "Reviews that stand", ("verdict",), reviews)
        names = {condition: (condition.name,) for condition in figures.conditions}
        yield _gauge(
            "due_condition",
            "1 where a condition of training holds",
            ("condition",),
            {name: condition.holds for condition, name in names.items()},
        )
        yield _gauge(
            "due_value",
            "How far it has come",
            ("condition",),
            {name: condition.value for condition, name in names.items()},
        )
        yield _gauge(
            "due_threshold",
            "How far it must come",
            ("condition",),
            {name: condition.threshold for condition, name in names.items()},
        )
        alerts: Samples = {(rule,): n for rule, n in figures.open_alerts.items()}
        yield _gauge(
            "open_alerts", "What the watch found, and nobody has settled", ("rule",), alerts
        )

    def _read(self) -> Figures | None:
        with self._lock:
            if time.monotonic() >= self._fresh_until:
                try:
                    self._figures = read_figures(self._settings)
                except (LyraNliError, OSError):
                    self._figures = None
                self._fresh_until = time.monotonic() + FRESH_SECONDS
            return self._figures


def _gauge(name: str, words: str, labels: tuple[str, ...], samples: Samples) -> Metric:
    family = GaugeMetricFamily(f"lyra_nli_{name}", words, labels=labels)
    for values, number in samples.items():
        family.add_metric(values, number)
    return family
