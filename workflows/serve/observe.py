"""Metrics for Prometheus, and an access log with one line of JSON for each request.

Metrics and log contain no ids of users or items: a route is named by its URL pattern.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterable, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from workflows.ground.column_names import ANSWERED_BY
from workflows.serve.current_export import CurrentExport

log = logging.getLogger(__name__)

_BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)


class Metrics:
    """The Prometheus metrics of one server: requests, times, lists and the export.

    Args:
        current: the export that is being served.
    """

    def __init__(self, current: CurrentExport) -> None:
        self.registry = CollectorRegistry()
        names = ["method", "route"]
        self.requests = Counter(
            "two_tower_requests",
            "Number of requests.",
            [*names, "status"],
            registry=self.registry,
        )
        self.seconds = Histogram(
            "two_tower_request_seconds",
            "Time from the first byte of a request to the last byte of its answer.",
            names,
            buckets=_BUCKETS,
            registry=self.registry,
        )
        self.running = Gauge(
            "two_tower_requests_running", "Requests in progress.", registry=self.registry
        )
        self.lists = Counter(
            "two_tower_lists",
            "Number of lists, by the model that made them.",
            [ANSWERED_BY],
            registry=self.registry,
        )
        self.registry.register(_ExportCollector(current))

    def count_lists(self, answered_by: Mapping[str, int]) -> None:
        """Count lists of recommended items by the model that made them.

        Args:
            answered_by: name of a model → number of lists that the model made.
        """
        for name, n_lists in answered_by.items():
            self.lists.labels(name).inc(n_lists)

    def text(self) -> bytes:
        """Return all metrics in the text format of Prometheus."""
        return generate_latest(self.registry)


class _ExportCollector:
    """Metrics of the export that is being served, computed when Prometheus reads them."""

    def __init__(self, current: CurrentExport) -> None:
        self.current = current

    def collect(self) -> Iterable[Metric]:
        """Yield the Prometheus metrics of the export that is being served."""
        health = self.current.served.health
        reloads = CounterMetricFamily(
            "two_tower_reloads", "Number of reloads, by their result.", labels=["result"]
        )
        reloads.add_metric(["done"], self.current.reloads)
        reloads.add_metric(["refused"], self.current.refusals)
        yield reloads
        yield GaugeMetricFamily(
            "two_tower_users", "Number of users with an embedding.", value=health.users
        )
        yield GaugeMetricFamily(
            "two_tower_items", "Number of items in the catalogue.", value=health.items
        )
        labels = ("recipe", "recipe_hash", "export", "exported", "as_of")
        info = GaugeMetricFamily("two_tower_export_info", "The export that answers.", labels=labels)
        info.add_metric([str(getattr(health, name)) for name in labels], 1)
        yield info


class Observer:
    """ASGI middleware that counts, times and logs every request.

    Args:
        app: the ASGI app.
        metrics: the Prometheus metrics that each request updates.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on to the app, and record its HTTP status and duration."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start = time.perf_counter()
        status = 500

        async def send_and_note_status(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            with self.metrics.running.track_inprogress():
                await self.app(scope, receive, send_and_note_status)
        finally:
            self._record(scope, status, time.perf_counter() - start)

    def _record(self, scope: Scope, status: int, seconds: float) -> None:
        route, method = _labels(scope)
        self.metrics.requests.labels(method, route, str(status)).inc()
        self.metrics.seconds.labels(method, route).observe(seconds)
        if log.isEnabledFor(logging.INFO):
            line = {
                "time": round(time.time(), 3),
                "client": (scope.get("client") or ("", 0))[0],
                "method": method,
                "route": route,
                "status": status,
                "ms": round(seconds * 1000, 2),
            }
            log.info(json.dumps(line))


def _labels(scope: Scope) -> tuple[str, str]:
    """Return a request's route and method, each from a closed set, as labels of its metrics.

    Clients can invent any number of paths and methods, and each pair of labels adds a dozen lines
    to the metrics for as long as the server runs.
    """
    route = scope.get("route")
    method = scope["method"] if scope["method"] in (getattr(route, "methods", None) or ()) else ""
    return getattr(route, "path", "none"), method or "other"
