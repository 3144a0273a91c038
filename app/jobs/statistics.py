"""SQL over all jobs of all tenants, for the service's operator: how many there are, and what the event log says of them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import sqlalchemy as sa

from app.db import now
from app.jobs import models
from app.jobs.records import EventType
from app.jobs.states import ACTIVE, JobStatus

_jobs, _events, _workers = models.jobs, models.job_events, models.workers

# Events that the tally ignores.
_UNCOUNTED = frozenset({EventType.STAGE, EventType.CANCELLING})


@dataclass(frozen=True, slots=True)
class LoggedEvent:
    """One line of the event log, reduced to what the tally counts."""

    id: int
    job_id: str
    type: EventType
    reason: str  # error code of a failure, or reason of a requeue
    created_at: float


@dataclass(frozen=True, slots=True)
class QueueState:
    """All jobs at one moment of the database's clock."""

    clock: float
    jobs: Mapping[JobStatus, int]
    oldest_due_s: float  # seconds that the longest waiting job has been due
    expired_leases: int
    workers: int
    queues: Mapping[tuple[str, str], int]  # by the queue's name, and whether jobs wait or run


class StatisticsRepository:
    """Queries within one transaction of the caller's."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection

    def queue(self, *, seen_within_s: float) -> QueueState:
        """Count jobs by status, and the workers that were seen lately."""
        clock = self._connection.execute(sa.select(now())).scalar_one()
        counted = sa.select(_jobs.c.status, sa.func.count()).group_by(_jobs.c.status)
        found = {JobStatus(status): count for status, count in self._connection.execute(counted)}
        due = sa.select(sa.func.min(_jobs.c.not_before)).where(_jobs.c.status == str(JobStatus.QUEUED))
        first_due = self._connection.scalar(due)
        expired = sa.select(sa.func.count()).where(_jobs.c.status.in_(sorted(ACTIVE)), _jobs.c.lease_until < clock)
        return QueueState(
            clock=clock,
            jobs={status: found.get(status, 0) for status in JobStatus},
            oldest_due_s=0.0 if first_due is None else max(0.0, clock - first_due),
            expired_leases=self._connection.scalar(expired) or 0,
            workers=self._workers(seen_within_s),
            queues=self._queues(),
        )

    def _queues(self) -> dict[tuple[str, str], int]:
        """Count what waits and what runs by queue."""
        runs = sa.case((_jobs.c.status == str(JobStatus.QUEUED), "waiting"), else_="running")
        open_jobs = _jobs.c.status.in_(sorted(ACTIVE | {JobStatus.QUEUED}))
        query = sa.select(_jobs.c.queue, runs, sa.func.count()).where(open_jobs).group_by(_jobs.c.queue, runs)
        return {(queue, state): count for queue, state, count in self._connection.execute(query)}

    def _workers(self, seen_within_s: float) -> int:
        """Count the workers that were seen lately."""
        seen = sa.select(sa.func.count()).select_from(_workers).where(_workers.c.seen_at > now() - seen_within_s)
        return self._connection.scalar(seen) or 0

    def log(self, *, after: int, limit: int) -> list[LoggedEvent]:
        """Read the log of all jobs from behind an id."""
        query = (
            sa.select(_events.c.id, _events.c.job_id, _events.c.type, _events.c.data, _events.c.created_at)
            .where(_events.c.id > after, _events.c.type.not_in(sorted(_UNCOUNTED)))
            .order_by(_events.c.id)
            .limit(limit)
        )
        return [
            LoggedEvent(
                row.id, row.job_id, EventType(row.type), row.data.get("code") or row.data.get("reason") or "", row.created_at
            )
            for row in self._connection.execute(query)
        ]

    def stage_seconds(self, job_ids: Collection[str]) -> dict[str, dict[str, float]]:
        """Read how long each stage of some jobs took, from their reports."""
        seconds = _jobs.c.report[("seconds", "by_stage")].as_json()
        query = sa.select(_jobs.c.id, seconds.label("seconds")).where(_jobs.c.id.in_(job_ids), _jobs.c.report.is_not(None))
        return {row.id: row.seconds for row in self._connection.execute(query) if row.seconds}
