"""SQL of the front end: insert, read and list jobs, their events and artifacts; ask for a cancellation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from app.db import now
from app.jobs import models
from app.jobs.records import EventType, Job, JobError, JobEvent, PublishedArtifact
from app.jobs.states import TRANSITIONS, JobStatus, Transition
from pruning_core.report import Progress, Report
from pruning_core.spec import PruneSpec

_jobs, _events, _artifacts, _keys = models.jobs, models.job_events, models.artifacts, models.idempotency_keys

_QUOTA_LOCK = 6_226_174  # the first half of the key of PostgreSQL's advisory lock


def add_event(connection: sa.Connection, job_id: str, kind: EventType, data: dict[str, Any]) -> None:
    """Append to a job's event log, in the caller's transaction."""
    connection.execute(_events.insert().values(job_id=job_id, type=str(kind), data=data, created_at=now()))


def move(connection: sa.Connection, job_id: str, transition: Transition, *where: Any, **values: Any) -> bool:
    """Carry out one transition of the table, if the job is in a state that allows it and ``where`` holds.

    Returns:
        Whether a row was affected.
    """
    sources, target = TRANSITIONS[transition]
    statement = (
        _jobs.update()
        .where(_jobs.c.id == job_id, _jobs.c.status.in_(sorted(sources)), *where)
        .values(status=str(target), version=_jobs.c.version + 1, **values)
    )
    return connection.execute(statement).rowcount == 1


class JobRepository:
    """Queries within one transaction of the caller's."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection

    def insert(self, job_id: str, *, owner: str, spec: PruneSpec, metadata: dict[str, str], priority: int) -> None:
        """Insert a queued job and its first event."""
        self._connection.execute(
            _jobs.insert().values(
                id=job_id,
                owner=owner,
                status=str(JobStatus.QUEUED),
                priority=priority,
                spec=spec.model_dump(mode="json"),
                metadata=metadata,
                version=1,
                fence=0,
                cancel_requested=False,
                attempt=0,
                crashes=0,
                losses=0,
                not_before=now(),
                published_at=now(),
                publish_count=0,
                created_at=now(),
            )
        )
        add_event(self._connection, job_id, EventType.QUEUED, {})

    def check(self) -> None:
        """Read a row as this version knows them, whatever stands in it."""
        self._connection.execute(sa.select(_jobs).limit(1)).all()

    def queue_is_full(self, owner: str, limit: int) -> bool:
        """Whether so many jobs of an owner are waiting. On PostgreSQL, submits of one owner take turns for this."""
        if self._connection.dialect.name != "sqlite":  # where writers take turns anyway
            self._connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_QUOTA_LOCK, sa.func.hashtext(owner))))
        waiting = (
            sa.select(sa.literal(1))
            .where(_jobs.c.owner == owner, _jobs.c.status == str(JobStatus.QUEUED))
            .limit(limit)
            .subquery()
        )
        return (self._connection.scalar(sa.select(sa.func.count()).select_from(waiting)) or 0) >= limit

    def remember_key(self, owner: str, key: str, body_sha256: str, job_id: str) -> None:
        """Tie an idempotency key to the job that it made."""
        self._connection.execute(
            _keys.insert().values(owner=owner, key=key, body_sha256=body_sha256, job_id=job_id, created_at=now())
        )

    def find_key(self, owner: str, key: str) -> tuple[str, str] | None:
        """Give the body hash and the job id of an idempotency key."""
        row = self._connection.execute(
            sa.select(_keys.c.body_sha256, _keys.c.job_id).where(_keys.c.owner == owner, _keys.c.key == key)
        ).one_or_none()
        return None if row is None else (row.body_sha256, row.job_id)

    def get(self, job_id: str, *, owner: str) -> Job | None:
        """Read one job of an owner."""
        query = sa.select(_jobs).where(_jobs.c.id == job_id, _jobs.c.owner == owner)
        row = self._connection.execute(query).mappings().one_or_none()
        return None if row is None else _job(row)

    def list(self, *, owner: str, statuses: Sequence[JobStatus], after: Job | None, limit: int) -> list[Job]:
        """List jobs, newest first, from behind a given one."""
        query = sa.select(_jobs).where(_jobs.c.owner == owner)
        if statuses:
            query = query.where(_jobs.c.status.in_([str(status) for status in statuses]))
        if after is not None:
            query = query.where(sa.tuple_(_jobs.c.created_at, _jobs.c.id) < sa.tuple_(after.created_at, after.id))
        rows = self._connection.execute(query.order_by(_jobs.c.created_at.desc(), _jobs.c.id.desc()).limit(limit))
        return [_job(row) for row in rows.mappings()]

    def events(self, job_id: str, *, after: int, limit: int) -> list[JobEvent]:
        """Read a job's event log from behind an id."""
        query = sa.select(_events).where(_events.c.job_id == job_id, _events.c.id > after).order_by(_events.c.id).limit(limit)
        return [JobEvent(row.id, EventType(row.type), row.data, row.created_at) for row in self._connection.execute(query)]

    def artifacts(self, job_id: str) -> list[PublishedArtifact]:
        """List what a job has published."""
        return self.artifacts_of([job_id])[job_id]

    def artifacts_of(self, job_ids: Sequence[str]) -> dict[str, list[PublishedArtifact]]:
        """List what each of several jobs has published, in one query."""
        found: dict[str, list[PublishedArtifact]] = {job_id: [] for job_id in job_ids}
        query = sa.select(_artifacts).where(_artifacts.c.job_id.in_(job_ids)).order_by(_artifacts.c.path)
        for row in self._connection.execute(query):
            found[row.job_id].append(PublishedArtifact(row.path, row.fence, row.size, row.sha256))
        return found

    def artifact(self, job_id: str, path: str) -> PublishedArtifact | None:
        """Find one published file."""
        if "\0" in path:  # PostgreSQL takes no text with NUL, not even to compare with
            return None
        row = self._connection.execute(
            sa.select(_artifacts).where(_artifacts.c.job_id == job_id, _artifacts.c.path == path)
        ).one_or_none()
        return None if row is None else PublishedArtifact(row.path, row.fence, row.size, row.sha256)

    def request_cancel(self, job_id: str) -> bool:
        """Cancel a queued job at once, or ask the worker of a running one to stop.

        Returns:
            False where the job has finished already.
        """
        # Locked first: between the two statements below a worker could give the job back, and both would miss it.
        self._connection.execute(sa.select(_jobs.c.id).where(_jobs.c.id == job_id).with_for_update())
        if move(self._connection, job_id, Transition.CANCEL_QUEUED, cancel_requested=True, finished_at=now()):
            add_event(self._connection, job_id, EventType.CANCELLED, {})
            return True
        if move(self._connection, job_id, Transition.REQUEST_CANCEL, cancel_requested=True):
            add_event(self._connection, job_id, EventType.CANCELLING, {})
            return True
        status = self._connection.scalar(sa.select(_jobs.c.status).where(_jobs.c.id == job_id))
        return status == JobStatus.CANCELLING


def _job(found: sa.RowMapping) -> Job:
    return Job(
        id=found["id"],
        owner=found["owner"],
        status=JobStatus(found["status"]),
        priority=found["priority"],
        spec=PruneSpec.model_validate(found["spec"]),
        metadata=found["metadata"],
        version=found["version"],
        fence=found["fence"],
        attempt=found["attempt"],
        cancel_requested=found["cancel_requested"],
        progress=None if found["progress"] is None else Progress.model_validate(found["progress"]),
        report=None if found["report"] is None else Report.model_validate(found["report"]),
        error=None if found["error"] is None else JobError(**found["error"]),
        created_at=found["created_at"],
        started_at=found["started_at"],
        finished_at=found["finished_at"],
        expires_at=found["expires_at"],
    )
