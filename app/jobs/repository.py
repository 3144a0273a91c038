"""SQL of the front end: insert, read and list jobs, their events and artifacts; ask for a cancellation."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from app.db import now
from app.jobs import models
from app.jobs.arrivals import ArrivalRepository, NewJob
from app.jobs.limits import NO_LIMITS, JobLimits
from app.jobs.naming import Naming, is_tag, labels_of
from app.jobs.needs import NO_NEEDS, Needs
from app.jobs.records import TERMINAL_EVENTS, EventType, Job, JobError, JobEvent, PublishedArtifact, is_calibration
from app.jobs.search import Wanted, found_ids, no_calibration
from app.jobs.states import TERMINAL, TRANSITIONS, JobStatus, Transition
from app.refusals import NotFound
from app.tenants.repository import TenantRepository
from app.webhooks.repository import WebhookRepository
from pruning_core.report.progress import Progress
from pruning_core.report.report import Report
from pruning_core.spec.prune import PruneSpec

_jobs, _events, _artifacts, _keys = models.jobs, models.job_events, models.artifacts, models.idempotency_keys
_labels = models.job_labels


def goes_by(job_id: str, owner: str) -> tuple[sa.ColumnElement[bool], ...]:
    """Return the conditions of the one job of an owner that goes by our id or by the owner's own."""
    return sa.or_(_jobs.c.id == job_id, _jobs.c.client_id == job_id), _jobs.c.owner == owner


def add_event(connection: sa.Connection, job_id: str, kind: EventType, data: dict[str, Any]) -> None:
    """Append to a job's event log, and to the outbox if it is the job's end, in the caller's transaction."""
    connection.execute(_events.insert().values(job_id=job_id, type=str(kind), data=data, created_at=now()))
    if kind in TERMINAL_EVENTS:
        job = connection.execute(
            sa.select(_jobs.c.owner, _jobs.c.client_id, _jobs.c.status, _jobs.c.metadata).where(_jobs.c.id == job_id)
        ).one()
        what = "calibration" if is_calibration(job_id) else "job"
        shown = {"id": job.client_id or job_id, "object": f"pruning.{what}", "status": job.status, "metadata": job.metadata}
        payload = json.dumps({"type": str(kind), "data": shown | {"result": data}})
        WebhookRepository(connection).enqueue(job.owner, str(kind), payload, job_id=job_id)


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

    def insert(
        self,
        job_id: str,
        *,
        owner: str,
        spec: PruneSpec,
        metadata: dict[str, str],
        priority: int,
        client_id: str | None = None,
        body_sha256: str | None = None,
        traceparent: str | None = None,
        rank: int = 0,
        needs: Needs = NO_NEEDS,
        limits: JobLimits = NO_LIMITS,
    ) -> None:
        """Insert a queued job and its first event.

        ``rank`` goes before the turns among tenants, the smaller the earlier.
        """
        ArrivalRepository(self._connection).insert(
            [
                NewJob(
                    job_id,
                    owner,
                    spec,
                    metadata,
                    priority,
                    client_id=client_id,
                    body_sha256=body_sha256,
                    traceparent=traceparent,
                    rank=rank,
                    needs=needs,
                    limits=limits,
                )
            ]
        )

    def check(self) -> None:
        """Read one row with this version's columns."""
        self._connection.execute(sa.select(_jobs).limit(1)).all()

    def waiting(self, owner: str, limit: int) -> int:
        """Count the jobs of an owner that wait, up to a limit. On PostgreSQL, submits of one owner take turns for this."""
        TenantRepository(self._connection).lock(owner)
        waiting = (
            sa.select(sa.literal(1))
            .where(_jobs.c.owner == owner, _jobs.c.status == str(JobStatus.QUEUED))
            .limit(limit)
            .subquery()
        )
        return self._connection.scalar(sa.select(sa.func.count()).select_from(waiting)) or 0

    def find_key(self, owner: str, key: str) -> tuple[str, str] | None:
        """Return the request's digest and the job's id of an idempotency key."""
        row = self._connection.execute(
            sa.select(_keys.c.body_sha256, _keys.c.job_id).where(_keys.c.owner == owner, _keys.c.key == key)
        ).one_or_none()
        return None if row is None else (row.body_sha256, row.job_id)

    def get(self, job_id: str, *, owner: str) -> Job | None:
        """Read one job of an owner, by our id or by the owner's own."""
        query = sa.select(_jobs).where(*goes_by(job_id, owner))
        row = self._connection.execute(query).mappings().one_or_none()
        return None if row is None else _job(row)

    def known(self, job_id: str, *, owner: str) -> Job:
        """Read one job of an owner. Raises `NotFound`."""
        job = self.get(job_id, owner=owner)
        if job is None:
            raise NotFound("job_not_found", "there is no such job")
        return job

    def spec_as_stored(self, job_id: str) -> dict[str, Any]:
        """Read the spec of a job with the fields, and their order, that the version which wrote it knew."""
        return self._connection.execute(sa.select(_jobs.c.spec).where(_jobs.c.id == job_id)).scalar_one()

    def list(self, wanted: Wanted, *, after: Job | None, limit: int) -> list[Job]:
        """List jobs, newest first, from behind a given one."""
        ids = found_ids(self._connection, wanted, after=after, limit=limit)
        rows = self._connection.execute(sa.select(_jobs).where(_jobs.c.id.in_(ids)))
        found = {row["id"]: _job(row) for row in rows.mappings()}
        return [found[job_id] for job_id in ids if job_id in found]

    def counts(self, owner: str) -> dict[JobStatus, int]:
        """Count the jobs of an owner by status."""
        # A look at one stretch of the index for each, which is twice as fast as grouping.
        own = [
            sa.select(sa.func.count()).where(_jobs.c.owner == owner, _jobs.c.status == str(status), no_calibration(_jobs.c.id))
            for status in JobStatus
        ]
        row = self._connection.execute(sa.select(*(query.scalar_subquery() for query in own))).one()
        return {status: count for status, count in zip(JobStatus, row, strict=True) if count}

    def models(self, owner: str, *, among: int) -> list[str]:
        """List the models of an owner's newest jobs, by name."""
        newest = (
            sa.select(_jobs.c.spec["model"].as_string().label("model"))
            .where(_jobs.c.owner == owner, no_calibration(_jobs.c.id))
            .order_by(_jobs.c.created_at.desc(), _jobs.c.id.desc())
            .limit(among)
            .subquery()
        )
        return list(self._connection.scalars(sa.select(newest.c.model).distinct().order_by(newest.c.model)))

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
            found[row.job_id].append(PublishedArtifact(row.path, row.fence, row.size, row.sha256, row.job_id))
        return found

    def artifact(self, job_id: str, path: str) -> PublishedArtifact | None:
        """Find one published file."""
        if "\0" in path:  # PostgreSQL accepts no NUL in text, not even in a comparison
            return None
        row = self._connection.execute(
            sa.select(_artifacts).where(_artifacts.c.job_id == job_id, _artifacts.c.path == path)
        ).one_or_none()
        return None if row is None else PublishedArtifact(row.path, row.fence, row.size, row.sha256, row.job_id)

    def request_cancel(self, job_id: str) -> bool:
        """Cancel a queued job at once, or ask the worker of a running one to stop.

        Returns:
            False where the job has finished already.
        """
        # Lock the row first: else a worker could give the job back between the two statements below, and both would miss it.
        self._connection.execute(sa.select(_jobs.c.id).where(_jobs.c.id == job_id).with_for_update())
        if move(self._connection, job_id, Transition.CANCEL_QUEUED, cancel_requested=True, finished_at=now()):
            add_event(self._connection, job_id, EventType.CANCELLED, {})
            return True
        if move(self._connection, job_id, Transition.REQUEST_CANCEL, cancel_requested=True):
            add_event(self._connection, job_id, EventType.CANCELLING, {})
            return True
        status = self._connection.scalar(sa.select(_jobs.c.status).where(_jobs.c.id == job_id))
        return status == JobStatus.CANCELLING

    def is_needed(self, folder: str, *, owner: str) -> bool:
        """Return whether an unfinished job of an owner names a folder: as model, adapter or data, or in a part of its spec."""
        named = sa.or_(
            _jobs.c.spec["model"].as_string() == folder,
            _jobs.c.spec[("task", "dataset")].as_string() == folder,
            _jobs.c.spec["adapter"].as_string() == folder,
            _jobs.c.spec["evaluation"].as_string().contains(folder, autoescape=True),
            _jobs.c.spec["vocabulary"].as_string().contains(folder, autoescape=True),
        )
        open_ = sa.and_(_jobs.c.owner == owner, _jobs.c.status.not_in(sorted(TERMINAL)))
        query = sa.select(_jobs.c.id).where(open_, named).limit(1)
        return self._connection.scalar(query) is not None

    def rename(self, job: Job, naming: Naming) -> None:
        """Call a job otherwise from now on."""
        values = {"name": naming.name, "tags": list(naming.tags) or None, "version": _jobs.c.version + 1}
        self._connection.execute(_jobs.update().where(_jobs.c.id == job.id).values(**values))
        self._connection.execute(_labels.delete().where(_labels.c.job_id == job.id, is_tag(_labels.c.key)))
        of_it = {"job_id": job.id, "owner": job.owner, "created_at": job.created_at}
        if labels := [{**of_it, "key": key, "value": value} for key, value in labels_of(naming.tags)]:
            self._connection.execute(_labels.insert(), labels)

    def retry(self, job_id: str) -> bool:
        """Queue a failed job again, as if it had never been tried; what it published is withdrawn. False: it has not failed."""
        moved = move(
            self._connection,
            job_id,
            Transition.RETRY,
            cancel_requested=False,
            crashes=0,
            losses=0,
            not_before=now(),
            published_at=now(),
            publish_count=0,
            progress=None,
            report=None,
            error=None,
            started_at=None,
            finished_at=None,
            expires_at=None,
        )
        if moved:
            self._connection.execute(_artifacts.delete().where(_artifacts.c.job_id == job_id))
            add_event(self._connection, job_id, EventType.RETRIED, {})
        return moved


def _job(found: sa.RowMapping) -> Job:
    return Job(
        id=found["id"],
        owner=found["owner"],
        status=JobStatus(found["status"]),
        priority=found["priority"],
        rank=found["rank"],
        needs=Needs.of(found["queue"], found["gpu_bytes"]),
        spec=PruneSpec.model_validate(found["spec"]),
        metadata=found["metadata"],
        version=found["version"],
        fence=found["fence"],
        attempt=found["attempt"],
        cancel_requested=found["cancel_requested"],
        progress=None if found["progress"] is None else Progress.model_validate(found["progress"]),
        progress_at=found["progress_at"],
        report=None if found["report"] is None else Report.model_validate(found["report"]),
        error=None if found["error"] is None else JobError(**found["error"]),
        created_at=found["created_at"],
        started_at=found["started_at"],
        finished_at=found["finished_at"],
        expires_at=found["expires_at"],
        client_id=found["client_id"],
        body_sha256=found["body_sha256"],
        limits=JobLimits(found["max_attempts"], found["timeout_s"]),
        calibration=found["calibration"],
        naming=Naming(found["name"], tuple(found["tags"] or ())),
    )
