"""Routes that cancel or try again many jobs by a filter."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated, Literal

from fastapi import APIRouter, Depends
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from app.api.deps import Bulk, Writer, sent_json
from app.errors import FieldError, Problem, ProblemDetails
from app.jobs.bulk import CANCELLABLE, BulkOutcome, JobFilter
from app.jobs.schemas import MetadataKey, MetadataValue
from app.jobs.states import JobStatus
from app.keys.records import Caller, Scope
from app.keys.schemas import Tenant

router = APIRouter(prefix="/v1/jobs", tags=["jobs"], responses={"default": {"model": ProblemDetails}})


class JobSelection(BaseModel):
    """Which jobs: all that are like everything that is given. Without anything, ``all`` must be said."""

    model_config = ConfigDict(extra="forbid")

    model: Annotated[str, StringConstraints(min_length=1, max_length=1024, pattern=r"^[^\x00]*$")] | None = Field(
        default=None, description="As the jobs' specs name it, or the id of an upload."
    )
    metadata: dict[MetadataKey, MetadataValue] = Field(default_factory=dict, max_length=16)
    tenant: Tenant | None = Field(default=None, description="Another tenant's jobs: needs the scope admin, too.")
    all: bool = Field(default=False, description="Without any of the above: all jobs are meant.")
    dry_run: bool = Field(default=False, description="Only say how many jobs are like that.")


class CancelSelection(JobSelection):
    """Which jobs to cancel."""

    status: list[Literal["queued", "running"]] = Field(
        default=["queued", "running"], min_length=1, max_length=2, description="Any of these."
    )


class BulkView(BaseModel):
    """What came of it."""

    object: Literal["pruning.jobs.change"] = "pruning.jobs.change"
    matched: int = Field(description="Jobs that were like that.")
    changed: int = Field(description="Of these, those that were changed: a thousand at most in one request.")
    more: bool = Field(description="The same request again changes more.")
    dry_run: bool

    @classmethod
    def of(cls, outcome: BulkOutcome, *, dry_run: bool) -> BulkView:
        """Show an outcome."""
        return cls(matched=outcome.matched, changed=outcome.changed, more=outcome.more, dry_run=dry_run)


@router.post("/cancel", operation_id="cancelJobs", dependencies=[Depends(sent_json)])
def cancel_jobs(body: CancelSelection, bulk: Bulk, writer: Writer) -> BulkView:
    """Cancel all jobs of a kind that wait or run. Ask again while there are more."""
    wanted = _filter(body, writer, {JobStatus(status) for status in body.status} & CANCELLABLE, bulk)
    return BulkView.of(bulk.cancel(wanted, caller=writer, dry_run=body.dry_run), dry_run=body.dry_run)


@router.post("/retry", operation_id="retryJobs", dependencies=[Depends(sent_json)])
def retry_jobs(body: JobSelection, bulk: Bulk, writer: Writer) -> BulkView:
    """Queue all failed jobs of a kind again, as many as may wait. Ask again while there are more."""
    wanted = _filter(body, writer, {JobStatus.FAILED}, bulk)
    return BulkView.of(bulk.retry(wanted, caller=writer, dry_run=body.dry_run), dry_run=body.dry_run)


def _filter(body: JobSelection, writer: Caller, statuses: set[JobStatus], bulk: Bulk) -> JobFilter:
    if body.tenant not in {None, writer.owner} and Scope.ADMIN not in writer.scopes:
        message = f"jobs of another tenant need a key with the scope {Scope.ADMIN}, too"
        raise Problem(HTTPStatus.FORBIDDEN, "insufficient_scope", message)
    named = body.model is not None or body.metadata or body.tenant is not None or "status" in body.model_fields_set
    if not named and not body.all:
        message = "all must be true where no model, metadata, status or tenant says which jobs are meant"
        raise Problem(
            HTTPStatus.UNPROCESSABLE_ENTITY, "invalid_request", message, errors=[FieldError(pointer="/all", message=message)]
        )
    owner = writer.owner if body.tenant is None else body.tenant
    model = None if body.model is None else bulk.stored_name(body.model)
    return JobFilter(owner, statuses, model, body.metadata)
