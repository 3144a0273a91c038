"""Dependencies of routes: the services of this application, and the caller.

None of them waits for anything. They are coroutines all the same: FastAPI gives each function that is none a thread.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Annotated, Any, cast

from fastapi import Depends, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from app.audit.service import AuditService
from app.breadth import TOO_WIDE, is_too_wide
from app.errors import Problem
from app.jobs.bulk import BulkJobs
from app.jobs.deletion import JobDeletion
from app.jobs.outlook import Outlooks
from app.jobs.rules import RuleService
from app.jobs.service import JobService
from app.jobs.watching import JobWatcher
from app.keys.records import Caller, Scope
from app.keys.roles import SCOPES, Role, role_of
from app.keys.service import KeyService
from app.operations.overview import TenantList
from app.operations.queue import QueueControl
from app.operations.tenants import TenantDeletion
from app.uploads.receiving import Receiver
from app.uploads.service import UploadService
from app.webhooks.service import WebhookService

# For the OpenAPI document only: the middleware in app.authentication checks the header before any route is found.
_BEARER = HTTPBearer(
    auto_error=False,
    scheme_name="apiKey",
    bearerFormat="cpk_...",
    description="An API key of `coppice keys` with the scopes that the operation lists; or, where people sign in by one, "
    "a provider's token, whose person has a role with these scopes (the header `Coppice-Tenant` says for which tenant).",
)


async def _caller(request: Request, _shown: Annotated[HTTPAuthorizationCredentials | None, Depends(_BEARER)]) -> Caller:
    return cast("Caller", request.state.caller)


def _allowed(scope: Scope, *or_one_of: Scope) -> Callable[[Caller], Awaitable[Caller]]:
    """Make the dependency of routes that need a scope, or one of those that include it."""
    enough = {scope, *or_one_of}

    async def check(caller: Annotated[Caller, Depends(_caller)]) -> Caller:
        if enough.isdisjoint(caller.scopes):
            raise insufficient(scope, caller)
        return caller

    return check


def insufficient(scope: Scope, caller: Caller) -> Problem:
    """Say that a caller lacks a scope; a person is told the role that has it."""
    needed = f"this needs a key with the scope {scope}"
    if caller.person is not None:
        lowest, mine = next(role for role in Role if scope in SCOPES[role]), role_of(caller.scopes)
        needed = f"this needs the role {lowest}; yours for {caller.owner} is {mine}"
    headers = {"WWW-Authenticate": f'Bearer realm="coppice", error="insufficient_scope", scope="{scope}"'}
    return Problem(HTTPStatus.FORBIDDEN, "insufficient_scope", needed, headers=headers)


def of_own_tenant(caller: Caller, tenant: str | None) -> str | None:
    """Return the tenant that is asked about, None for all. Who keeps one tenant alone asks about this one.

    Raises:
        Problem: They ask about another.
    """
    if Scope.ADMIN in caller.scopes:
        return tenant
    if tenant not in (None, caller.owner):
        raise insufficient(Scope.ADMIN, caller)
    return caller.owner


async def _owner(reader: Annotated[Caller, Security(_allowed(Scope.JOBS_READ), scopes=[Scope.JOBS_READ])]) -> str:
    return reader.owner


async def _watcher(request: Request) -> JobWatcher:
    return cast("JobWatcher", request.app.state.watcher)


async def _service(request: Request) -> JobService:
    return cast("JobService", request.app.state.service)


async def _deletion(request: Request) -> JobDeletion:
    return cast("JobDeletion", request.app.state.deletion)


async def _outlooks(request: Request) -> Outlooks:
    return cast("Outlooks", request.app.state.outlooks)


async def _tenants(request: Request) -> TenantDeletion:
    return cast("TenantDeletion", request.app.state.tenants)


async def _queue(request: Request) -> QueueControl:
    return cast("QueueControl", request.app.state.queue)


async def _bulk(request: Request) -> BulkJobs:
    return cast("BulkJobs", request.app.state.bulk)


async def _overview(request: Request) -> TenantList:
    return cast("TenantList", request.app.state.overview)


async def _rules(request: Request) -> RuleService:
    return cast("RuleService", request.app.state.rules)


async def _keys(request: Request) -> KeyService:
    return cast("KeyService", request.app.state.keys)


async def _uploads(request: Request) -> UploadService:
    return cast("UploadService", request.app.state.uploads)


async def _receiver(request: Request) -> Receiver:
    return cast("Receiver", request.app.state.receiver)


async def _webhooks(request: Request) -> WebhookService:
    return cast("WebhookService", request.app.state.webhooks)


async def _audit(request: Request) -> AuditService:
    return cast("AuditService", request.app.state.audit)


async def sent_json(request: Request) -> object:
    """Return a body as it was sent, for errors to point into. Refuse one not declared as JSON, or with too many values."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json" and not (kind.startswith("application/") and kind.endswith("+json")):
        raise Problem(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", "send the body as Content-Type: application/json"
        )
    request.state.sent = None
    with contextlib.suppress(ValueError, RecursionError):  # the validation of the body has a better message
        request.state.sent = await request.json()
    if is_too_wide(request.state.sent):
        raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, "invalid_request", TOO_WIDE)
    return request.state.sent


Service = Annotated[JobService, Depends(_service)]
Watcher = Annotated[JobWatcher, Depends(_watcher)]
Deletion = Annotated[JobDeletion, Depends(_deletion)]
Forecasts = Annotated[Outlooks, Depends(_outlooks)]
Tenants = Annotated[TenantDeletion, Depends(_tenants)]
Queue = Annotated[QueueControl, Depends(_queue)]
Bulk = Annotated[BulkJobs, Depends(_bulk)]
Overview = Annotated[TenantList, Depends(_overview)]
Rules = Annotated[RuleService, Depends(_rules)]
Keys = Annotated[KeyService, Depends(_keys)]
Uploads = Annotated[UploadService, Depends(_uploads)]
Uploading = Annotated[Receiver, Depends(_receiver)]
Webhooks = Annotated[WebhookService, Depends(_webhooks)]
Audit = Annotated[AuditService, Depends(_audit)]

# The JSON of a body before its validation; an object wherever the body's model has accepted it.
Sent = Annotated[dict[str, Any], Depends(sent_json)]

# The tenant whose jobs and uploads may be read: for it, those of other tenants do not exist.
Reader = Annotated[Caller, Security(_allowed(Scope.JOBS_READ), scopes=[Scope.JOBS_READ])]
Owner = Annotated[str, Depends(_owner)]
Writer = Annotated[Caller, Security(_allowed(Scope.JOBS_WRITE), scopes=[Scope.JOBS_WRITE])]
TenantAdmin = Annotated[Caller, Security(_allowed(Scope.TENANT_ADMIN, Scope.ADMIN), scopes=[Scope.TENANT_ADMIN])]
Admin = Annotated[Caller, Security(_allowed(Scope.ADMIN), scopes=[Scope.ADMIN])]
