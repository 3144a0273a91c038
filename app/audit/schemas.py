"""Audit events as the API shows them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Literal

from pydantic import BaseModel

from app.audit.records import Action, AuditEvent


class AuditEventView(BaseModel):
    """One line of the audit log."""

    id: int
    object: Literal["audit.event"] = "audit.event"
    at: datetime
    tenant: str
    key_id: str
    action: Action
    subject: str

    @classmethod
    def of(cls, event: AuditEvent) -> AuditEventView:
        """Show an event."""
        moment = datetime.fromtimestamp(event.at, UTC)
        return cls(id=event.id, at=moment, tenant=event.owner, key_id=event.key_id, action=event.action, subject=event.subject)


class AuditEventList(BaseModel):
    """Audit events, newest first; ``next`` is the ``before`` of the next page."""

    object: Literal["list"] = "list"
    data: list[AuditEventView]
    has_more: bool
    next: int | None
