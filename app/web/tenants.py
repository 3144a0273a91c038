"""The page of tenants, for operators."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from app.api.deps import Admin, Overview, Queue
from app.operations.schemas import QueueControlView, TenantView
from app.web.rendering import PageRoute, page
from app.web.views import STATUS_WORDS

router = APIRouter(route_class=PageRoute, include_in_schema=False)


@router.get("/tenants")
def list_tenants(request: Request, overview: Overview, queue: Queue, _caller: Admin) -> Response:
    """Show what every tenant has, and whether the queue is open."""
    tenants = [TenantView.of(tenant) for tenant in overview.read()]
    used = [status for status in STATUS_WORDS if any(tenant.jobs.get(status) for tenant in tenants)]
    values = {
        "tenants": tenants,
        "statuses": {status: STATUS_WORDS[status] for status in used},
        "queue": QueueControlView.of(queue.read()),
    }
    return page(request, "tenants.html", values)
