"""Worker metrics, for Prometheus: the job's memory, the GPUs, the disk. Never imports torch.

What happens to jobs is told by the API, from the database: a worker that dies takes no count with it.
"""

from __future__ import annotations

import contextlib
import hmac
import socketserver
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import psutil
import pynvml
import structlog
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.exposition import make_wsgi_app
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from app.logs import first_line
from app.settings import Settings
from worker.scratch import ScratchRoom

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

_log = structlog.get_logger(__name__)


class WorkerMetrics(Collector):
    """Gauges, read when they are asked for.

    Args:
        settings: Of the service.
        reaper_silent_s: Says for how long the reaper has not finished a look.
    """

    def __init__(self, settings: Settings, reaper_silent_s: Callable[[], float]) -> None:
        self._room = ScratchRoom(settings.resolved_scratch_dir)
        self._reaper_silent_s = reaper_silent_s

    def describe(self) -> Iterable[Metric]:
        """Return no description, so that registering looks at nothing."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Yield the present figures of this worker."""
        job = _job_memory_bytes()
        yield GaugeMetricFamily("coppice_worker_busy", "Whether a job's process runs.", value=job is not None)
        yield GaugeMetricFamily(
            "coppice_worker_job_memory_bytes", "Resident memory of the job's processes on the host.", value=job or 0
        )
        yield GaugeMetricFamily(
            "coppice_worker_reaper_silent_seconds", "Since the reaper last finished a look.", value=self._reaper_silent_s()
        )
        try:
            free = self._room.free_bytes()
        except OSError:
            free = 0
        yield GaugeMetricFamily("coppice_worker_scratch_free_bytes", "Room on the disk of the scratch folder.", value=free)
        yield from _gpu_metrics()


class MetricsServer:
    """Answers scrapes from a thread. Not started: nothing listens.

    Args:
        settings: Address and token.
        collector: What to expose.
    """

    def __init__(self, settings: Settings, collector: Collector) -> None:
        self._settings = settings
        self._collector = collector

    def start(self) -> int | None:
        """Listen, if the settings name a port, and return the port in use. An occupied port costs metrics, not jobs."""
        settings = self._settings
        if settings.worker_metrics_port is None:
            return None
        registry = CollectorRegistry()
        registry.register(self._collector)
        ProcessCollector(registry=registry)
        app = _guarded(make_wsgi_app(registry), settings.metrics_token.get_secret_value())
        try:
            server = make_server(settings.worker_metrics_host, settings.worker_metrics_port, app, _Server, _Quiet)
        except OSError as error:
            _log.error("worker.metrics_unavailable", port=settings.worker_metrics_port, reason=first_line(error))
            return None
        threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()
        _log.info("worker.metrics", port=server.server_port)
        return server.server_port


class _Server(socketserver.ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Quiet(WSGIRequestHandler):
    timeout = 10  # a client that connects and sends nothing must not keep a thread

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the library's name
        """Leave scrapes out of the log."""


def _guarded(app: WSGIApplication, token: str) -> WSGIApplication:
    def guarded(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        scheme, _space, shown = str(environ.get("HTTP_AUTHORIZATION", "")).partition(" ")
        if token and not (scheme.lower() == "bearer" and hmac.compare_digest(shown.strip().encode(), token.encode())):
            start_response("401 Unauthorized", [("WWW-Authenticate", "Bearer"), ("Content-Type", "text/plain")])
            return [b"show COPPICE_METRICS_TOKEN as Bearer\n"]
        return app(environ, start_response)

    return guarded


def _job_memory_bytes() -> int | None:
    """Return the memory of the processes below the pool's, or None where there are none."""
    found = [process for pool in psutil.Process().children() for process in _family(pool)]
    return sum(map(_resident_bytes, found)) if found else None


def _family(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _resident_bytes(process: psutil.Process) -> int:
    try:
        return process.memory_info().rss
    except psutil.NoSuchProcess:
        return 0


def _gpu_metrics() -> Iterator[Metric]:
    used = GaugeMetricFamily("coppice_worker_gpu_memory_used_bytes", "GPU memory in use, by anybody.", labels=("gpu", "name"))
    total = GaugeMetricFamily("coppice_worker_gpu_memory_bytes", "GPU memory there is.", labels=("gpu", "name"))
    busy = GaugeMetricFamily(
        "coppice_worker_gpu_busy_ratio", "Share of the time that the GPU computes.", labels=("gpu", "name")
    )
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:  # no driver: a worker without a GPU
        return
    try:
        for index in range(pynvml.nvmlDeviceGetCount()):
            handle = pynvml.nvmlDeviceGetHandleByIndex(index)
            labels = (str(index), str(pynvml.nvmlDeviceGetName(handle)))
            memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
            used.add_metric(labels, float(memory.used))
            total.add_metric(labels, float(memory.total))
            with contextlib.suppress(pynvml.NVMLError):  # MIG instances do not report their utilisation
                busy.add_metric(labels, float(pynvml.nvmlDeviceGetUtilizationRates(handle).gpu) / 100)
    except pynvml.NVMLError as error:
        _log.debug("worker.gpu_unreadable", reason=first_line(error))
    finally:
        pynvml.nvmlShutdown()
    yield from (family for family in (used, total, busy) if family.samples)
