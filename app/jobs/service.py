"""What can be asked of jobs, apart from HTTP: one transaction a request, the wake-up after the commit."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import uuid4

import structlog
from sqlalchemy.exc import IntegrityError

from app.db import Database
from app.jobs.admission import admit
from app.jobs.errors import Conflict, NotFound, QuotaExceeded, Refused
from app.jobs.records import Job, JobEvent, PublishedArtifact
from app.jobs.repository import JobRepository
from app.jobs.schemas import JobCreate
from app.jobs.states import TERMINAL, JobStatus
from app.queue import Announcer
from app.settings import Settings
from app.storage import ArtifactMissing, ArtifactStore

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class JobDetails:
    """A job and the files that it has published."""

    job: Job
    artifacts: list[PublishedArtifact]


class JobService:
    """The use cases of the front end."""

    def __init__(self, settings: Settings, database: Database, store: ArtifactStore, announcer: Announcer) -> None:
        self._settings = settings
        self._database = database
        self._store = store
        self._announcer = announcer

    def submit(self, request: JobCreate, *, owner: str, idempotency_key: str | None) -> JobDetails:
        """Accept a job: checked, then written with its first event in one transaction, then announced.

        The same key with the same body gives the job that it gave before.

        Raises:
            Refused: It cannot work, or the key came with another body.
            QuotaExceeded: Too many of the owner's jobs are waiting already.
        """
        digest = hashlib.sha256(request.model_dump_json().encode()).hexdigest()
        earlier = self._earlier(owner, idempotency_key, digest)
        if earlier is not None:
            return earlier
        spec = admit(request.to_spec(), self._settings)
        job_id = f"job_{uuid4().hex}"
        try:
            with self._database.write() as connection:
                repository = JobRepository(connection)
                self._check_quota(repository, owner)
                repository.insert(job_id, owner=owner, spec=spec, metadata=request.metadata, priority=request.priority)
                if idempotency_key is not None:
                    repository.remember_key(owner, idempotency_key, digest, job_id)
                job = repository.get(job_id, owner=owner)
        except IntegrityError:
            # Another request with this key committed between our look and our insert: its answer is ours.
            earlier = self._earlier(owner, idempotency_key, digest)
            if earlier is None:
                raise
            return earlier
        assert job is not None
        self._announcer.announce(job_id)
        _log.info("job.accepted", job_id=job_id, method=spec.method.name, task=spec.task.name or spec.task.type)
        return JobDetails(job, [])

    def _check_quota(self, repository: JobRepository, owner: str) -> None:
        limit = self._settings.max_queued_jobs
        if repository.queue_is_full(owner, limit):
            message = f"{limit} of your jobs are waiting, which is as many as this server takes; try again when some have begun"
            raise QuotaExceeded("quota_exceeded", message)

    def get(self, job_id: str, *, owner: str) -> JobDetails:
        """Read a job. Raises `NotFound`."""
        with self._database.read() as connection:
            repository = JobRepository(connection)
            return JobDetails(_known(repository.get(job_id, owner=owner)), repository.artifacts(job_id))

    def list(
        self, *, owner: str, statuses: Sequence[JobStatus], after: str | None, limit: int
    ) -> tuple[list[JobDetails], bool]:
        """List a page of jobs, newest first, and whether there are more."""
        with self._database.read() as connection:
            repository = JobRepository(connection)
            start = None
            if after is not None:
                start = repository.get(after, owner=owner)
                if start is None:
                    message = "after must be the id of a job, as given by `next` of the page before"
                    raise Refused("invalid_request", message, "after")
            jobs = repository.list(owner=owner, statuses=statuses, after=start, limit=limit + 1)
            published = repository.artifacts_of([job.id for job in jobs[:limit]])
            page = [JobDetails(job, published[job.id]) for job in jobs[:limit]]
            return page, len(jobs) > limit

    def events(self, job_id: str, *, owner: str, after: int, limit: int) -> list[JobEvent]:
        """Read a job's event log from behind an id."""
        with self._database.read() as connection:
            repository = JobRepository(connection)
            _known(repository.get(job_id, owner=owner))
            return repository.events(job_id, after=after, limit=limit)

    def cancel(self, job_id: str, *, owner: str) -> JobDetails:
        """Ask for a cancellation; asking twice is once. Raises `Conflict` where the job has finished."""
        with self._database.write() as connection:
            repository = JobRepository(connection)
            _known(repository.get(job_id, owner=owner))
            accepted = repository.request_cancel(job_id)
            job = _known(repository.get(job_id, owner=owner))
            if not accepted and job.status != JobStatus.CANCELLED:
                raise Conflict("already_finished", f"the job has already {job.status}")
            return JobDetails(job, [])

    def check_database(self) -> None:
        """Raise SQLAlchemy's error where jobs cannot be read: no database, or one that was never migrated."""
        with self._database.read() as connection:
            JobRepository(connection).check()

    def artifact(self, job_id: str, path: str, *, owner: str) -> PublishedArtifact:
        """Find a published file. Raises `NotFound`."""
        with self._database.read() as connection:
            repository = JobRepository(connection)
            job = _known(repository.get(job_id, owner=owner))
            artifact = repository.artifact(job_id, path)
        if artifact is None and job.status in TERMINAL and job.expires_at is not None:
            moment = datetime.fromtimestamp(job.expires_at, UTC)
            raise NotFound("artifact_expired", f"the job's files were kept until {moment:%Y-%m-%d %H:%M} UTC; run it again")
        if artifact is None:
            raise NotFound("not_found", "the job has published no such file; see its artifacts")
        return artifact

    def open_artifact(self, job_id: str, artifact: PublishedArtifact, start: int, stop: int) -> Iterator[bytes]:
        """Stream a part of a published file. Raises `NotFound` where the store has lost it."""
        try:
            return self._store.open(artifact.key(job_id), start, stop)
        except ArtifactMissing:
            _log.error("artifact.missing", job_id=job_id, path=artifact.path)
            raise NotFound("artifact_gone", "the file is no longer in the artifact store") from None

    def _earlier(self, owner: str, key: str | None, digest: str) -> JobDetails | None:
        if key is None:
            return None
        with self._database.read() as connection:
            repository = JobRepository(connection)
            found = repository.find_key(owner, key)
            if found is None:
                return None
            body_sha256, job_id = found
            if body_sha256 != digest:
                detail = "this Idempotency-Key was used with another body; use a new key for a new request"
                raise Refused("idempotency_key_reused", detail)
            return JobDetails(_known(repository.get(job_id, owner=owner)), repository.artifacts(job_id))


def _known(job: Job | None) -> Job:
    if job is None:
        raise NotFound("job_not_found", "there is no such job")
    return job
