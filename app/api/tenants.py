"""Routes of tenants, for operators: they need the scope ``admin``."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Path, Query, Response

from app.api.deps import Admin, Overview, Rules, Tenants, sent_json
from app.errors import ProblemDetails
from app.keys.schemas import TENANT
from app.operations.schemas import TenantDeletionView, TenantRules, TenantsView, TenantView

router = APIRouter(prefix="/v1/tenants", tags=["tenants"], responses={"default": {"model": ProblemDetails}})

TenantName = Annotated[str, Path(min_length=1, max_length=64, pattern=TENANT)]

_WORK_S = 2.0


@router.get("", operation_id="listTenants")
def list_tenants(overview: Overview, _caller: Admin) -> TenantsView:
    """List all tenants with their jobs by status, the bytes that are kept for them, and their valid keys."""
    return TenantsView(data=[TenantView.of(tenant) for tenant in overview.read()])


@router.get("/{tenant}", operation_id="getTenant")
def get_tenant(tenant: TenantName, overview: Overview, _caller: Admin) -> TenantView:
    """Read what one tenant has, and what is set for it."""
    return TenantView.of(overview.of(tenant))


@router.patch("/{tenant}", operation_id="setTenant", dependencies=[Depends(sent_json)])
def set_tenant(tenant: TenantName, body: TenantRules, rules: Rules, overview: Overview, caller: Admin) -> TenantView:
    """Set a tenant's share of the turns, or how many of its jobs run at once. It holds from the next claim on.

    A tenant that has nothing yet may have its share set, too.
    """
    share = body.share if "share" in body.model_fields_set else None
    max_running = (body.max_running or 0) if "max_running" in body.model_fields_set else None
    rules.set_tenant(tenant, share=share, max_running=max_running, caller=caller)
    return TenantView.of(overview.of(tenant))


@router.delete(
    "/{tenant}",
    operation_id="deleteTenant",
    responses={200: {"description": "Nothing is left"}, 202: {"model": TenantDeletionView, "description": "It goes on"}},
)
def delete_tenant(
    tenant: TenantName,
    tenants: Tenants,
    caller: Admin,
    response: Response,
    audit: Annotated[
        Literal["keep", "delete"], Query(description="Whether the audit log's lines of the tenant stay.")
    ] = "keep",
) -> TenantDeletionView:
    """Delete a tenant for ever: jobs, files, uploads, webhooks, keys and sessions. Its jobs that run are cancelled first.

    Ask again until the answer is a 200; meanwhile the workers go on with it by themselves.
    """
    state = tenants.delete(tenant, with_audit=audit == "delete", caller=caller, for_s=_WORK_S)
    if state.deletion.finished_at is None:
        response.status_code = HTTPStatus.ACCEPTED
    return TenantDeletionView.of(state)
