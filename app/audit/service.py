"""Use cases of the audit log: reading it."""

from __future__ import annotations

from app.audit.records import AuditEvent
from app.audit.repository import AuditRepository
from app.db import Database


class AuditService:
    """The audit log of all tenants."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def list(self, *, owner: str | None, before: int | None, limit: int) -> list[AuditEvent]:
        """List events, newest first."""
        with self._database.read() as connection:
            return AuditRepository(connection).list(owner=owner, before=before, limit=limit)
