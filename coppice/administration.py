"""What operators and keepers of tenants do by a client: keys, tenants, shares and limits, the queue, the audit log.

The clients have these operations beside those of `coppice.client` and `coppice.async_client`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Literal, TypeVar

from coppice import operator_requests
from coppice.operations import Operation
from coppice.types import ApiKey, NamedQueue, NewApiKey, QueueControl, Tenant, TenantDeletion

Result = TypeVar("Result")


class Administration(ABC):
    """The part of `coppice.Client` that is for operators and keepers of tenants."""

    @abstractmethod
    def _run(self, operation: Operation[Result]) -> Result: ...

    def create_key(
        self, tenant: str, *, name: str = "", scopes: Sequence[str] | None = None, expires_days: int | None = None
    ) -> NewApiKey:
        """Make an API key. Needs a key with the scope ``admin``."""
        return self._run(operator_requests.create_key(tenant, name=name, scopes=scopes, expires_days=expires_days))

    def keys(self, tenant: str | None = None) -> list[ApiKey]:
        """List API keys. Needs a key with the scope ``admin``."""
        return self._run(operator_requests.keys(tenant))

    def revoke_key(self, key_id: str) -> ApiKey:
        """Revoke an API key. Needs a key with the scope ``admin``."""
        return self._run(operator_requests.revoke_key(key_id))

    def tenants(self) -> list[Tenant]:
        """List all tenants with what they have. Needs a key with the scope ``admin``."""
        return self._run(operator_requests.tenants())

    def delete_tenant(self, tenant: str, *, with_audit: bool = False) -> TenantDeletion:
        """Begin to delete a tenant with everything of it, or go on with it. Needs a key with the scope ``admin``.

        Ask again until ``finished_at`` is set; the workers go on with it meanwhile.

        Args:
            tenant: Name of the tenant.
            with_audit: Whether the audit log's lines of what the tenant did are deleted, too.
        """
        return self._run(operator_requests.delete_tenant(tenant, with_audit=with_audit))

    def export_audit(self, *, after: int = 0, previous: str | None = None) -> str:
        """Export the audit log as lines of JSON, oldest first. Needs a key with the scope ``admin``.

        Args:
            after: Id in the last line of the export that this one goes on from.
            previous: Digest of that line, ``sha256:...``.
        """
        return self._run(operator_requests.export_audit(after, previous))

    def queue(self, action: Literal["pause", "drain", "resume"] | None = None) -> QueueControl:
        """Read the queue of the whole service; or pause, drain or resume it. Needs a key with the scope ``admin``."""
        return self._run(operator_requests.queue(action))

    def tenant(self, name: str) -> Tenant:
        """Read what one tenant has, and what is set for it. Needs a key with the scope ``admin``."""
        return self._run(operator_requests.tenant(name))

    def set_tenant(
        self, name: str, *, share: float | None = None, max_running: int | Literal["default"] | None = None
    ) -> Tenant:
        """Set a tenant's share of the turns, or how many of its jobs run at once. Needs a key with the scope ``admin``.

        Args:
            name: Of the tenant.
            share: Beside those of other tenants, who have 1; None: as it is.
            max_running: Jobs that may run at once; ``default``: as the service's settings say; None: as it is.
        """
        return self._run(operator_requests.set_tenant(name, share=share, max_running=max_running))

    def queues(self) -> list[NamedQueue]:
        """List the queues that have jobs open or a limit. Needs a key with the scope ``admin``."""
        return self._run(operator_requests.queues())

    def set_queue(self, name: str, *, max_running: int | None) -> NamedQueue:
        """Set how many jobs of a queue run at once; None: any number. Needs a key with the scope ``admin``.

        Args:
            name: Of the queue: ``cuda``, or ``cuda+a100``.
            max_running: Jobs that may run at once.
        """
        return self._run(operator_requests.set_queue(name, max_running=max_running))


class AsyncAdministration(ABC):
    """The part of `coppice.AsyncClient` that is for operators and keepers of tenants."""

    @abstractmethod
    async def _run(self, operation: Operation[Result]) -> Result: ...

    async def create_key(
        self, tenant: str, *, name: str = "", scopes: Sequence[str] | None = None, expires_days: int | None = None
    ) -> NewApiKey:
        """Make an API key. Needs a key with the scope ``admin``."""
        return await self._run(operator_requests.create_key(tenant, name=name, scopes=scopes, expires_days=expires_days))

    async def keys(self, tenant: str | None = None) -> list[ApiKey]:
        """List API keys. Needs a key with the scope ``admin``."""
        return await self._run(operator_requests.keys(tenant))

    async def revoke_key(self, key_id: str) -> ApiKey:
        """Revoke an API key. Needs a key with the scope ``admin``."""
        return await self._run(operator_requests.revoke_key(key_id))

    async def tenants(self) -> list[Tenant]:
        """List all tenants with what they have. Needs a key with the scope ``admin``."""
        return await self._run(operator_requests.tenants())

    async def delete_tenant(self, tenant: str, *, with_audit: bool = False) -> TenantDeletion:
        """Begin to delete a tenant with everything of it, or go on with it. Needs a key with the scope ``admin``.

        Ask again until ``finished_at`` is set; the workers go on with it meanwhile.

        Args:
            tenant: Name of the tenant.
            with_audit: Whether the audit log's lines of what the tenant did are deleted, too.
        """
        return await self._run(operator_requests.delete_tenant(tenant, with_audit=with_audit))

    async def export_audit(self, *, after: int = 0, previous: str | None = None) -> str:
        """Export the audit log as lines of JSON, oldest first. Needs a key with the scope ``admin``.

        Args:
            after: Id in the last line of the export that this one goes on from.
            previous: Digest of that line, ``sha256:...``.
        """
        return await self._run(operator_requests.export_audit(after, previous))

    async def queue(self, action: Literal["pause", "drain", "resume"] | None = None) -> QueueControl:
        """Read the queue of the whole service; or pause, drain or resume it. Needs a key with the scope ``admin``."""
        return await self._run(operator_requests.queue(action))

    async def tenant(self, name: str) -> Tenant:
        """Read what one tenant has, and what is set for it. Needs a key with the scope ``admin``."""
        return await self._run(operator_requests.tenant(name))

    async def set_tenant(
        self, name: str, *, share: float | None = None, max_running: int | Literal["default"] | None = None
    ) -> Tenant:
        """Set a tenant's share of the turns, or how many of its jobs run at once. Needs a key with the scope ``admin``.

        Args:
            name: Of the tenant.
            share: Beside those of other tenants, who have 1; None: as it is.
            max_running: Jobs that may run at once; ``default``: as the service's settings say; None: as it is.
        """
        return await self._run(operator_requests.set_tenant(name, share=share, max_running=max_running))

    async def queues(self) -> list[NamedQueue]:
        """List the queues that have jobs open or a limit. Needs a key with the scope ``admin``."""
        return await self._run(operator_requests.queues())

    async def set_queue(self, name: str, *, max_running: int | None) -> NamedQueue:
        """Set how many jobs of a queue run at once; None: any number. Needs a key with the scope ``admin``.

        Args:
            name: Of the queue: ``cuda``, or ``cuda+a100``.
            max_running: Jobs that may run at once.
        """
        return await self._run(operator_requests.set_queue(name, max_running=max_running))
