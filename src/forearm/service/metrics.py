"""What a service counts, in Prometheus' text format. One registry a service: nothing global."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"
SECONDS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)


class Metrics:
    """The counters. Label values come from the routes and from our own words, never from a client."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter("forearm_requests", "Requests answered.", ("route", "status"), registry=self.registry)
        self.seconds = Histogram(
            "forearm_request_seconds", "Seconds to the end of an answer.", ("route",), buckets=SECONDS, registry=self.registry
        )
        self.pictures = Counter("forearm_pictures", "Pictures by what became of them.", ("outcome",), registry=self.registry)
        self.arming = Histogram(
            "forearm_picture_seconds", "Seconds from a picture's bytes to its armed file.", buckets=SECONDS, registry=self.registry
        )
        self.batches = Histogram(
            "forearm_batch_pictures", "Pictures handed to the models together.", buckets=(1, 2, 4, 8, 16, 32), registry=self.registry
        )
        ProcessCollector(registry=self.registry)

    def gauge(self, name: str, what: str, value: Callable[[], float]) -> None:
        """A figure that is asked for when the metrics are read."""
        Gauge(name, what, registry=self.registry).set_function(value)

    def text(self) -> bytes:
        """All of them."""
        return generate_latest(self.registry)
