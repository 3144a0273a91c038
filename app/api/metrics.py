"""`/metrics` for Prometheus.

The state of jobs, queue and outbox is read from the database at each scrape, so every API process tells the same of it and
none of them counts twice: take any one (`max`), never the sum. Requests are counted by each process for itself: add them up.

Nothing here names a tenant, a job or a model.
"""

from __future__ import annotations

import hmac
import shutil
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http import HTTPStatus
from importlib.metadata import version

import structlog
from fastapi import APIRouter, Request
from fastapi.responses import Response
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from sqlalchemy.exc import SQLAlchemyError
from starlette.datastructures import State

from app import queue
from app.api import families
from app.db import Database
from app.errors import Problem
from app.installation import DISTRIBUTION
from app.jobs.records import EventType
from app.jobs.statistics import QueueState, StatisticsRepository
from app.jobs.tally import Tally
from app.logs import first_line
from app.settings import Settings
from app.storage import StoreUnavailable
from app.webhooks.records import Backlog
from app.webhooks.repository import WebhookRepository

router = APIRouter(include_in_schema=False)

_PAGE = 2000
_READ_S = 2.0  # a scrape reads a long log for this long; the next scrape goes on

_log = structlog.get_logger(__name__)


@router.get("/metrics")
def metrics(request: Request) -> Response:
    """Return all metrics in the format that the scraper prefers."""
    state = request.app.state
    _refuse_strangers(request, state.settings)
    registry = state.meter.registry()
    registry.register(state.job_metrics)
    encode, media_type = choose_encoder(request.headers.get("accept", ""))
    return Response(encode(registry), media_type=media_type)


def _refuse_strangers(request: Request, settings: Settings) -> None:
    """Ask for the scraper's own token: unlike a key it is known while the database is away, and it opens nothing else."""
    if not settings.auth:
        return
    token = settings.metrics_token.get_secret_value()
    if not token:
        detail = "metrics are closed: set COPPICE_METRICS_TOKEN on the server and in Prometheus"
        raise Problem(HTTPStatus.FORBIDDEN, "metrics_closed", detail)
    scheme, _space, shown = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not hmac.compare_digest(shown.strip().encode(), token.encode()):
        headers = {"WWW-Authenticate": 'Bearer realm="coppice metrics"'}
        raise Problem(HTTPStatus.UNAUTHORIZED, "unauthenticated", "show COPPICE_METRICS_TOKEN as Bearer", headers=headers)


@dataclass(frozen=True, slots=True)
class _Found:
    """The result of one look at the database."""

    queue: QueueState
    outbox: Backlog


class JobMetrics(Collector):
    """The part of `/metrics` that is the same in every process."""

    def __init__(self, settings: Settings, state: State) -> None:
        self._settings = settings
        self._state = state
        self._tally = Tally()
        self._caught_up = False
        self._turn = threading.Lock()

    def describe(self) -> Iterable[Metric]:
        """Return no description, so that registering reads no database."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Look at everything once, at the same time: what is away takes its whole patience to say so."""
        with self._turn, ThreadPoolExecutor(max_workers=3) as pool:
            database, store = pool.submit(self._read), pool.submit(self._store_works)
            broker = pool.submit(queue.depth, self._state.celery)
            found, messages = database.result(), broker.result()
            parts = {"database": found is not None, "store": store.result(), "broker": messages is not None}
            yield families.build_info(version(DISTRIBUTION))
            yield families.parts_up(parts)
            if messages is not None:
                yield families.broker_messages(messages)
            if found is not None:
                yield from families.of_queue(found.queue)
                yield from families.of_outbox(found.outbox)
            # A counter that is exposed while it catches up with the log would look as if it had been reset.
            if self._caught_up:
                yield from families.of_log(self._tally)
        free = self._free_bytes()
        if free is not None:
            yield families.store_free_bytes(free)

    def _read(self) -> _Found | None:
        database = self._state.database
        try:
            with database.read() as connection:
                queued = StatisticsRepository(connection).queue(seen_within_s=self._settings.lease_s)
                outbox = WebhookRepository(connection).backlog()
            if self._read_log(database, queued.clock):
                self._caught_up = True
        except SQLAlchemyError as error:
            _log.warning("metrics.database_unavailable", error=type(error).__name__, reason=first_line(error))
            return None
        return _Found(queued, outbox)

    def _read_log(self, database: Database, clock: float) -> bool:
        """Read on in the log. Return whether its end was reached."""
        after, until = self._tally.settled, time.monotonic() + _READ_S
        while True:
            with database.read() as connection:
                statistics = StatisticsRepository(connection)
                page = statistics.log(after=after, limit=_PAGE)
                done = {event.job_id for event in page if event.type == EventType.SUCCEEDED}
                self._tally.add(page, statistics.stage_seconds(done) if done else {})
            self._tally.settle(clock)
            if len(page) < _PAGE:
                return True
            after = page[-1].id
            if time.monotonic() > until:
                return False

    def _store_works(self) -> bool:
        try:
            self._state.store.check()
        except (OSError, StoreUnavailable) as error:
            _log.warning("metrics.store_unavailable", error=type(error).__name__, reason=first_line(error))
            return False
        return True

    def _free_bytes(self) -> int | None:
        if self._settings.artifacts_url:
            return None  # object stores do not say
        try:
            return shutil.disk_usage(self._settings.resolved_artifacts_dir).free
        except OSError:
            return None
