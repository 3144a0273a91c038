"""Operations of operators and keepers of tenants, as those of `coppice.operations`: generators of requests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal
from urllib.parse import quote

from coppice.operations import Operation, Query, Request
from coppice.types import ApiKey, NamedQueue, NewApiKey, QueueControl, Tenant, TenantDeletion


def create_key(tenant: str, *, name: str, scopes: Sequence[str] | None, expires_days: int | None) -> Operation[NewApiKey]:
    """Make an API key."""
    body: dict[str, Any] = {"tenant": tenant, "name": name, "expires_days": expires_days}
    body |= {} if scopes is None else {"scopes": list(scopes)}
    return NewApiKey.model_validate((yield Request("POST", "/v1/keys", json=body, repeatable=False)).json())


def keys(tenant: str | None) -> Operation[list[ApiKey]]:
    """List API keys."""
    query: Query = [] if tenant is None else [("tenant", tenant)]
    return [ApiKey.model_validate(item) for item in (yield Request("GET", "/v1/keys", params=query)).json()["data"]]


def revoke_key(key_id: str) -> Operation[ApiKey]:
    """Revoke an API key."""
    return ApiKey.model_validate((yield Request("DELETE", f"/v1/keys/{key_id}")).json())


def tenants() -> Operation[list[Tenant]]:
    """List all tenants."""
    return [Tenant.model_validate(item) for item in (yield Request("GET", "/v1/tenants")).json()["data"]]


def delete_tenant(tenant: str, *, with_audit: bool) -> Operation[TenantDeletion]:
    """Begin to delete a tenant, or go on with it."""
    query: Query = [("audit", "delete" if with_audit else "keep")]
    return TenantDeletion.model_validate((yield Request("DELETE", f"/v1/tenants/{tenant}", params=query)).json())


def export_audit(after: int, previous: str | None) -> Operation[str]:
    """Export the audit log from behind an event."""
    query: Query = [("after", after)]
    query += [] if previous is None else [("previous", previous)]
    return (yield Request("GET", "/v1/audit-events/export", params=query)).text


def queue(action: str | None) -> Operation[QueueControl]:
    """Read the queue; or pause, drain or resume it."""
    asked = Request("GET", "/v1/queue") if action is None else Request("POST", f"/v1/queue/{action}")
    return QueueControl.model_validate((yield asked).json())


def tenant(name: str) -> Operation[Tenant]:
    """Read one tenant."""
    return Tenant.model_validate((yield Request("GET", f"/v1/tenants/{quote(name, safe='')}")).json())


def set_tenant(name: str, *, share: float | None, max_running: int | Literal["default"] | None) -> Operation[Tenant]:
    """Set a tenant's share, or how many of its jobs run at once."""
    body: dict[str, Any] = {} if share is None else {"share": share}
    body |= {} if max_running is None else {"max_running": None if max_running == "default" else max_running}
    return Tenant.model_validate((yield Request("PATCH", f"/v1/tenants/{quote(name, safe='')}", json=body)).json())


def queues() -> Operation[list[NamedQueue]]:
    """List queues."""
    return [NamedQueue.model_validate(item) for item in (yield Request("GET", "/v1/queues")).json()["data"]]


def set_queue(name: str, *, max_running: int | None) -> Operation[NamedQueue]:
    """Set how many jobs of a queue run at once."""
    asked = Request("PUT", f"/v1/queues/{quote(name, safe='')}", json={"max_running": max_running})
    return NamedQueue.model_validate((yield asked).json())
