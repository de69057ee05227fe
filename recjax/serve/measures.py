"""Figures of a server in the text format of Prometheus."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest
from prometheus_client.gc_collector import GCCollector
from prometheus_client.process_collector import ProcessCollector

SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)
BATCH = (1, 2, 4, 8, 16, 32)


class Measures:
    """Counters of one server; of the process, memory, processor time and open files."""

    def __init__(self):
        disable_created_metrics()  # they double the series and say little
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        self.requests = Counter(
            "recjax_requests", "Requests answered", ("route", "method", "status"), registry=self.registry
        )
        self.seconds = Histogram(
            "recjax_request_seconds", "From a request's head to its answer", ("route",), buckets=SECONDS,
            registry=self.registry,
        )  # fmt: skip
        self.batch = Histogram("recjax_batch_queries", "Queries ranked together", buckets=BATCH, registry=self.registry)
        self.ranking = Histogram(
            "recjax_ranking_seconds", "Ranking of a batch on the device", buckets=SECONDS, registry=self.registry
        )
        self.about = Gauge(
            "recjax_model", "1; what is served", ("run", "step", "dataset", "fingerprint"), registry=self.registry
        )

    def ranked(self, size: int, seconds: float) -> None:
        """Counts a batch."""
        self.batch.observe(size)
        self.ranking.observe(seconds)

    def answered(self, route: str, method: str, status: int, seconds: float) -> None:
        """Counts a request."""
        self.requests.labels(route, method, str(status)).inc()
        self.seconds.labels(route).observe(seconds)

    def watch(self, name: str, text: str, read) -> None:
        """A gauge that calls `read` for its value at each scrape."""
        Gauge(name, text, registry=self.registry).set_function(read)

    def text(self) -> bytes:
        """All of it."""
        return generate_latest(self.registry)
