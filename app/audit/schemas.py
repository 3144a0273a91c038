"""Audit events as the API shows them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Literal

from pydantic import BaseModel

from app.audit.records import Action, AuditEvent


class AuditPersonView(BaseModel):
    """Who did it, where it was a person: known to the provider by issuer and subject together; the name is for people."""

    issuer: str
    subject: str
    name: str


class AuditEventView(BaseModel):
    """One line of the audit log."""

    id: int
    object: Literal["audit.event"] = "audit.event"
    at: datetime
    tenant: str
    key_id: str
    action: Action
    subject: str
    person: AuditPersonView | None = None

    @classmethod
    def of(cls, event: AuditEvent) -> AuditEventView:
        """Show an event."""
        moment = datetime.fromtimestamp(event.at, UTC)
        who = event.person
        return cls(
            id=event.id,
            at=moment,
            tenant=event.owner,
            key_id=event.key_id,
            action=event.action,
            subject=event.subject,
            person=None if who is None else AuditPersonView(issuer=who.issuer, subject=who.subject, name=who.name),
        )


class AuditEventList(BaseModel):
    """Audit events, newest first; ``next`` is the ``before`` of the next page."""

    object: Literal["list"] = "list"
    data: list[AuditEventView]
    has_more: bool
    next: int | None
