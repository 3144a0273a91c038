"""Routes of the audit log, for operators; who keeps a tenant reads what was done in it."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import StreamingResponse

from app.api.deps import Admin, Audit, TenantAdmin, of_own_tenant
from app.audit.chain import FIRST
from app.audit.schemas import AuditEventList, AuditEventView
from app.errors import ProblemDetails
from app.keys.schemas import TENANT

router = APIRouter(prefix="/v1/audit-events", tags=["audit"], responses={"default": {"model": ProblemDetails}})


@router.get("", operation_id="listAuditEvents")
def list_audit_events(
    audit: Audit,
    caller: TenantAdmin,
    tenant: Annotated[str | None, Query(max_length=64, pattern=TENANT)] = None,
    before: Annotated[int | None, Query(ge=1, lt=2**63, description="`next` of the page before.")] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 100,
) -> AuditEventList:
    """List who changed what, newest first."""
    events = audit.list(owner=of_own_tenant(caller, tenant), before=before, limit=limit + 1)
    more, page = len(events) > limit, [AuditEventView.of(event) for event in events[:limit]]
    return AuditEventList(data=page, has_more=more, next=page[-1].id if more else None)


@router.get(
    "/export",
    operation_id="exportAuditEvents",
    response_class=StreamingResponse,
    responses={200: {"content": {"application/x-ndjson": {"schema": {"type": "string"}}}}},
)
def export_audit_events(
    audit: Audit,
    _caller: Admin,
    after: Annotated[int, Query(ge=0, lt=2**63, description="Id in the last line of the export before.")] = 0,
    previous: Annotated[
        str, Query(pattern=r"^sha256:[0-9a-f]{64}$", max_length=71, description="`sha256:` and the digest of that line.")
    ] = FIRST,
) -> StreamingResponse:
    """Export the log as lines of JSON, oldest first, each of which names the sha256 of the line before as `previous`."""
    return StreamingResponse(audit.export(after=after, previous=previous), media_type="application/x-ndjson")
