"""The service's answers, as the client reads them. Fields that a newer service adds are ignored."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict

TERMINAL = frozenset({"succeeded", "failed", "cancelled"})


class _View(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class JobProgress(_View):
    """The stage of a running job, and how far it is."""

    stage: str
    step: int
    total: int
    fraction: float


class JobQueue(_View):
    """Where a queued job is: the jobs before it, the workers that serve it, and why it waits if not for its turn."""

    before: int
    workers: int
    why: str | None = None
    paused: bool = False


class JobFailure(_View):
    """Why a job failed."""

    code: str
    message: str
    param: str | None = None


class Artifact(_View):
    """One file of a bundle."""

    path: str
    size: int
    sha256: str
    url: str


class Job(_View):
    """One pruning job."""

    id: str
    name: str | None = None
    tags: list[str] = []
    status: str
    created_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None
    estimated_finish: datetime | None = None
    spec: dict[str, Any]
    progress: JobProgress | None = None
    queue: JobQueue | None = None
    needs: dict[str, Any] = {}
    attempt: int
    max_attempts: int | None = None
    timeout_s: float | None = None
    error: JobFailure | None = None
    artifacts: list[Artifact] = []
    metadata: dict[str, str] = {}
    calibration_id: str | None = None

    @property
    def finished(self) -> bool:
        """Whether the job has reached its final status."""
        return self.status in TERMINAL


class CalibrationPiece(_View):
    """One kind of what a calibration has gathered."""

    kind: str
    reused: bool
    seconds: float
    bytes: int


class Calibration(_View):
    """What is known of a dense model on some data, for jobs to start from."""

    id: str
    name: str | None = None
    tags: list[str] = []
    status: str
    kept: bool
    model: str
    task: str
    data: str
    size: int
    pieces: list[CalibrationPiece] = []
    created_at: datetime
    finished_at: datetime | None = None
    used_at: datetime | None = None
    jobs_served: int = 0
    jobs: list[str] = []
    error: JobFailure | None = None
    metadata: dict[str, str] = {}


class JobEvent(_View):
    """One line of a job's event log."""

    id: int
    type: str
    created_at: datetime
    data: dict[str, Any]


class IntPair(_View):
    """A count of the dense model and of the pruned one."""

    dense: int
    pruned: int


class Predicted(_View):
    """The estimated size of a result, and the memory and time of the work."""

    parameters: IntPair | None = None
    bytes: IntPair | None = None
    memory_bytes: int
    seconds: float
    warnings: tuple[str, ...] = ()


class Found(_View):
    """What a check found in the data, what it guessed, and what it did not look at."""

    rows: dict[str, int | None] = {}
    classes: dict[str, int] = {}
    notes: tuple[str, ...] = ()
    not_looked_at: tuple[str, ...] = ()


class JobPrediction(_View):
    """A spec that would be accepted, with its defaults and columns filled in, the estimates for it, and what was found."""

    spec: dict[str, Any]
    predicted: Predicted | None = None
    found: Found = Found()


class Upload(_View):
    """An uploaded model or data set; a job names it by its id."""

    id: str
    kind: str
    size: int
    created_at: datetime


class ApiKey(_View):
    """An API key, without its secret text."""

    id: str
    tenant: str
    name: str
    scopes: list[str]
    created_at: datetime
    expires_at: datetime | None = None
    revoked_at: datetime | None = None


class BulkChange(_View):
    """How many jobs a filter matched, and how many of them were changed."""

    matched: int
    changed: int
    more: bool = False


class QueueControl(_View):
    """The queue of the whole service: open, paused or draining."""

    state: str
    since: datetime | None = None
    running: int
    waiting: int
    drained: bool


class Tenant(_View):
    """What one tenant has."""

    tenant: str
    jobs: dict[str, int]
    running: int
    artifact_bytes: int
    upload_bytes: int
    keys: int
    share: float = 1.0
    max_running: int | None = None
    last_submitted_at: datetime | None = None
    deleting: bool


class Session(_View):
    """Who asks: by a key or as a person, for which tenant, and with which scopes and role."""

    by: str
    id: str
    name: str
    tenant: str
    scopes: list[str]
    role: str | None = None


class NamedQueue(_View):
    """One of the queues into which jobs come by what they need, and how many of its jobs may run at once (None: any number)."""

    queue: str
    max_running: int | None = None
    waiting: int
    running: int


class TenantDeletion(_View):
    """How far the deletion of a tenant is."""

    tenant: str
    requested_at: datetime
    finished_at: datetime | None = None
    running: int
    deleted: dict[str, int]


class NewApiKey(ApiKey):
    """A new API key, with its secret text."""

    key: str


class PredictedBudget(_View):
    """What a budget would bring; null: nothing was built by which it could be told."""

    macs_keep: float
    parameters: int
    bytes: int
    speedup: float | None = None
    divergence: float | None = None


class BuiltBudget(_View):
    """A checkpoint that was built, and what would have been predicted of it from the others."""

    job: str
    path: str
    macs_keep: float
    bytes: int
    speedup: float
    divergence: float | None = None
    predicted_speedup: float | None = None
    predicted_divergence: float | None = None


class Outlook(_View):
    """What other budgets of a job would bring; ``measure`` says what ``divergence`` is."""

    job: str
    measure: str | None = None
    dense_parameters: int
    dense_bytes: int
    least_keep: float
    predictions: tuple[PredictedBudget, ...] = ()
    built: tuple[BuiltBudget, ...] = ()
