"""What the service answers, as frozen values. Unknown fields are ignored: a newer service may say more."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from pruning_core.report import Stage, TargetReport

JobStatus = Literal["queued", "running", "cancelling", "succeeded", "failed", "cancelled"]
TERMINAL: frozenset[JobStatus] = frozenset({"succeeded", "failed", "cancelled"})


class Answer(BaseModel):
    """Base of what is read from the wire."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class FieldProblem(Answer):
    """What is wrong with one field of a request."""

    pointer: str
    message: str


class Problem(Answer):
    """An error of the service (RFC 9457)."""

    title: str
    status: int
    detail: str
    code: str
    instance: str = ""
    errors: tuple[FieldProblem, ...] = ()


class JobProgress(Answer):
    """Where a running job is; ``fraction`` is the estimated share of the whole job."""

    stage: Stage
    step: int
    total: int
    fraction: float


class JobFailure(Answer):
    """Why a job failed, and the field of the spec to change where there is one."""

    code: str
    message: str
    param: str | None = None


class Artifact(Answer):
    """One file of a bundle."""

    path: str
    size: int
    sha256: str
    url: str


class Job(Answer):
    """One pruning job."""

    id: str
    status: JobStatus
    created_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None
    estimated_finish: datetime | None = None
    spec: dict[str, JsonValue] = Field(description="As the service understood it; it may be of a newer version than ours.")
    progress: JobProgress | None = None
    attempt: int = 0
    priority: int = 0
    achieved: TargetReport | None = None
    error: JobFailure | None = None
    artifacts: tuple[Artifact, ...] = ()
    metadata: dict[str, str] = Field(default_factory=dict[str, str])

    @property
    def finished(self) -> bool:
        """Whether the job has reached its end, good or bad."""
        return self.status in TERMINAL


class JobPage(Answer):
    """A page of jobs, newest first; ``next`` is the ``after`` of the next page."""

    data: tuple[Job, ...]
    has_more: bool
    next: str | None = None


class JobEvent(Answer):
    """One line of a job's event log."""

    id: int
    type: str
    created_at: datetime
    data: dict[str, JsonValue]


class EventPage(Answer):
    """A page of events, oldest first."""

    data: tuple[JobEvent, ...]
    has_more: bool
    next: int | None = None


class ArtifactPage(Answer):
    """The files of a bundle."""

    data: tuple[Artifact, ...]
