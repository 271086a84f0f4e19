"""What the server counts, for Prometheus.

Owns the metrics and the text they are given out in. No label names a person, a namespace or an
address. Only importer of prometheus_client.
"""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

# From an answer out of memory to a long poll that ran its time.
_BUCKETS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 60)


class Metrics:
    """The metrics of one server process.

    Args:
        waiters: how many wait for changes now.
    """

    media_type = "text/plain; version=0.0.4; charset=utf-8"

    def __init__(self, waiters: Callable[[], int]) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "atoll_requests",
            "Requests by endpoint and status",
            ("method", "path", "status"),
            registry=self._registry,
        )
        self._durations = Histogram(
            "atoll_request_seconds",
            "Seconds from the request's header to the end of the answer",
            ("method", "path"),
            buckets=_BUCKETS,
            registry=self._registry,
        )
        waiting = Gauge(
            "atoll_waiters", "Long polls and WebSockets that are open", registry=self._registry
        )
        waiting.set_function(waiters)

    def count(self, method: str, path: str, status: int, seconds: float) -> None:
        """Note an answer. ``path`` is the endpoint's pattern, never what was asked for."""
        self._requests.labels(method, path, str(status)).inc()
        self._durations.labels(method, path).observe(seconds)

    def text(self) -> bytes:
        """Everything, in Prometheus' text format."""
        return generate_latest(self._registry)
