"""What this worker counted, in plain dicts and lists: 0.4 µs a request where a client library took 5.5.

A worker never renders text. It hands its numbers over as structure (`snapshot`), and the supervisor merges the workers.
Counters and histograms only grow; their samples are keyed by label values, whose number is bounded by the code: an
endpoint is a route's pattern, and what no route matched is `unmatched`.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Callable
from typing import Any, Literal

LATENCY_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
QUERY_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
UNMATCHED = "unmatched"

Labels = tuple[str, ...]


class Counter:
    def __init__(self, name: str, meaning: str, *labels: str) -> None:
        self.name, self.meaning, self.labels = name, meaning, labels
        self.values: dict[Labels, float] = {} if labels else {(): 0}

    def add(self, values: Labels = (), amount: float = 1) -> None:
        self.values[values] = self.values.get(values, 0) + amount

    def describe(self) -> dict[str, Any]:
        samples = [_sample(self.labels, values, value=value) for values, value in self.values.items()]
        return {"name": self.name, "help": self.meaning, "type": "counter", "samples": samples}


class Gauge:
    """Asked when a snapshot is made. `merge` says what several workers' values amount to."""

    def __init__(
        self, name: str, meaning: str, ask: Callable[[], float], merge: Literal["sum", "max", "last"] = "sum"
    ) -> None:
        self.name, self.meaning, self.ask, self.merge = name, meaning, ask, merge

    def describe(self) -> dict[str, Any]:
        samples = [_sample((), (), value=self.ask())]
        return {"name": self.name, "help": self.meaning, "type": "gauge", "merge": self.merge, "samples": samples}


class Series:
    """One histogram of one set of label values."""

    __slots__ = ("counts", "sum")

    def __init__(self, buckets: int) -> None:
        self.counts = [0] * (buckets + 1)
        self.sum = 0.0


class Histogram:
    def __init__(self, name: str, meaning: str, buckets: tuple[float, ...], *labels: str) -> None:
        self.name, self.meaning, self.buckets, self.labels = name, meaning, buckets, labels
        self.series: dict[Labels, Series] = {}

    def observe(self, values: Labels, seconds: float) -> None:
        series = self.series.get(values)
        if series is None:
            series = self.series[values] = Series(len(self.buckets))
        series.counts[bisect_left(self.buckets, seconds)] += 1
        series.sum += seconds

    def describe(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "help": self.meaning,
            "type": "histogram",
            "buckets": list(self.buckets),
            "samples": [
                _sample(self.labels, values, counts=series.counts.copy(), sum=series.sum, count=sum(series.counts))
                for values, series in self.series.items()
            ],
        }


class Metrics:
    """Everything one worker counts. `METRICS` is this process's."""

    def __init__(self) -> None:
        self.requests = Counter("http_requests_total", "Requests answered", "method", "endpoint", "status")
        self.request_seconds = Histogram(
            "http_request_duration_seconds", "From request to answer", LATENCY_BUCKETS, "method", "endpoint"
        )
        self.response_bytes = Counter("http_response_bytes_total", "Bytes of bodies sent", "endpoint")
        self.refused_by_parser = Counter("http_parse_errors_total", "What was no HTTP request at all")
        self.query_seconds = Histogram("database_query_seconds", "From statement to its last row", QUERY_BUCKETS)
        self.pool_timeouts = Counter("database_pool_timeouts_total", "Requests that found every connection in use")
        self.breaker_openings = Counter("database_breaker_openings_total", "Times the database was found gone")
        self.cache = Counter("cache_lookups_total", "Looked up for ready-made answers", "tier", "result")
        self.task_deaths = Counter("background_task_deaths_total", "Background tasks that ended by an error", "task")
        self.gauges: list[Gauge] = []

    def count_request(self, method: str, endpoint: str, status: int, seconds: float, sent: int) -> None:
        if method not in METHODS:
            method = "OTHER"
        self.requests.add((method, endpoint, str(status)))
        self.request_seconds.observe((method, endpoint), seconds)
        if sent:
            self.response_bytes.add((endpoint,), sent)

    def snapshot(self, boot: str, pid: int) -> dict[str, Any]:
        """The contract with the supervisor, as `docs/runtime-directory.md` describes it."""
        every = [thing for thing in vars(self).values() if isinstance(thing, Counter | Histogram)]
        return {
            "boot": boot,
            "pid": pid,
            "boottime": time.clock_gettime(time.CLOCK_BOOTTIME),
            "metrics": [thing.describe() for thing in (*every, *self.gauges)],
        }


METRICS = Metrics()


def _sample(names: tuple[str, ...], values: Labels, **numbers: object) -> dict[str, Any]:
    return {"labels": dict(zip(names, values, strict=True)), **numbers}
