"""Prometheus metrics that the server counts itself; `scrape` adds what is asked for.

Names follow https://prometheus.io/docs/practices/naming: base units, ``_total`` for what only
rises, ``_info`` for labels without a number. Every application has a registry of its own.
"""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Sequence
from typing import Any, Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from lyra_nli.records import Judgement

SECONDS: Final = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60)
"""From one pair on a fast machine to a thousand on a slow one."""

PAIRS: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)

METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class Metrics:
    """Counters, gauges and histograms, and the registry that shows them."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ours: dict[str, Any] = {"namespace": "lyra_nli", "registry": self.registry}
        timed: dict[str, Any] = {**ours, "buckets": SECONDS}
        self._requests = Counter(
            "requests", "HTTP requests answered", ("method", "route", "status"), **ours
        )
        self._request_seconds = Histogram(
            "request_seconds", "From a request to its answer", ("route",), **timed
        )
        self.queue_depth = Gauge(
            "queue_depth", "Requests that wait for the model or are being judged", **ours
        )
        self._wait_seconds = Histogram("wait_seconds", "Until the model was free", **timed)
        self._judge_seconds = Histogram(
            "judge_seconds", "What the model took for a request", ("base_model",), **timed
        )
        self._request_pairs = Histogram(
            "request_pairs", "Pairs judged for a request", buckets=PAIRS, **ours
        )
        self._pairs = Counter(
            "judged_pairs", "Pairs judged", ("base_model", "version", "label"), **ours
        )

    def request(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count an HTTP request."""
        known = method if method in METHODS else "other"
        self._requests.labels(known, route, str(status)).inc()
        self._request_seconds.labels(route).observe(seconds)

    def judged(
        self, base_model: str, judgements: Sequence[Judgement], waited: float, took: float
    ) -> None:
        """Count the answers to a request; both times in seconds."""
        self._wait_seconds.observe(waited)
        self._judge_seconds.labels(base_model).observe(took)
        self._request_pairs.observe(len(judgements))
        answers = Tally((judgement.adapter, judgement.label) for judgement in judgements)
        for (version, label), n in answers.items():
            self._pairs.labels(base_model, version, label).inc(n)
