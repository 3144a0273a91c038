"""Traces of real processes, sent to what speaks a collector's protocol: from the caller's own span to each stage of a job."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx2
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from pruning_core.spec.artifacts import Floor
from tests.integration.service import Backend, Service
from tests.servers import free_port, wait_until
from tests.tiny import tiny_spec

pytestmark = pytest.mark.slow

TRACE, CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


class Collector(ThreadingHTTPServer):
    """Keeps the spans that it is sent, by service."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Receiver)
        self.spans: list[tuple[str, Span]] = []


class _Receiver(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            service = next(one.value.string_value for one in resource.resource.attributes if one.key == "service.name")
            self.server.spans.extend((service, span) for scope in resource.scope_spans for span in scope.spans)
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_args: object) -> None:
        """Say nothing."""


@contextmanager
def _collector() -> Generator[Collector]:
    with Collector() as collector:
        thread = threading.Thread(target=collector.serve_forever, daemon=True)
        thread.start()
        yield collector
        collector.shutdown()
        thread.join()


def _settings(port: int) -> dict[str, str]:
    return {
        "COPPICE_TRACING": "true",
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}",
        "OTEL_BSP_SCHEDULE_DELAY": "200",
    }


@pytest.mark.long
def test_a_trace_goes_from_the_caller_to_each_stage(tmp_path: Path, tiny_bert: Path, tiny_sst2: Path) -> None:
    backend = Backend("local", tmp_path / "data", "", "")
    with _collector() as collector:
        service = Service(backend, tmp_path, tiny_bert, tiny_sst2, settings=_settings(collector.server_port))
        with service.running() as client:
            headers = {"traceparent": f"00-{TRACE}-{CALLER}-01"}
            spec = tiny_spec(tiny_bert, tiny_sst2)
            made = httpx2.post(f"{service.url}/v1/jobs", json=spec.model_dump(mode="json"), headers=headers)
            assert made.status_code == 202, made.text
            job_id = made.json()["id"]
            assert client.wait(job_id).status == "succeeded"
            unreachable = spec.model_copy(update={"quality_floor": Floor(kind="absolute", value=0.9999)})
            failed = client.wait(client.submit(unreachable).id)
            assert failed.error is not None
            wait_until(lambda: _named(collector, "job fisher-cg", 2), "both attempts to be told")
        ours = [(name, span) for name, span in collector.spans if span.trace_id.hex() == TRACE]
        request = next(span for _, span in ours if span.name == "POST /v1/jobs")
        attempt = next(span for _, span in ours if span.name == "job fisher-cg")
        assert request.parent_span_id.hex() == CALLER
        assert attempt.parent_span_id == request.span_id
        assert {name for name, _ in ours} == {"coppice-api", "coppice-worker"}
        stages = [span for _, span in ours if span.parent_span_id == attempt.span_id]
        names = [span.name for span in sorted(stages, key=lambda span: span.start_time_unix_nano)]
        assert names[0] == "stage load"
        assert {"stage score", "stage recover", "stage evaluate", "stage accept"} <= set(names)
        assert all(
            attempt.start_time_unix_nano <= span.start_time_unix_nano <= span.end_time_unix_nano <= attempt.end_time_unix_nano
            for span in stages
        )
        told = {one.key: one.value.string_value for one in attempt.attributes}
        assert told["coppice.job_id"] == job_id
        other = next(span for _, span in collector.spans if span.name == "job fisher-cg" and span.trace_id.hex() != TRACE)
        assert other.status.code == Status.STATUS_CODE_ERROR
        assert {one.key: one.value.string_value for one in other.attributes}["error.type"] == failed.error.code


@pytest.mark.long
def test_a_collector_that_is_away_costs_no_job(tmp_path: Path, tiny_bert: Path, tiny_sst2: Path) -> None:
    backend = Backend("local", tmp_path / "data", "", "")
    service = Service(backend, tmp_path, tiny_bert, tiny_sst2, settings=_settings(free_port()))
    with service.running() as client:
        assert client.wait(client.submit(tiny_spec(tiny_bert, tiny_sst2)).id).status == "succeeded"


def _named(collector: Collector, name: str, count: int) -> bool:
    return sum(span.name == name for _, span in list(collector.spans)) == count
