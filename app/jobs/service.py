"""Use cases of jobs, apart from HTTP: one transaction per request, the wake-up after the commit."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import structlog
from fastapi.concurrency import run_in_threadpool
from sqlalchemy.exc import IntegrityError

from app.audit.records import Action
from app.audit.repository import AuditRepository
from app.db import Database
from app.inspection.inspector import Inspector
from app.jobs.admission import Admitted, admit
from app.jobs.arrivals import KeyUse, NewJob
from app.jobs.calibration_catalog import Calibrations
from app.jobs.digests import digest_of, first_digest
from app.jobs.files import JobFiles
from app.jobs.intake import Arrival, Intake, too_many_wait
from app.jobs.limits import check_limits, limits_of
from app.jobs.names import Asked, named
from app.jobs.needs import Abilities, Needs, why_nobody
from app.jobs.outputs import JobOutputs
from app.jobs.places import Place, PlaceRepository
from app.jobs.records import CALIBRATION_PREFIX, Job, JobEvent, PublishedArtifact, is_calibration
from app.jobs.repository import JobRepository
from app.jobs.schemas import JobChange, JobCreate
from app.jobs.search import Wanted
from app.jobs.states import JobStatus
from app.keys.records import Caller, Scope
from app.queue import Announcer
from app.refusals import Conflict, Refused
from app.settings import Settings
from app.storage import ArtifactStore
from app.tenants.repository import TenantRepository
from app.tracing import current_traceparent
from app.uploads.records import shown_reference
from app.uploads.service import UploadService
from pruning_core.spec.prune import PruneSpec

JOB_PREFIX = "job_"
_OUR_CALIBRATION = re.compile(r"cal_[0-9a-f]{32}", re.ASCII)

_NEWEST = 1000  # number of an owner's latest jobs whose models are listed

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class JobDetails:
    """A job and the files that it has published."""

    job: Job
    artifacts: list[PublishedArtifact]


@dataclass(frozen=True, slots=True)
class Accepted:
    """A job that a request made, now or before, with its files and its place where it waits."""

    job: Job
    artifacts: list[PublishedArtifact]
    place: Place | None


@dataclass(frozen=True, slots=True)
class Overview:
    """The jobs of an owner by status, and the models of the newest ones as the API shows them."""

    counts: Mapping[JobStatus, int]
    models: tuple[str, ...]


class JobService:
    """The front end's use cases: submit, read, list, cancel, retry; and, apart, `files`, `outputs` and `calibrations`."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        store: ArtifactStore,
        announcer: Announcer,
        *,
        uploads: UploadService,
        inspector: Inspector,
    ) -> None:
        self._settings = settings
        self._inspector = inspector
        self._uploads = uploads
        self._database = database
        self._announcer = announcer
        self.calibrations, self.files, self.outputs = Calibrations(database), JobFiles(database, store), JobOutputs(database)
        self._intake = Intake(settings, database, announcer)

    async def submit(
        self,
        request: JobCreate,
        sent: Mapping[str, Any],
        *,
        caller: Caller,
        idempotency_key: str | None,
        calibrates: bool = False,
    ) -> Accepted:
        """Accept a job: checked, then written with its first event in one transaction, then announced.

        The same key with the same body gives the job that it gave before.

        Args:
            request: The body as this version reads it.
            sent: The body as it was sent.
            caller: Who asks.
            idempotency_key: The name of this request among those of the caller's key; None: it has none.
            calibrates: Whether it is a calibration.

        Raises:
            Refused: It cannot work, or the key came with another body.
            QuotaExceeded: Too many of the owner's jobs are waiting already, or of its files being read.
            Busy: Too many files of others are being read.
        """
        digest = "" if idempotency_key is None else await run_in_threadpool(digest_of, sent)
        return await self._accept(Asked(request, digest, caller, idempotency_key=idempotency_key, calibrates=calibrates))

    async def put(self, client_id: str, request: JobCreate, sent: Mapping[str, Any], *, caller: Caller) -> Accepted:
        """Accept a job under an id of the client's choice; the same body again gives the same job.

        Args:
            client_id: The id.
            request: The body as this version reads it.
            sent: The body as it was sent.
            caller: Who asks.

        Raises:
            Refused: It cannot work.
            Conflict: The id is that of a job with another body.
            QuotaExceeded: Too many of the owner's jobs are waiting already, or of its files being read.
            Busy: Too many files of others are being read.
        """
        if client_id.startswith(JOB_PREFIX) or _OUR_CALIBRATION.fullmatch(client_id):
            raise Refused(
                "invalid_request", f"ids that begin with {client_id[:4]} are given by the server; choose another", "job_id"
            )
        return await self._accept(Asked(request, await run_in_threadpool(digest_of, sent), caller, client_id=client_id))

    async def admit(self, request: JobCreate, *, owner: str, predicts: bool = False) -> Admitted:
        """Check a request against this server and its files, as a submit does. Raises `Refused`, `Busy`, `QuotaExceeded`."""
        check_limits(limits_of(request), self._settings)
        return await admit(request.to_spec(), self._inspector, self._uploads.finder(owner), owner=owner, predicts=predicts)

    async def plan(self, request: JobCreate, *, owner: str) -> Admitted:
        """Check and predict a request. Where no worker serves it now, the findings say why. Raises as `admit`."""
        admitted = await self.admit(request, owner=owner, predicts=True)
        needs = request.needs.with_memory(None if admitted.prediction is None else admitted.prediction.memory_bytes)
        workers = await run_in_threadpool(self._workers)
        if any(own.serves(needs) for own in workers):
            return admitted
        findings = admitted.findings
        said = f"it would wait: {why_nobody(needs, workers)}"
        return replace(admitted, findings=findings.but(notes=(*findings.notes, said)))

    def _workers(self) -> list[Abilities]:
        with self._database.read() as connection:
            return PlaceRepository(connection).workers(seen_within_s=self._settings.worker_gone_s)

    async def _accept(self, asked: Asked) -> Accepted:
        earlier = await self._earlier(asked)
        if earlier is not None:
            return earlier
        predicts = asked.request.needs.is_to_be_predicted
        admitted = await self.admit(asked.request, owner=asked.caller.owner, predicts=predicts)
        needs = asked.request.needs.with_memory(None if admitted.prediction is None else admitted.prediction.memory_bytes)
        if (named := asked.request.calibration_id) is not None:
            await run_in_threadpool(self.calibrations.check_named, named, admitted.spec, asked.caller.owner)
        arrival = _arrival(asked, admitted.spec, needs)
        try:
            queued = await self._intake.queue(arrival)
        except IntegrityError:
            # Another request with this name was committed between our look and our insert: return its job.
            earlier = await self._earlier(asked)
            if earlier is None:
                raise
            return earlier
        task = queued.job.spec.task
        _log.info("job.accepted", job_id=queued.job.id, method=queued.job.spec.method.name, task=task.name or task.type)
        return Accepted(queued.job, [], queued.place)

    async def _earlier(self, asked: Asked) -> Accepted | None:
        """Find the job that an earlier request of this name made. Raise where that request was another one."""
        if asked.client_id is None and asked.idempotency_key is None:
            return None
        found = await run_in_threadpool(self._find, asked)
        if found is None:
            return None
        details, is_the_same = found
        if is_the_same or await self._asks_for(details.job, asked):
            return Accepted(details.job, details.artifacts, await run_in_threadpool(self.place, details.job))
        if asked.client_id is not None:
            raise Conflict("job_exists", "there is a job of this id already, made with another body; choose another id")
        raise Refused(
            "idempotency_key_reused", "this Idempotency-Key was used with another body; use a new key for a new request"
        )

    def _find(self, asked: Asked) -> tuple[JobDetails, bool] | None:
        """Find the job that goes by the name of a request. Also return whether its request had the same digest."""
        with self._database.read() as connection:
            repository = JobRepository(connection)
            found = named(repository, asked)
            if found is None:
                return None
            job, digest = found
            details, stored = JobDetails(job, repository.artifacts(job.id)), repository.spec_as_stored(job.id)
        if is_calibration(job.id) != asked.calibrates:
            return details, False
        return details, digest in {asked.digest, first_digest(asked.request, stored)}

    async def _asks_for(self, job: Job, asked: Asked) -> bool:
        """Return whether a request asks for a job in other words: ``sparsity`` for a target, or a default written out."""
        request = asked.request
        needs = request.needs.with_memory(job.needs.gpu_memory_bytes)
        if is_calibration(job.id) != asked.calibrates or request.calibration_id != job.calibration:
            return False
        theirs = (job.naming, job.metadata, job.priority, job.needs, job.limits)
        if (request.naming, request.metadata, request.priority, needs, limits_of(request)) != theirs:
            return False
        try:
            return (await self.admit(request, owner=asked.caller.owner)).spec == job.spec
        except Refused:  # the files may have changed since the first submit
            return False

    def _check_quota(self, repository: JobRepository, owner: str) -> None:
        limit = self._settings.max_queued_jobs
        if repository.waiting(owner, limit) >= limit:
            raise too_many_wait(limit)

    def get(self, job_id: str, *, owner: str) -> JobDetails:
        """Read a job. Raises `NotFound`."""
        with self._database.read() as connection:
            repository = JobRepository(connection)
            job = repository.known(job_id, owner=owner)
            return JobDetails(job, repository.artifacts(job.id))

    def place(self, job: Job) -> Place | None:
        """Find where a job is in the queue; None where it does not wait."""
        if job.status != JobStatus.QUEUED:
            return None
        with self._database.read() as connection:
            return PlaceRepository(connection).place(
                job, seen_within_s=self._settings.worker_gone_s, max_running=self._settings.max_running_jobs
            )

    def list(self, wanted: Wanted, *, after: str | None, limit: int) -> tuple[list[JobDetails], bool]:
        """List a page of jobs, newest first. Also return whether there are more."""
        with self._database.read() as connection:
            repository = JobRepository(connection)
            start = None
            if after is not None:
                start = repository.get(after, owner=wanted.owner)
                if start is None:
                    message = "after must be the id of a job, as given by `next` of the page before"
                    raise Refused("invalid_request", message, "after")
            jobs = repository.list(wanted, after=start, limit=limit + 1)
            published = repository.artifacts_of([job.id for job in jobs[:limit]])
            page = [JobDetails(job, published[job.id]) for job in jobs[:limit]]
            return page, len(jobs) > limit

    def overview(self, owner: str) -> Overview:
        """Count an owner's jobs, and name the models of the newest ones."""
        with self._database.read() as connection:
            repository = JobRepository(connection)
            models = [shown_reference(model) for model in repository.models(owner, among=_NEWEST)]
            return Overview(repository.counts(owner), tuple(dict.fromkeys(models)))

    def events(self, job_id: str, *, owner: str, after: int, limit: int) -> list[JobEvent]:
        """Read a job's event log from behind an id."""
        with self._database.read() as connection:
            repository = JobRepository(connection)
            job = repository.known(job_id, owner=owner)
            return repository.events(job.id, after=after, limit=limit)

    def cancel(self, job_id: str, *, caller: Caller) -> JobDetails:
        """Ask for a cancellation; asking twice is once. Raises `Conflict` where the job has finished."""
        with self._database.write() as connection:
            repository = JobRepository(connection)
            before = repository.known(job_id, owner=caller.owner)
            accepted = repository.request_cancel(before.id)
            job = repository.known(job_id, owner=caller.owner)
            if not accepted and job.status != JobStatus.CANCELLED:
                raise Conflict("already_finished", f"the job has already {job.status}")
            if not before.cancel_requested:
                AuditRepository(connection).record(Action.JOB_CANCELLED, caller.owner, caller.key_id, job.id)
            return JobDetails(job, [])

    def rename(self, job_id: str, change: JobChange, *, caller: Caller) -> JobDetails:
        """Change what a job is called, whatever its status. Raises `NotFound`."""
        with self._database.write() as connection:
            repository = JobRepository(connection)
            job = repository.known(job_id, owner=caller.owner)
            naming = change.applied_to(job.naming)
            if naming != job.naming:
                repository.rename(job, naming)
                AuditRepository(connection).record(Action.JOB_RENAMED, caller.owner, caller.key_id, job.id)
            return JobDetails(repository.known(job_id, owner=caller.owner), repository.artifacts(job.id))

    def retry(self, job_id: str, *, caller: Caller) -> JobDetails:
        """Queue a failed job again. Raises `Conflict` where it has not failed, `QuotaExceeded` where too many wait."""
        with self._database.write() as connection:
            repository = JobRepository(connection)
            job = repository.known(job_id, owner=caller.owner)
            if job.status != JobStatus.FAILED:
                raise Conflict("not_failed", f"only a failed job can be tried again; this one is {job.status}")
            self._check_quota(repository, caller.owner)
            pools = PlaceRepository(connection).pools_for(job.needs, caller.owner, seen_within_s=self._settings.worker_gone_s)
            TenantRepository(connection).require_open(caller.owner)
            if repository.retry(job.id):  # False: another request was quicker
                AuditRepository(connection).record(Action.JOB_RETRIED, caller.owner, caller.key_id, job.id)
            job = repository.known(job_id, owner=caller.owner)
        for pool in pools:
            self._announcer.announce(job.id, pool)
        return JobDetails(job, [])

    def check_database(self) -> None:
        """Check that jobs can be read. Raise SQLAlchemy's error where there is no database, or it was never migrated."""
        with self._database.read() as connection:
            JobRepository(connection).check()

    def uses(self, folder: Path, *, owner: str) -> bool:
        """Return whether an unfinished job of an owner needs a folder."""
        with self._database.read() as connection:
            return JobRepository(connection).is_needed(str(folder), owner=owner)


def _arrival(asked: Asked, spec: PruneSpec, needs: Needs) -> Arrival:
    prefix = CALIBRATION_PREFIX if asked.calibrates else JOB_PREFIX
    job_id, request, caller = f"{prefix}{uuid4().hex}", asked.request, asked.caller
    new = NewJob(
        job_id,
        caller.owner,
        spec,
        request.metadata,
        request.priority,
        client_id=asked.client_id,
        body_sha256=None if asked.client_id is None else asked.digest,
        traceparent=current_traceparent(),
        rank=-request.priority if Scope.JOBS_PRIORITY in caller.scopes else 0,
        needs=needs,
        limits=limits_of(request),
        calibration=request.calibration_id,
        naming=request.naming,
    )
    if asked.idempotency_key is None:
        return Arrival(new, caller.key_id)
    return Arrival(new, caller.key_id, KeyUse(asked.scope, asked.idempotency_key, asked.digest, job_id))
