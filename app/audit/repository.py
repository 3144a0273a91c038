"""SQL of the audit log."""

from __future__ import annotations

import sqlalchemy as sa

from app.audit.models import audit_events as _events
from app.audit.records import Action, AuditEvent
from app.db import now


class AuditRepository:
    """Queries within one transaction of the caller's: what is written down is what was done, or neither."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection

    def record(self, action: Action, owner: str, key_id: str, subject: str) -> None:
        """Write down who did what to what."""
        self._connection.execute(
            _events.insert().values(at=now(), owner=owner, key_id=key_id, action=str(action), subject=subject)
        )

    def delete_of(self, owner: str, *, limit: int) -> int:
        """Delete some events of a tenant, the oldest first. Return how many."""
        oldest = sa.select(_events.c.id).where(_events.c.owner == owner).order_by(_events.c.id).limit(limit)
        return self._connection.execute(_events.delete().where(_events.c.id.in_(oldest))).rowcount

    def list(self, *, owner: str | None, before: int | None, limit: int) -> list[AuditEvent]:
        """List events of one tenant or of all, newest first, from before an id."""
        query = sa.select(_events).order_by(_events.c.id.desc()).limit(limit)
        if owner is not None:
            query = query.where(_events.c.owner == owner)
        if before is not None:
            query = query.where(_events.c.id < before)
        return [
            AuditEvent(row.id, row.at, row.owner, row.key_id, Action(row.action), row.subject)
            for row in self._connection.execute(query)
        ]
