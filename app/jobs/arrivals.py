"""SQL of new jobs: those that arrive together are written together, each with its first event."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from app.db import Written, now
from app.jobs import models
from app.jobs.limits import NO_LIMITS, JobLimits
from app.jobs.naming import NO_NAMING, Naming, labels_of
from app.jobs.needs import NO_NEEDS, Needs
from app.jobs.records import EventType, Job, is_calibration
from app.jobs.states import JobStatus
from pruning_core.spec.prune import PruneSpec

_jobs, _events, _keys, _labels = models.jobs, models.job_events, models.idempotency_keys, models.job_labels

# Between jobs that are written together, so that they keep their order, which is that of their requests.
_APART_S = 1e-6


@dataclass(frozen=True, slots=True)
class NewJob:
    """A job that is to be queued. ``rank`` goes before the turns among tenants, the smaller the earlier."""

    id: str
    owner: str
    spec: PruneSpec
    metadata: dict[str, str]
    priority: int
    client_id: str | None = None
    body_sha256: str | None = None
    traceparent: str | None = None
    rank: int = 0
    needs: Needs = NO_NEEDS
    limits: JobLimits = NO_LIMITS
    calibration: str | None = None
    naming: Naming = NO_NAMING


@dataclass(frozen=True, slots=True)
class KeyUse:
    """An idempotency key, with the digest of the request that it names and the job that this made."""

    owner: str
    key: str
    body_sha256: str
    job_id: str


class ArrivalRepository:
    """Statements within one write transaction of the caller's."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection

    def insert(self, new: Sequence[NewJob]) -> list[Job]:
        """Insert queued jobs and the first event of each. Return them as they can be read from now on."""
        moment: float = self._connection.execute(sa.select(now())).scalar_one()
        jobs = [_queued(own, moment + _APART_S * place) for place, own in enumerate(new)]
        self._connection.execute(_jobs.insert(), [_row(*pair, moment) for pair in zip(new, jobs, strict=True)])
        if labels := list(_labels_of(jobs)):
            self._connection.execute(_labels.insert(), labels)
        if calibrations := [own for own in jobs if is_calibration(own.id)]:
            rows = [{"job_id": own.id, "owner": own.owner, "created_at": own.created_at} for own in calibrations]
            self._connection.execute(models.calibrations.insert(), rows)
        self._connection.execute(_events.insert(), list(_first_events(jobs)))
        return jobs

    def remember(self, uses: Sequence[KeyUse]) -> None:
        """Tie idempotency keys to the jobs that they made."""
        rows = [{"owner": own.owner, "key": own.key, "body_sha256": own.body_sha256, "job_id": own.job_id} for own in uses]
        self._connection.execute(_keys.insert().values(created_at=now()), rows)


def _queued(new: NewJob, moment: float) -> Job:
    return Job(
        id=new.id,
        owner=new.owner,
        status=JobStatus.QUEUED,
        priority=new.priority,
        rank=new.rank,
        needs=new.needs,
        spec=new.spec,
        metadata=new.metadata,
        version=1,
        fence=0,
        attempt=0,
        cancel_requested=False,
        progress=None,
        progress_at=None,
        report=None,
        error=None,
        created_at=moment,
        started_at=None,
        finished_at=None,
        expires_at=None,
        client_id=new.client_id,
        body_sha256=new.body_sha256,
        limits=new.limits,
        calibration=new.calibration,
        naming=new.naming,
    )


def _row(new: NewJob, job: Job, moment: float) -> dict[str, object]:
    return {
        "id": job.id,
        "owner": job.owner,
        "client_id": job.client_id,
        "body_sha256": job.body_sha256,
        "traceparent": new.traceparent,
        "status": str(job.status),
        "priority": job.priority,
        "rank": job.rank,
        "queue": job.needs.queue,
        "gpu_bytes": job.needs.gpu_memory_bytes,
        "spec": Written(job.spec.model_dump_json()),
        "metadata": job.metadata,
        "name": job.naming.name,
        "tags": list(job.naming.tags) or None,
        "model": job.spec.model if len(job.spec.model) <= models.LONGEST_INDEXED else None,
        "method": job.spec.method.name,
        "version": job.version,
        "fence": job.fence,
        "cancel_requested": job.cancel_requested,
        "attempt": job.attempt,
        "crashes": 0,
        "losses": 0,
        "max_attempts": job.limits.max_attempts,
        "timeout_s": job.limits.timeout_s,
        "calibration": job.calibration,
        "not_before": moment,
        "published_at": moment,
        "publish_count": 0,
        "created_at": job.created_at,
    }


def _labels_of(jobs: Sequence[Job]) -> Iterator[dict[str, object]]:
    for job in jobs:
        for key, value in (*job.metadata.items(), *labels_of(job.naming.tags)):
            yield {"job_id": job.id, "key": key, "value": value, "owner": job.owner, "created_at": job.created_at}


def _first_events(jobs: Sequence[Job]) -> Iterator[dict[str, object]]:
    for job in jobs:
        yield {"job_id": job.id, "type": str(EventType.QUEUED), "data": {}, "created_at": job.created_at}
