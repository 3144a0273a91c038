"""The HTTP application. Never imports torch."""

from __future__ import annotations

import sys
import threading
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import structlog
from fastapi import Depends, FastAPI
from fastapi.concurrency import run_in_threadpool
from fastapi.routing import APIRoute
from fastapi.staticfiles import StaticFiles

from app import queue
from app import signing as signing_keys
from app.api import (
    artifacts,
    audit,
    bulk,
    calibrations,
    capabilities,
    events,
    health,
    hub,
    jobs,
    keys,
    metrics,
    named_queues,
    queues,
    session,
    signing,
    tenants,
    uploads,
    webhooks,
)
from app.api.contract import install_contract
from app.api.spelling import check_spelling
from app.api.uploads import UPLOAD_PATHS
from app.audit.service import AuditService
from app.authentication import AuthenticationMiddleware
from app.db import Database
from app.ending import Ending
from app.errors import install_handlers
from app.inspection.inspector import Inspector
from app.inspection.process import Zygote
from app.installation import EnvironmentShared, check_environment
from app.jobs.bulk import BulkJobs
from app.jobs.deletion import JobDeletion
from app.jobs.outlook import Outlooks
from app.jobs.rules import RuleService
from app.jobs.service import JobService
from app.jobs.watching import JobWatcher
from app.keys.service import KeyService
from app.logs import configure_logging
from app.metering import HttpMeter, MeteringMiddleware
from app.middleware import BodyMiddleware, HeadMiddleware, RequestIdMiddleware
from app.operations.overview import TenantList
from app.operations.queue import QueueControl
from app.operations.tenants import TenantDeletion
from app.origins import OriginMiddleware
from app.people.config import read_config
from app.proxies import ProxyMiddleware
from app.rates import RateLimiter
from app.running import adopt_server
from app.secret import ServerSecret
from app.settings import DataFolderUnusable, Settings, SettingsInvalid, get_settings
from app.storage import create_store
from app.tracing import create_tracing, telemetry_of
from app.uploads.receiving import Receiver
from app.uploads.service import UploadService
from app.web.documentation import install_documentation
from app.web.problems import ProblemPageMiddleware
from app.web.routes import ROUTERS
from app.webhooks.delivery import Deliverer
from app.webhooks.service import WebhookSecrets, WebhookService

if TYPE_CHECKING:
    from app.people.service import PeopleService

_LAST_LOOK_S = 1
_OF_PATIENCE = 0.8  # requests that are still open then are answered, while the server waits for them
_MOST_CALLERS = 100_000  # as many as there are keys, which nobody but an operator makes
_BROKER_PATIENCE_S = 2  # a submit waits no longer: the reaper would wake a worker anyway

_log = structlog.get_logger(__name__)


def create_app(settings: Settings | None = None, zygote: Zygote | None = None) -> FastAPI:
    """Build the application; connects to nothing until a request comes.

    ``coppice api`` runs it (`app.server`). So does ``uvicorn app.main:create_app --factory``, without limits of connections.

    Args:
        settings: Settings; None: those of the environment.
        zygote: The process that inspections are forked from, whose end is the caller's business; None: one of its own.
    """
    if settings is not None:
        return _build(settings, zygote)
    try:
        check_environment()
        settings = get_settings()
        configure_logging(as_json=settings.log_json)
        return _build(settings, zygote)
    except OSError as error:
        sys.exit(f"coppice: {DataFolderUnusable(error)}")
    except (EnvironmentShared, SettingsInvalid) as error:
        sys.exit(f"coppice: {error}")


def _build(settings: Settings, given: Zygote | None) -> FastAPI:
    signing_keys.check(settings)
    database = Database.of(settings)
    store, celery = create_store(settings), queue.create_celery(settings, socket_timeout_s=_BROKER_PATIENCE_S)
    announcer, secret = queue.Announcer(celery), ServerSecret(settings)
    webhook_secrets = WebhookSecrets(secret)
    deliverer = Deliverer(settings, database, webhook_secrets)
    tracing, ending = create_tracing(settings, "api"), Ending(_OF_PATIENCE * settings.end_patience_s)
    zygote = Zygote() if given is None else given
    inspector = Inspector(settings, zygote)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        adopt_server(settings, ending)
        # In a thread of its own: a service whose database is late must start all the same, answer 503, and recover by itself.
        look = threading.Thread(target=health.report_unavailable, args=(app.state,), daemon=True)
        look.start()
        deliverer.start()
        if given is None:
            await run_in_threadpool(zygote.start)
        _log.info("api.started", auth=settings.auth)
        yield
        _log.info("api.stopping")
        await run_in_threadpool(look.join, _LAST_LOOK_S)
        await run_in_threadpool(deliverer.stop)
        if given is None:
            await run_in_threadpool(zygote.close)
        await run_in_threadpool(announcer.close)
        await run_in_threadpool(app.state.watcher.close)
        if tracing is not None:
            await run_in_threadpool(tracing.close)
        database.close()

    app = FastAPI(
        title="Coppice",
        version="1",
        summary="Pruning as a service for Transformer models.",
        lifespan=lifespan,
        openapi_url=None,  # `install_contract` serves it
        docs_url=None,
        redoc_url=None,
        telemetry=telemetry_of(tracing),
        dependencies=[Depends(check_spelling)],
    )
    state = app.state
    state.ending, state.strangers = ending, RateLimiter(settings.requests_per_minute)
    state.settings, state.database, state.store, state.celery, state.secret = settings, database, store, celery, secret
    state.uploads, state.audit = UploadService(settings, database, store), AuditService(database)
    state.keys = KeyService(database, secret)
    state.people = _people(settings, database, secret)
    state.webhooks = WebhookService(settings, database, webhook_secrets)
    state.receiver = Receiver(settings, state.uploads, inspector)
    state.service = JobService(settings, database, store, announcer, uploads=state.uploads, inspector=inspector)
    state.watcher = JobWatcher(database, ending)
    state.deletion, state.tenants = JobDeletion(database, store), TenantDeletion(settings, database, store)
    state.outlooks = Outlooks(database)
    state.overview, state.rules = TenantList(database), RuleService(database)
    state.queue, state.bulk = QueueControl(database), BulkJobs(settings, database, announcer)
    state.meter, state.job_metrics = HttpMeter(), metrics.JobMetrics(settings, state)
    _add_routes(app)
    install_handlers(app)
    install_contract(app)
    install_documentation(app)
    _install_middleware(app, settings)
    return app


def _add_routes(app: FastAPI) -> None:
    """Add the routes of the API and the pages, and remember the addresses for those who mistype one."""
    modules = (
        jobs,
        bulk,
        calibrations,
        events,
        artifacts,
        hub,
        capabilities,
        uploads,
        webhooks,
        keys,
        tenants,
        queues,
        named_queues,
        session,
        audit,
        signing,
        health,
        metrics,
    )
    for module in modules:
        app.include_router(module.router)
    routes = [route for module in modules for route in module.router.routes if isinstance(route, APIRoute)]
    app.state.addresses = [route.path for route in routes if route.include_in_schema and not route.path.endswith(":path}")]
    for pages in ROUTERS:
        app.include_router(pages)
    app.mount("/static", StaticFiles(packages=[("app.web", "static")]), name="static")


def _people(settings: Settings, database: Database, secret: ServerSecret) -> PeopleService | None:
    config = read_config(settings)
    if config is None:
        return None
    from app.people.service import PeopleService  # its libraries are there only where people sign in by a provider

    return PeopleService(config, database, secret)


def _install_middleware(app: FastAPI, settings: Settings) -> None:
    """Put around the routes what every request passes; the last one is the outermost."""
    state = app.state
    app.add_middleware(
        AuthenticationMiddleware,
        keys=state.keys if settings.auth else None,
        people=state.people,
        limiter=RateLimiter(settings.requests_per_minute, _MOST_CALLERS),
        strangers=state.strangers,
    )
    app.add_middleware(
        BodyMiddleware,
        limit=settings.max_body_bytes,
        upload_limit=settings.max_upload_bytes,
        uploads=UPLOAD_PATHS,
        patience_s=settings.body_patience_s,
        bytes_per_s=settings.slowest_bytes_per_s,
        ending=state.ending,
    )
    app.add_middleware(OriginMiddleware, names=None if settings.auth else {settings.host, *settings.allowed_hosts})
    app.add_middleware(ProblemPageMiddleware)
    app.add_middleware(HeadMiddleware, limit=settings.max_head_bytes)
    app.add_middleware(RequestIdMiddleware)
    app.add_middleware(MeteringMiddleware, meter=state.meter)
    app.add_middleware(ProxyMiddleware, trusted=settings.trusted_proxies)
