"""Cancelling and trying again many jobs at once, by a filter."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

import sqlalchemy as sa
import structlog

from app.audit.records import Action
from app.audit.repository import AuditRepository
from app.db import Database
from app.jobs import models
from app.jobs.places import PlaceRepository
from app.jobs.repository import JobRepository
from app.jobs.search import no_calibration
from app.jobs.states import JobStatus
from app.keys.records import Caller
from app.queue import Announcer
from app.refusals import QuotaExceeded
from app.settings import Settings
from app.tenants.repository import TenantRepository
from app.uploads.records import is_upload_id

_jobs = models.jobs

CANCELLABLE = frozenset({JobStatus.QUEUED, JobStatus.RUNNING})

_BATCH = 100
_MOST = 1000  # of one request, which must not take minutes

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class JobFilter:
    """Jobs of one owner: of some statuses, and of a model and with all of some metadata where those are given."""

    owner: str
    statuses: Collection[JobStatus]
    model: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True)
class BulkOutcome:
    """How many jobs the filter matched, and how many of them were changed."""

    matched: int
    changed: int
    more: bool = False  # one request changes only so many: the same one again changes more


class BulkRepository:
    """Queries within one transaction of the caller's."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection

    def count(self, wanted: JobFilter) -> int:
        """Count the jobs that match."""
        return self._connection.scalar(sa.select(sa.func.count()).select_from(_jobs).where(*_conditions(wanted))) or 0

    def ids(self, wanted: JobFilter, *, limit: int) -> list[str]:
        """List ids of jobs that match, the oldest first."""
        query = sa.select(_jobs.c.id).where(*_conditions(wanted)).order_by(_jobs.c.created_at, _jobs.c.id)
        return list(self._connection.scalars(query.limit(limit)))


class BulkJobs:
    """Use cases that change many jobs, in batches, each in one transaction. What was changed stays if a later one fails."""

    def __init__(self, settings: Settings, database: Database, announcer: Announcer) -> None:
        self._settings = settings
        self._database = database
        self._announcer = announcer

    def stored_name(self, model: str) -> str:
        """Return a model's name as specs keep it: an upload's is its folder."""
        return str(self._settings.resolved_uploads_dir / model) if is_upload_id(model) else model

    def cancel(self, wanted: JobFilter, *, caller: Caller, dry_run: bool) -> BulkOutcome:
        """Ask for the cancellation of jobs that wait or run, of a thousand at most."""

        def one_batch(connection: sa.Connection, ids: Sequence[str]) -> list[str]:
            return [job_id for job_id in ids if JobRepository(connection).request_cancel(job_id)]

        return self._in_batches(wanted, Action.JOB_CANCELLED, one_batch, caller=caller, dry_run=dry_run)

    def retry(self, wanted: JobFilter, *, caller: Caller, dry_run: bool) -> BulkOutcome:
        """Queue failed jobs again, a thousand at most, and no more than may wait.

        Raises:
            QuotaExceeded: As many jobs of the owner wait as may.
            Conflict: The owner is being deleted.
        """
        limit = self._settings.max_queued_jobs

        def one_batch(connection: sa.Connection, ids: Sequence[str]) -> list[str]:
            repository = JobRepository(connection)
            room = limit - repository.waiting(wanted.owner, limit)
            TenantRepository(connection).require_open(wanted.owner)
            return [job_id for job_id in ids[:room] if repository.retry(job_id)]

        outcome = self._in_batches(wanted, Action.JOB_RETRIED, one_batch, caller=caller, dry_run=dry_run)
        if outcome.matched and not outcome.changed and not dry_run:
            raise QuotaExceeded(
                "quota_exceeded", f"{limit} jobs are waiting, which is as many as this server takes of one owner"
            )
        return replace(outcome, more=outcome.more and outcome.changed == _MOST)  # fewer: no more may wait

    def _in_batches(
        self,
        wanted: JobFilter,
        action: Action,
        one_batch: Callable[[sa.Connection, Sequence[str]], list[str]],
        *,
        caller: Caller,
        dry_run: bool,
    ) -> BulkOutcome:
        with self._database.read() as connection:
            repository = BulkRepository(connection)
            matched, ids = repository.count(wanted), repository.ids(wanted, limit=_MOST)
        changed, seen_within_s = 0, self._settings.worker_gone_s
        wakes: list[tuple[str, str | None]] = []
        for start in range(0, 0 if dry_run else len(ids), _BATCH):
            with self._database.write() as connection:
                done = one_batch(connection, ids[start : start + _BATCH])
                for job_id in done:
                    AuditRepository(connection).record(action, caller.owner, caller.key_id, job_id)
                if action is Action.JOB_RETRIED:
                    wakes = list(PlaceRepository(connection).pools_of(done, seen_within_s=seen_within_s))
            for job_id, pool in wakes:
                self._announcer.announce(job_id, pool)
            changed += len(done)
        if changed:
            _log.info("jobs.changed", action=str(action), number=changed, owner=wanted.owner)
        return BulkOutcome(matched, changed, more=changed > 0 and matched > len(ids))


def _conditions(wanted: JobFilter) -> list[sa.ColumnElement[bool]]:
    found = [_jobs.c.owner == wanted.owner, no_calibration(_jobs.c.id), _jobs.c.status.in_(sorted(wanted.statuses))]
    if wanted.model is not None:
        found.append(_jobs.c.spec["model"].as_string() == wanted.model)
    return found + [_jobs.c.metadata[key].as_string() == value for key, value in wanted.metadata.items()]
