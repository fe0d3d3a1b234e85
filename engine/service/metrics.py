"""What is counted and timed, for Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from cellscribe.engine.service.problems import RequestError
from cellscribe.engine.types import Description

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
_TOKEN_SECONDS = (0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512)


class Metrics:
    """The figures of one service, in a registry of its own."""

    CONTENT_TYPE = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        own = self.registry = CollectorRegistry()
        ProcessCollector(registry=own)
        PlatformCollector(registry=own)
        self.requests = Counter("cellscribe_requests", "Requests that were answered", ["route", "code"], registry=own)
        self.errors = Counter("cellscribe_errors", "Requests that failed, by type of error", ["kind"], registry=own)
        self.queue = Gauge("cellscribe_queue_cells", "Cells that wait for a slot", registry=own)
        self.slots = Gauge("cellscribe_slots", "Texts that may be in progress at a time", registry=own)
        self.slots_in_use = Gauge("cellscribe_slots_in_use", "Texts in progress", registry=own)
        self.tokens = Counter("cellscribe_tokens", "Tokens written", registry=own)
        self.cells = Counter("cellscribe_cells", "Cells answered", ["task", "status"], registry=own)
        self.cancelled = Counter("cellscribe_cancelled", "Cells given up, by reason", ["reason"], registry=own)
        self.uploads = Gauge("cellscribe_uploads", "Uploaded files that are kept", registry=own)
        self.first_token_seconds = Histogram(
            "cellscribe_time_to_first_token_seconds", "From a cell's arrival to its first token",
            buckets=_SECONDS, registry=own,
        )  # fmt: skip
        self.per_token_seconds = Histogram(
            "cellscribe_time_per_token_seconds", "Mean time from one token of a text to the next",
            buckets=_TOKEN_SECONDS, registry=own,
        )  # fmt: skip
        self.latency_seconds = Histogram(
            "cellscribe_cell_latency_seconds", "From a cell's arrival to its answer", ["task"],
            buckets=_SECONDS, registry=own,
        )  # fmt: skip
        self.queue_seconds = Histogram(
            "cellscribe_queue_seconds", "How long cells waited for a slot", buckets=_SECONDS, registry=own
        )
        self._build = Gauge(
            "cellscribe_build_info", "What runs here", ["version", "bundle", "family", "device", "precision"],
            registry=own,
        )  # fmt: skip

    def told(self, **what: str) -> None:
        """Say what runs: version, bundle, family, device and precision."""
        self._build.labels(**what).set(1)

    def described(self, description: Description, first_token_s: float, latency_s: float) -> None:
        """Count a described cell."""
        self.answered("describe", description.is_ok, latency_s)
        if description.is_ok and description.num_tokens:  # a text may end before its first token
            self.first_token_seconds.observe(first_token_s)
            if description.num_tokens > 1:
                self.per_token_seconds.observe((latency_s - first_token_s) / (description.num_tokens - 1))

    def answered(self, task: str, is_ok: bool, latency_s: float) -> None:
        """Count a cell of any task."""
        self.cells.labels(task, "ok" if is_ok else "failed").inc()
        self.latency_seconds.labels(task).observe(latency_s)

    def failed(self, problem: RequestError) -> None:
        """Count a request that is not answered."""
        self.errors.labels(str(problem.body()["error"]["type"])).inc()

    def text(self) -> bytes:
        """Return all figures as Prometheus reads them."""
        return generate_latest(self.registry)
