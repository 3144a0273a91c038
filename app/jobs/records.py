"""Jobs and their parts as frozen values: what repositories give and take."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from app.jobs.limits import NO_LIMITS, JobLimits
from app.jobs.naming import NO_NAMING, Naming
from app.jobs.needs import NO_NEEDS, Needs
from app.jobs.states import JobStatus
from pruning_core.report.progress import Progress
from pruning_core.report.report import Report
from pruning_core.spec.prune import PruneSpec

# What the ids of calibrations begin with: an id tells what a job makes.
CALIBRATION_PREFIX = "cal_"


def is_calibration(job_id: str) -> bool:
    """Return whether our id of a job is that of a calibration."""
    return job_id.startswith(CALIBRATION_PREFIX)


class EventType(StrEnum):
    """The types of events in a job's log."""

    QUEUED = "job.queued"
    RETRIED = "job.retried"
    STARTED = "job.started"
    STAGE = "job.stage"
    REQUEUED = "job.requeued"
    CANCELLING = "job.cancelling"
    SUCCEEDED = "job.succeeded"
    FAILED = "job.failed"
    CANCELLED = "job.cancelled"


TERMINAL_EVENTS = frozenset({EventType.SUCCEEDED, EventType.FAILED, EventType.CANCELLED})


@dataclass(frozen=True, slots=True)
class JobError:
    """Why a job failed: a stable code, a sentence for people, and the spec field to change where there is one."""

    code: str
    message: str
    param: str | None = None


@dataclass(frozen=True, slots=True)
class Job:
    """One row of the jobs table. Inside the service a job goes by ``id``, outside by ``public_id``."""

    id: str
    owner: str
    status: JobStatus
    priority: int
    spec: PruneSpec
    metadata: dict[str, str]
    version: int
    fence: int
    attempt: int
    cancel_requested: bool
    progress: Progress | None
    progress_at: float | None
    report: Report | None
    error: JobError | None
    created_at: float
    started_at: float | None
    finished_at: float | None
    expires_at: float | None
    client_id: str | None = None
    body_sha256: str | None = None
    rank: int = 0
    needs: Needs = NO_NEEDS
    limits: JobLimits = NO_LIMITS
    calibration: str | None = None  # whose pieces it starts from
    naming: Naming = NO_NAMING

    @property
    def public_id(self) -> str:
        """The id that the API shows: the client's own where it chose one."""
        return self.client_id or self.id


@dataclass(frozen=True, slots=True)
class JobEvent:
    """One line of a job's event log; ids grow."""

    id: int
    type: EventType
    data: dict[str, Any]
    created_at: float


@dataclass(frozen=True, slots=True)
class PublishedArtifact:
    """One file of a finished job's bundle, and the job and fence under which the store keeps it."""

    path: str
    fence: int
    size: int
    sha256: str
    job_id: str

    @property
    def key(self) -> str:
        """The store's key."""
        return artifact_key(self.job_id, self.fence, self.path)


@dataclass(frozen=True, slots=True)
class Claim:
    """A claim: the right to run a job for as long as its lease is renewed."""

    job_id: str
    fence: int
    attempt: int
    spec: PruneSpec
    traceparent: str | None = None
    owner: str = ""
    limits: JobLimits = NO_LIMITS
    calibration: str | None = None
    name: str | None = None


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """The database's answer when a worker renews its lease."""

    cancel_requested: bool


def artifact_key(job_id: str, fence: int, path: str) -> str:
    """Return the store's key of one file of one attempt."""
    return f"jobs/{job_id}/{fence}/{path}"
