"""What the service answers, as a client sees it. Fields that a newer service adds are ignored."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict

TERMINAL = frozenset({"succeeded", "failed", "cancelled"})


class _View(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class JobProgress(_View):
    """Where a running job is."""

    stage: str
    step: int
    total: int
    fraction: float


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
    status: str
    created_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None
    estimated_finish: datetime | None = None
    spec: dict[str, Any]
    progress: JobProgress | None = None
    attempt: int
    error: JobFailure | None = None
    artifacts: list[Artifact] = []
    metadata: dict[str, str] = {}

    @property
    def finished(self) -> bool:
        """Whether nothing will change any more."""
        return self.status in TERMINAL


class JobEvent(_View):
    """One line of a job's event log."""

    id: int
    type: str
    created_at: datetime
    data: dict[str, Any]


class IntPair(_View):
    """The same count of the dense and of the pruned model."""

    dense: int
    pruned: int


class Predicted(_View):
    """Estimates of a result and of the work."""

    parameters: IntPair | None = None
    bytes: IntPair | None = None
    memory_bytes: int
    seconds: float


class Plan(_View):
    """What a submit would accept, and what would come of it."""

    spec: dict[str, Any]
    predicted: Predicted | None = None


class Upload(_View):
    """An uploaded model or data set; a job names it by its id."""

    id: str
    kind: str
    size: int
    created_at: datetime


class ApiKey(_View):
    """An API key, without its text."""

    id: str
    tenant: str
    name: str
    scopes: list[str]
    created_at: datetime
    expires_at: datetime | None = None
    revoked_at: datetime | None = None


class NewApiKey(ApiKey):
    """A new API key, with its text."""

    key: str
