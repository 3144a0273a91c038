"""Structured logs: one line an event, with the ids bound to the context."""

from __future__ import annotations

import logging
import sys

import structlog


def configure_logging(*, as_json: bool) -> None:
    """Send structlog and the standard library's loggers to stderr, as JSON lines or for people."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer() if as_json else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.INFO)
    for noisy in ("uvicorn", "uvicorn.access", "uvicorn.error"):
        logging.getLogger(noisy).handlers = []
        logging.getLogger(noisy).propagate = True
    # These log every message and every step of their start; what matters of it is in events of our own.
    for quiet in ("uvicorn.access", "uvicorn.error", "celery", "kombu"):
        logging.getLogger(quiet).setLevel(logging.WARNING)


def first_line(error: object) -> str:
    """Return the first line of an error's message, short enough for a log line."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
