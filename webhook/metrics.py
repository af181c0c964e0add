"""What Prometheus is told of admission."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Metrics:
    """The webhook's metrics, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "nightcap_admission_requests",
            "Admission requests, by handler, decision and reason.",
            ("handler", "decision", "reason"),
            registry=self.registry,
        )
        # Looking a child up by its labels costs as much as counting; there are a few dozen.
        self._children: dict[tuple[str, str, str], tuple[Counter, Histogram]] = {}
        self._refused = Counter(
            "nightcap_admission_malformed",
            "HTTP requests that were no admission requests, by status code.",
            ("code",),
            registry=self.registry,
        )
        self._seconds = Histogram(
            "nightcap_admission_seconds",
            "Time to answer an admission request.",
            ("handler",),
            buckets=_BUCKETS,
            registry=self.registry,
        )
        self._expiry = Gauge(
            "nightcap_certificate_expiry_timestamp_seconds",
            "When the serving certificate ends, seconds since the epoch; 0 without one.",
            registry=self.registry,
        )

    def watch_certificate(self, expires_at: Callable[[], float]) -> None:
        """Ask at every scrape when the certificate ends."""
        self._expiry.set_function(expires_at)

    def record(self, handler: str, decision: str, reason: str, seconds: float) -> None:
        """Count one admission request."""
        key = (handler, decision, reason)
        children = self._children.get(key)
        if children is None:
            children = self._requests.labels(*key), self._seconds.labels(handler)
            self._children[key] = children
        children[0].inc()
        children[1].observe(seconds)

    def record_malformed(self, code: int) -> None:
        """Count a request that was none."""
        self._refused.labels(str(code)).inc()
