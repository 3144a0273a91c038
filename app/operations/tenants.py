"""Deletion of tenants: everything that is theirs, in batches, each of them whole or not at all.

While jobs of the tenant run, they are cancelled and waited for. Whoever asks goes on where the one before stopped or died: an
operator who asks again, and the reaper of every worker. Safe to run twice at once.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import sqlalchemy as sa
import structlog

from app.audit.records import Action
from app.audit.repository import AuditRepository
from app.db import Database
from app.jobs.deletion import JobDeletion
from app.jobs.line import LineRepository
from app.jobs.removal import RemovalRepository
from app.jobs.repository import JobRepository
from app.jobs.states import ACTIVE, TERMINAL, JobStatus
from app.keys.records import Caller
from app.keys.repository import KeyRepository
from app.refusals import Conflict, NotFound
from app.settings import Settings
from app.storage import ArtifactStore
from app.tenants.records import Deletion
from app.tenants.repository import TenantRepository
from app.uploads.repository import UploadRepository
from app.uploads.service import UploadService
from app.webhooks.repository import WebhookRepository

_log = structlog.get_logger(__name__)

_BATCH = 20  # bundles, whose files an object store deletes in tenths of a second each
_BATCH_OF_AUDIT = 1000
_TENANTS_AT_ONCE = 10
_OPEN = ACTIVE | {JobStatus.QUEUED}


@dataclass(frozen=True, slots=True)
class DeletionState:
    """How far the deletion of a tenant is, and how many of its jobs still have a worker."""

    deletion: Deletion
    running: int


class TenantDeletion:
    """Deletes tenants."""

    def __init__(self, settings: Settings, database: Database, store: ArtifactStore) -> None:
        self._database = database
        self._jobs = JobDeletion(database, store)
        self._uploads = UploadService(settings, database, store)

    def delete(self, owner: str, *, with_audit: bool, caller: Caller, for_s: float) -> DeletionState:
        """Begin to delete a tenant, or go on with it. From its beginning on, no key of the tenant is good for anything.

        Args:
            owner: The tenant.
            with_audit: Whether the lines of the audit log go, too, that tell what the tenant did.
            caller: Who asks.
            for_s: Seconds for which to work on it now.

        Raises:
            NotFound: There is nothing of such a tenant, and never was a deletion of it.
            Conflict: The caller's key is the tenant's own, and would be deleted first.
        """
        if caller.key_id and caller.owner == owner:
            message = (
                f"this key is of {owner} itself and would go first; use the key of another tenant, or the command line there"
            )
            raise Conflict("own_tenant", message)
        with self._database.write() as connection:
            tenants = TenantRepository(connection)
            tenants.lock(owner)
            before = tenants.get(owner)
            is_known = _is_known(connection, owner, with_audit=with_audit)
            if before is None and not is_known:
                raise NotFound("tenant_not_found", f"there is nothing of a tenant {owner}")
            if is_known and (before is None or before.finished_at is not None):
                AuditRepository(connection).record(Action.TENANT_DELETION, caller.owner, caller.key_id, owner)
                _log.info("tenant.deletion_begun", owner=owner)
            if is_known:
                tenants.begin(owner, with_audit=with_audit)
                KeyRepository(connection).revoke_of(owner)
        self.advance(owner, for_s=for_s)
        return self.state(owner)

    def state(self, owner: str) -> DeletionState:
        """Read how far a deletion is. Raises `NotFound` where there was none."""
        with self._database.read() as connection:
            deletion = TenantRepository(connection).get(owner)
            if deletion is None:
                raise NotFound("tenant_not_found", f"no deletion of a tenant {owner} was asked for")
            counts = JobRepository(connection).counts(owner)
        running = sum(counts.get(status, 0) for status in ACTIVE) if deletion.finished_at is None else 0
        return DeletionState(deletion, running)

    def advance_all(self, *, for_s: float) -> None:
        """Go on with the deletions that are under way, for so many seconds in all."""
        deadline = time.monotonic() + for_s
        with self._database.read() as connection:
            owners = TenantRepository(connection).unfinished(limit=_TENANTS_AT_ONCE)
        for owner in owners:
            self.advance(owner, for_s=deadline - time.monotonic())

    def advance(self, owner: str, *, for_s: float) -> None:
        """Delete batch after batch until nothing is left, nothing can be done now, or the time is over."""
        deadline = time.monotonic() + for_s
        while self._one_batch(owner) and time.monotonic() < deadline:
            pass

    def _one_batch(self, owner: str) -> bool:
        """Do the next thing. Return whether there is more to do now."""
        gone: list[str] = []
        dropped: list[str] = []
        with self._database.write() as connection:
            tenants = TenantRepository(connection)
            tenants.lock(owner)
            deletion = tenants.get(owner, to_change=True)
            if deletion is None or deletion.finished_at is not None:
                return False
            removal = RemovalRepository(connection)
            cancelled = self._cancel(connection, owner)
            if ended := removal.of_owner(owner, TERMINAL, limit=_BATCH):
                counts = removal.contents(ended)
                gone = removal.remove(ended)
            elif cancelled:
                counts = {}
            elif removal.of_owner(owner, _OPEN, limit=1):
                return False  # they have workers, which stop them
            elif dropped := UploadRepository(connection).ids_of(owner, limit=_BATCH):
                counts = self._forget_uploads(connection, owner, dropped)
            elif deletion.with_audit and (lines := AuditRepository(connection).delete_of(owner, limit=_BATCH_OF_AUDIT)):
                counts = {"audit_events": lines}
            else:
                counts = {"webhooks": WebhookRepository(connection).delete_of(owner)}
                counts |= {"keys": KeyRepository(connection).delete_of(owner)}
                LineRepository(connection).forget_tenant(owner)
                tenants.finish(owner)
                AuditRepository(connection).record(Action.TENANT_DELETED, "", "", owner)
                _log.info("tenant.deleted", owner=owner)
            tenants.add(deletion, counts)
        self._jobs.drop_files(gone)
        for upload_id in dropped:
            self._uploads.drop_unclaimed(upload_id)
        return True

    def _cancel(self, connection: sa.Connection, owner: str) -> int:
        """Ask for the end of some jobs that nobody has asked to end yet. Return how many."""
        found = RemovalRepository(connection).of_owner(owner, _OPEN, limit=_BATCH, asked=False)
        for job_id in found:
            JobRepository(connection).request_cancel(job_id)
        return len(found)

    def _forget_uploads(self, connection: sa.Connection, owner: str, upload_ids: list[str]) -> dict[str, int]:
        uploads = UploadRepository(connection)
        before = uploads.total_bytes(owner)
        for upload_id in upload_ids:
            uploads.lock(upload_id)
            uploads.delete(upload_id, owner=owner)
        return {"uploads": len(upload_ids), "upload_bytes": before - uploads.total_bytes(owner)}


def _is_known(connection: sa.Connection, owner: str, *, with_audit: bool) -> bool:
    """Return whether anything is left of a tenant that a deletion would delete."""
    return bool(
        KeyRepository(connection).list(owner, limit=1)
        or RemovalRepository(connection).of_owner(owner, set(JobStatus), limit=1)
        or UploadRepository(connection).ids_of(owner, limit=1)
        or WebhookRepository(connection).list(owner=owner)
        or (with_audit and AuditRepository(connection).list(owner=owner, before=None, limit=1))
    )
