"""Traces for OpenTelemetry, where they are asked for: a span a request, an attempt of a job, a stage (docs/decisions/0057).

Spans of requests are FastAPI's own; those of jobs, which no library knows, are made here.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

from fastapi.telemetry import TelemetryConfig
from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind, StatusCode, Tracer, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from app.settings import Settings

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

_PARENT = "traceparent"
_W3C = TraceContextTextMapPropagator()
_attempt: ContextVar[Span | None] = ContextVar("attempt", default=None)


class Tracing:
    """The traces that one process sends to a collector, in the background. OpenTelemetry's own variables say where.

    Args:
        part: Which part of the service this process is.
    """

    def __init__(self, part: str) -> None:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        named = "OTEL_SERVICE_NAME" in os.environ
        resource = Resource.create({} if named else {"service.name": f"coppice-{part}"})
        self.provider: TracerProvider = TracerProvider(resource=resource)
        self.provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self.tracer: Tracer = self.provider.get_tracer("coppice")

    def close(self) -> None:
        """Send what is left, as far as that goes quickly."""
        self.provider.force_flush(timeout_millis=2000)
        self.provider.shutdown()


def create_tracing(settings: Settings, part: str) -> Tracing | None:
    """Build the tracing of a process. Return None where the settings ask for none."""
    return Tracing(part) if settings.tracing else None


def telemetry_of(tracing: Tracing | None) -> TelemetryConfig:
    """Configure what FastAPI traces: requests, and only where asked for. Its logs would hold what clients sent."""
    config: TelemetryConfig = {"metrics": False, "logs": False, "operation_spans": False, "auto_configure": False}
    return {**config, "tracing": False} if tracing is None else {**config, "tracer_provider": tracing.provider}


def current_traceparent() -> str | None:
    """Return the W3C trace context of the request that is being answered, or None where nothing is traced."""
    carrier: dict[str, str] = {}
    _W3C.inject(carrier)
    return carrier.get(_PARENT)


class AttemptTrace:
    """The span of one attempt of a job, and of its present stage. Without a tracer it does nothing."""

    def __init__(self, tracer: Tracer | None = None, span: Span | None = None) -> None:
        self._tracer, self._span = tracer, span
        self._stage: Span | None = None
        self._stage_name = ""

    def stage(self, name: str) -> None:
        """Note the stage that the job is in; its span begins when it is first named."""
        if self._tracer is None or self._span is None or name == self._stage_name:
            return
        self.end_stage()
        self._stage_name = name
        self._stage = self._tracer.start_span(f"stage {name}", context=set_span_in_context(self._span))

    def end_stage(self) -> None:
        """End the present stage."""
        if self._stage is not None:
            self._stage.end()
        self._stage = None


@contextmanager
def attempt_traced(
    tracing: Tracing | None, name: str, traceparent: str | None, attributes: Mapping[str, str | int]
) -> Generator[AttemptTrace]:
    """Trace an attempt of a job, as a child of the request that submitted it.

    Args:
        tracing: None where nothing is traced.
        name: Name of the span.
        traceparent: Trace context of that request; None: the attempt gets a trace of its own.
        attributes: Attributes of the span.
    """
    if tracing is None:
        yield AttemptTrace()
        return
    parent = _W3C.extract({} if traceparent is None else {_PARENT: traceparent}, context=Context())
    with tracing.tracer.start_as_current_span(
        name, context=parent, kind=SpanKind.CONSUMER, attributes=dict(attributes)
    ) as span:
        trace = AttemptTrace(tracing.tracer, span)
        token = _attempt.set(span)
        try:
            yield trace
        finally:
            _attempt.reset(token)
            trace.end_stage()


def note_failure(code: str, message: str) -> None:
    """Record on the span of the present attempt why the attempt has failed."""
    span = _attempt.get()
    if span is not None:
        span.set_attribute("error.type", code)
        span.set_status(StatusCode.ERROR, message)
