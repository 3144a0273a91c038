"""What operators are shown of tenants and of the queue."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from app.jobs.control import Control, QueueState
from app.jobs.fairness import LARGEST_SHARE, LEAST_SHARE
from app.jobs.rules import Standing
from app.jobs.states import ACTIVE, JobStatus
from app.operations.overview import TenantOverview
from app.operations.tenants import DeletionState

MOST_RUNNING = 2**31 - 1  # as the column holds


class TenantDeletionView(BaseModel):
    """The deletion of a tenant."""

    object: Literal["tenant.deletion"] = "tenant.deletion"
    tenant: str
    requested_at: datetime
    finished_at: datetime | None = Field(description="Null: it goes on; ask again, or leave it to the workers.")
    running: int = Field(description="Jobs that still have a worker; they are being cancelled.")
    deleted: dict[str, int] = Field(description="What was deleted so far, by kind.")

    @classmethod
    def of(cls, state: DeletionState) -> TenantDeletionView:
        """Show how far a deletion is."""
        deletion = state.deletion
        return cls(
            tenant=deletion.owner,
            requested_at=datetime.fromtimestamp(deletion.requested_at, UTC),
            finished_at=None if deletion.finished_at is None else datetime.fromtimestamp(deletion.finished_at, UTC),
            running=state.running,
            deleted=dict(deletion.counts),
        )


class QueueControlView(BaseModel):
    """The queue of the whole service."""

    object: Literal["queue"] = "queue"
    state: QueueState = Field(description="`paused` and `draining`: no job is taken; submits are accepted and wait.")
    since: datetime | None = Field(description="When the state was last changed.")
    running: int
    waiting: int
    drained: bool = Field(description="It is not open, and nothing runs any more.")

    @classmethod
    def of(cls, control: Control) -> QueueControlView:
        """Show the queue."""
        return cls(
            state=control.state,
            since=None if control.since is None else datetime.fromtimestamp(control.since, UTC),
            running=control.running,
            waiting=control.waiting,
            drained=control.is_drained,
        )


class TenantView(BaseModel):
    """What one tenant has."""

    object: Literal["tenant"] = "tenant"
    tenant: str = Field(description="Empty: the one of a service without keys.")
    jobs: dict[JobStatus, int] = Field(description="Jobs by status; without those of which there are none.")
    running: int = Field(description="Jobs that have a worker now.")
    artifact_bytes: int
    upload_bytes: int
    keys: int = Field(description="Keys that are valid.")
    share: float = Field(description="Share of the turns beside those of other tenants.")
    max_running: int | None = Field(description="Jobs that may run at once; null: as the settings say.")
    last_submitted_at: datetime | None = Field(description="When the newest job that is left was submitted.")
    deleting: bool = Field(description="Whether the tenant is being deleted.")

    @classmethod
    def of(cls, tenant: TenantOverview) -> TenantView:
        """Show a tenant."""
        moment = tenant.last_submitted_at
        return cls(
            tenant=tenant.owner,
            jobs=dict(tenant.jobs),
            running=sum(tenant.jobs.get(status, 0) for status in ACTIVE),
            artifact_bytes=tenant.artifact_bytes,
            upload_bytes=tenant.upload_bytes,
            keys=tenant.keys,
            share=tenant.share,
            max_running=tenant.max_running,
            last_submitted_at=None if moment is None else datetime.fromtimestamp(moment, UTC),
            deleting=tenant.is_being_deleted,
        )


class TenantRules(BaseModel):
    """What is to be set for a tenant. What is left out stays as it is."""

    model_config = ConfigDict(extra="forbid")

    share: float = Field(
        default=1.0,
        ge=LEAST_SHARE,
        le=LARGEST_SHARE,
        description="Share of the turns beside those of other tenants, who have 1.",
    )
    max_running: int | None = Field(
        default=None, ge=1, le=MOST_RUNNING, description="Jobs that may run at once; null: as the settings say."
    )

    @model_validator(mode="after")
    def _sets_something(self) -> TenantRules:
        if not self.model_fields_set:
            raise ValueError("give share, max_running or both")
        return self


class QueueRules(BaseModel):
    """What is to be set for a queue."""

    model_config = ConfigDict(extra="forbid")

    max_running: int | None = Field(ge=1, le=MOST_RUNNING, description="Jobs that may run at once; null: any number.")


class NamedQueueView(BaseModel):
    """One of the queues into which jobs come by what they need."""

    object: Literal["queue.named"] = "queue.named"
    queue: str = Field(description="Device class and tags: `any`, `cpu`, `cuda`, `cuda+a100`.")
    max_running: int | None = Field(description="Jobs that may run at once; null: any number.")
    waiting: int
    running: int

    @classmethod
    def of(cls, queue: Standing) -> NamedQueueView:
        """Show a queue."""
        return cls(queue=queue.name, max_running=queue.max_running, waiting=queue.waiting, running=queue.running)


class NamedQueuesView(BaseModel):
    """The queues that have jobs open or a limit, by name."""

    object: Literal["list"] = "list"
    data: list[NamedQueueView]


class TenantsView(BaseModel):
    """All tenants, by name."""

    object: Literal["list"] = "list"
    data: list[TenantView]
