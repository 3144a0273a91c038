"""Retention: what is deleted when it is old, as far as the operator has set limits. Safe to run twice at once."""

from __future__ import annotations

import time
from collections.abc import Callable

import structlog

from app.audit.repository import AuditRepository
from app.db import Database
from app.jobs.deletion import JobDeletion
from app.jobs.removal import RemovalRepository
from app.jobs.repository import JobRepository
from app.settings import Settings
from app.storage import ArtifactStore
from app.uploads.repository import UploadRepository
from app.uploads.service import UploadService

_log = structlog.get_logger(__name__)

_BATCH = 20  # of what has files
_BATCH_OF_LINES = 500


class Retention:
    """Deletes what is older than the settings say, in bounded batches."""

    def __init__(self, settings: Settings, database: Database, store: ArtifactStore) -> None:
        self._settings = settings
        self._database = database
        self._jobs = JobDeletion(database, store)
        self._uploads = UploadService(settings, database, store)
        self._events_up_to = 0

    def sweep(self, *, for_s: float) -> None:
        """Delete batch after batch, of each kind in turn, until nothing more is old or the time is over."""
        settings, deadline = self._settings, time.monotonic() + for_s
        kinds: tuple[tuple[float | None, Callable[[float], bool]], ...] = (
            (settings.jobs_keep_s, self._old_jobs),
            (settings.events_keep_s, self._old_events),
            (settings.audit_keep_s, self._old_audit),
            (settings.uploads_keep_s, self._unused_uploads),
        )
        left = [(keep_s, delete) for keep_s, delete in kinds if keep_s is not None]
        while left and time.monotonic() < deadline:
            left = [(keep_s, delete) for keep_s, delete in left if delete(keep_s)]

    def _old_jobs(self, keep_s: float) -> bool:
        """Delete some jobs with all that is theirs. Return whether there may be more."""
        with self._database.write() as connection:
            removal = RemovalRepository(connection)
            old = removal.ended(for_s=keep_s, limit=_BATCH)
            gone = removal.remove(old)
        self._jobs.drop_files(gone)
        _told("job", len(gone))
        return len(gone) == _BATCH

    def _old_events(self, keep_s: float) -> bool:
        with self._database.write() as connection:
            deleted, self._events_up_to = RemovalRepository(connection).forget_events(
                older_than_s=keep_s, after=self._events_up_to, limit=_BATCH_OF_LINES
            )
        _told("event", deleted)
        return self._events_up_to > 0

    def _old_audit(self, keep_s: float) -> bool:
        with self._database.write() as connection:
            deleted = AuditRepository(connection).forget(older_than_s=keep_s, limit=_BATCH_OF_LINES)
        _told("audit event", deleted)
        return deleted == _BATCH_OF_LINES

    def _unused_uploads(self, keep_s: float) -> bool:
        gone: list[str] = []
        with self._database.write() as connection:
            uploads, jobs = UploadRepository(connection), JobRepository(connection)
            unused = uploads.unused(for_s=keep_s, limit=_BATCH)
            for upload_id, owner in unused:
                if jobs.is_needed(str(self._uploads.folder(upload_id)), owner=owner):
                    uploads.use(upload_id, owner=owner)  # so that it is not in the way of others until the job has ended
                    continue
                uploads.lock(upload_id)
                if uploads.delete_unused(upload_id, owner=owner, for_s=keep_s):
                    gone.append(upload_id)
        for upload_id in gone:
            self._uploads.drop_unclaimed(upload_id)
        _told("upload", len(gone))
        return len(unused) == _BATCH


def _told(kind: str, number: int) -> None:
    if number:
        _log.info("retention.deleted", kind=kind, number=number)
