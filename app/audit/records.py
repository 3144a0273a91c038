"""Audit events as frozen values."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Action(StrEnum):
    """Actions that the audit log records: everything that changes something for somebody."""

    KEY_CREATED = "key.created"
    KEY_REVOKED = "key.revoked"
    SIGNED_IN = "person.signed_in"
    LOGGED_IN = "person.logged_in"
    SIGNED_OUT = "person.signed_out"
    JOB_SUBMITTED = "job.submitted"
    JOB_CANCELLED = "job.cancel_requested"
    JOB_RETRIED = "job.retried"
    JOB_RENAMED = "job.renamed"
    JOB_DELETED = "job.deleted"
    QUEUE_PAUSED = "queue.paused"
    QUEUE_DRAINED = "queue.drained"
    QUEUE_RESUMED = "queue.resumed"
    TENANT_DELETION = "tenant.deletion_requested"
    TENANT_DELETED = "tenant.deleted"
    UPLOAD_STORED = "upload.stored"
    UPLOAD_DELETED = "upload.deleted"
    WEBHOOK_CREATED = "webhook.created"
    WEBHOOK_SECRET_SHOWN = "webhook.secret_shown"  # noqa: S105 - a name
    WEBHOOK_DELETED = "webhook.deleted"
    TENANT_SET = "tenant.set"
    QUEUE_SET = "queue.set"


@dataclass(frozen=True, slots=True)
class AuditPerson:
    """A person by whom something was done."""

    issuer: str
    subject: str
    name: str


@dataclass(frozen=True, slots=True)
class AuditEvent:
    """One line of the audit log; ids grow."""

    id: int
    at: float
    owner: str
    key_id: str
    action: Action
    subject: str
    person: AuditPerson | None = None  # None: by a key, or by the command line
