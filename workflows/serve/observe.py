"""What the server tells of itself: figures for Prometheus, and a line of JSON for each request.

Neither holds ids: routes are named by their pattern.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterable, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from workflows.serve.current import Current

log = logging.getLogger(__name__)

_BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)


class Figures:
    """Counters of one server.

    Args:
        current: the export that answers.
    """

    def __init__(self, current: Current) -> None:
        self.registry = CollectorRegistry()
        names = ["method", "route"]
        self.requests = Counter(
            "two_tower_requests", "Requests.", [*names, "status"], registry=self.registry
        )
        self.seconds = Histogram(
            "two_tower_request_seconds",
            "From the first byte read to the last sent.",
            names,
            buckets=_BUCKETS,
            registry=self.registry,
        )
        self.running = Gauge("two_tower_requests_running", "Right now.", registry=self.registry)
        self.lists = Counter(
            "two_tower_lists", "Lists, by who answered.", ["answered_by"], registry=self.registry
        )
        self.registry.register(_Loaded(current))

    def count(self, answered_by: Mapping[str, int]) -> None:
        """Count who answered how many lists."""
        for name, lists in answered_by.items():
            self.lists.labels(name).inc(lists)

    def text(self) -> bytes:
        """Return all figures in Prometheus' text format."""
        return generate_latest(self.registry)


class _Loaded:
    """What is loaded, asked when it is told."""

    def __init__(self, current: Current) -> None:
        self.current = current

    def collect(self) -> Iterable[Metric]:
        """Yield the figures of the export that answers."""
        health = self.current.now.health
        reloads = CounterMetricFamily("two_tower_reloads", "By how they ended.", labels=["result"])
        reloads.add_metric(["done"], self.current.reloads)
        reloads.add_metric(["refused"], self.current.refusals)
        yield reloads
        yield GaugeMetricFamily("two_tower_users", "Users with a row.", value=health.users)
        yield GaugeMetricFamily("two_tower_items", "Items of the catalogue.", value=health.items)
        which = ("recipe", "recipe_hash", "export", "exported", "as_of")
        info = GaugeMetricFamily("two_tower_export_info", "Which export answers.", labels=which)
        info.add_metric([str(getattr(health, name)) for name in which], 1)
        yield info


class Observer:
    """Counts, times and logs every request.

    Args:
        app: behind it.
        figures: to count with.
    """

    def __init__(self, app: ASGIApp, figures: Figures) -> None:
        self.app, self.figures = app, figures

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand on, and watch."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start = time.perf_counter()
        status = 500

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            with self.figures.running.track_inprogress():
                await self.app(scope, receive, watched)
        finally:
            self._tell(scope, status, time.perf_counter() - start)

    def _tell(self, scope: Scope, status: int, seconds: float) -> None:
        route, method = _labels(scope)
        self.figures.requests.labels(method, route, str(status)).inc()
        self.figures.seconds.labels(method, route).observe(seconds)
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
    """Return route and method from a closed set: anybody can invent paths and methods.

    Each pair of labels is a dozen lines of the figures for as long as the server lives.
    """
    route = scope.get("route")
    method = scope["method"] if scope["method"] in (getattr(route, "methods", None) or ()) else ""
    return getattr(route, "path", "none"), method or "other"
