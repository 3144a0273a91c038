"""Request metrics of this process, for Prometheus. Jobs are counted from the database: see app.api.metrics."""

from __future__ import annotations

import os
import time

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector
from prometheus_client.multiprocess import MultiProcessCollector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_METHODS = frozenset({"DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"})
# Label of all addresses without a route: strangers may ask for any number of them.
_UNMATCHED = "(none)"


class HttpMeter:
    """Requests by route template. Labels take only values of ours, so their number is bounded whatever is asked for."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.requests = Counter(
            "coppice_http_requests",
            "Requests answered by this process.",
            ("method", "route", "status"),
            registry=self._registry,
        )
        self.seconds = Histogram(
            "coppice_http_request_seconds",
            "Seconds until the answer began; those of Prefer: wait include the wait.",
            ("method", "route"),
            buckets=_SECONDS,
            registry=self._registry,
        )

    def registry(self) -> CollectorRegistry:
        """Return the registry to expose: this process's, or that of all processes of one master (PROMETHEUS_MULTIPROC_DIR)."""
        exposed = CollectorRegistry()
        if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
            MultiProcessCollector(exposed)
        else:
            exposed.register(self._registry)
            ProcessCollector(registry=exposed)
        return exposed


class MeteringMiddleware:
    """Counts every request when its answer begins."""

    def __init__(self, app: ASGIApp, meter: HttpMeter) -> None:
        self._app = app
        self._meter = meter

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = time.perf_counter()

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                method = scope["method"] if scope["method"] in _METHODS else "other"
                route = getattr(scope.get("route"), "path", None) or _UNMATCHED
                self._meter.requests.labels(method, route, str(message["status"])).inc()
                self._meter.seconds.labels(method, route).observe(time.perf_counter() - begun)
            await send(message)

        await self._app(scope, receive, counted)
