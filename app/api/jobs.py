"""Routes of jobs: submit, list, read, cancel, delete, report."""

from __future__ import annotations

import re
import time
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Path, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse
from pydantic import StringConstraints, ValidationError

from app.api.deps import Deletion, Forecasts, Owner, Sent, Service, Watcher, Writer, sent_json
from app.api.files import Conditions, file_headers, serve_file
from app.api.filters import METADATA_PARAMETER, metadata_filter
from app.api.negotiation import prefers_html
from app.ending import Ending
from app.errors import ProblemDetails, invalid
from app.jobs.derivation import JobDerive
from app.jobs.naming import LONGEST_TAG, MOST_TAGS
from app.jobs.outlook import OutlookView
from app.jobs.places import Place
from app.jobs.schemas import JobChange, JobCreate, JobList, JobView, PlanView
from app.jobs.search import Wanted
from app.jobs.service import Accepted, JobDetails, JobService
from app.jobs.states import TERMINAL, JobStatus
from app.keys.records import Caller
from app.refusals import NotFound, Refused
from app.uploads.records import shown_reference
from pruning_core.report.report import Report
from pruning_core.spec.naming import LONGEST_NAME

router = APIRouter(prefix="/v1/jobs", tags=["jobs"], responses={"default": {"model": ProblemDetails}})

JOB_ID = r"^[A-Za-z0-9_\-]+$"
NO_NUL = r"^[^\x00]*$"
OneTag = Annotated[str, StringConstraints(max_length=LONGEST_TAG, pattern=NO_NUL)]
JobId = Annotated[str, Path(min_length=1, max_length=64, pattern=JOB_ID)]

REPORT_PAGE = "report.html"
# The page contains names that people chose: it may show itself, and load or send nothing.
_PAGE_HEADERS = {
    "Content-Type": "text/html; charset=utf-8",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "Cache-Control": "private, no-cache",
    "Vary": "Accept",
}

_LONGEST_WAIT_S = 60
_LOOK_AFTER_CLIENT_S = 5
_RETRY_AFTER_S = "2"


_ACCEPTED: dict[int | str, dict[str, Any]] = {
    200: {"model": PlanView, "description": "The plan, where `validate_only` was set"},
    202: {
        "model": JobView,
        "description": "Accepted",
        "headers": {
            "Location": {"schema": {"type": "string"}, "description": "Of the job"},
            "Retry-After": {"schema": {"type": "integer"}, "description": "Seconds until it is worth looking"},
        },
    },
}


@router.post("", status_code=202, operation_id="createJob", response_model=None, responses=_ACCEPTED)
async def create_job(
    body: JobCreate,
    sent: Sent,
    service: Service,
    writer: Writer,
    idempotency_key: Annotated[str | None, Header(min_length=1, max_length=255)] = None,
) -> Response:
    """Submit a job. It is accepted when this answers; poll its ``Location``, or follow its events."""
    if body.validate_only:
        return await _plan(body, service, writer)
    return _accepted(await service.submit(body, sent, caller=writer, idempotency_key=idempotency_key))


@router.put(
    "/{job_id}",
    status_code=202,
    operation_id="putJob",
    response_model=None,
    responses=_ACCEPTED,
)
async def put_job(job_id: JobId, body: JobCreate, sent: Sent, service: Service, writer: Writer) -> Response:
    """Submit a job under an id of your own. The same body again gives the same job, however often."""
    if body.validate_only:
        return await _plan(body, service, writer)
    return _accepted(await service.put(job_id, body, sent, caller=writer))


async def _plan(body: JobCreate, service: JobService, writer: Caller) -> Response:
    admitted = await service.plan(body, owner=writer.owner)
    return JSONResponse(PlanView.of(admitted.spec, admitted.prediction, admitted.findings).model_dump(mode="json"))


def _accepted(accepted: Accepted) -> Response:
    view = JobView.of(accepted.job, accepted.artifacts, accepted.place)
    headers = {"Location": f"/v1/jobs/{accepted.job.public_id}", "Retry-After": _RETRY_AFTER_S}
    return Response(view.model_dump_json(), status_code=202, headers=headers, media_type="application/json")


@router.get("", operation_id="listJobs", response_model=JobList, openapi_extra={"parameters": [METADATA_PARAMETER]})
def list_jobs(
    service: Service,
    owner: Owner,
    metadata: Annotated[dict[str, str], Depends(metadata_filter)],
    status: Annotated[list[JobStatus] | None, Query(max_length=20, description="Any of these; repeat the parameter.")] = None,
    name: Annotated[str | None, Query(max_length=LONGEST_NAME, pattern=NO_NUL, description="A part of the name.")] = None,
    tag: Annotated[list[OneTag] | None, Query(max_length=MOST_TAGS, description="All of these; repeat the parameter.")] = None,
    after: Annotated[str | None, Query(max_length=64, pattern=JOB_ID, description="`next` of the page before.")] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
) -> JobList:
    """List jobs, newest first."""
    wanted = Wanted(owner, status or [], metadata, name_like=name or None, tags=tag or ())
    page, has_more = service.list(wanted, after=after, limit=limit)
    following = page[-1].job.public_id if has_more else None
    return JobList(data=[_view(item) for item in page], has_more=has_more, next=following)


@router.get(
    "/{job_id}", operation_id="getJob", response_model=JobView, responses={304: {"description": "Not changed since the ETag"}}
)
async def get_job(
    job_id: JobId,
    request: Request,
    service: Service,
    watcher: Watcher,
    owner: Owner,
    if_none_match: Annotated[str | None, Header()] = None,
    prefer: Annotated[str | None, Header(description="`wait=N`: hold up to N seconds (60 at most) for a change.")] = None,
) -> Response:
    """Read a job. ``If-None-Match`` gives 304 while nothing has changed; ``Prefer: wait=N`` waits for a change."""
    wait_s = _wait_of(prefer)
    deadline = time.monotonic() + wait_s
    details = await run_in_threadpool(service.get, job_id, owner=owner)
    first = details.job.version
    known = None if if_none_match is None else {_weak(tag) for tag in if_none_match.split(",")}
    ending: Ending = request.app.state.ending
    while time.monotonic() < deadline and details.job.status not in TERMINAL and not ending.has_begun:
        changed = details.job.version != first if known is None else _etag(details) not in known
        if changed or await request.is_disconnected():
            break
        within_s = min(_LOOK_AFTER_CLIENT_S, max(0.0, deadline - time.monotonic()))
        if await watcher.changed(details.job.id, details.job.version, within_s=within_s):
            details = await run_in_threadpool(service.get, job_id, owner=owner)
    headers = {"ETag": _etag(details), "Cache-Control": "no-cache"}
    if wait_s:
        headers["Preference-Applied"] = f"wait={wait_s}"
    if details.job.status not in TERMINAL:
        headers["Retry-After"] = _RETRY_AFTER_S
    if known is not None and (_etag(details) in known or "*" in known):
        return Response(status_code=304, headers=headers)
    place = await run_in_threadpool(service.place, details.job)
    return JSONResponse(_view(details, place).model_dump(mode="json"), headers=headers)


@router.post("/{job_id}/cancel", status_code=202, operation_id="cancelJob", response_model=JobView)
def cancel_job(job_id: JobId, service: Service, writer: Writer) -> JobView:
    """Cancel: at once while queued; while running the status is `cancelling` until the process is gone."""
    return _view(service.cancel(job_id, caller=writer))


@router.post("/{job_id}/retry", status_code=202, operation_id="retryJob", response_model=JobView)
def retry_job(job_id: JobId, service: Service, writer: Writer) -> JobView:
    """Queue a failed job again, under the same id. What it had published is withdrawn."""
    details = service.retry(job_id, caller=writer)
    return _view(details, service.place(details.job))


@router.post(
    "/{job_id}/derive",
    status_code=202,
    operation_id="deriveJob",
    response_model=None,
    responses=_ACCEPTED,
    dependencies=[Depends(sent_json)],
)
async def derive_job(
    job_id: JobId,
    body: JobDerive,
    service: Service,
    writer: Writer,
    idempotency_key: Annotated[str | None, Header(min_length=1, max_length=255)] = None,
) -> Response:
    """Submit a job like another one, with other targets, layout, formats or engines.

    Model, data, method and calibration stay. What the other job has found out about them is used again where the worker has
    kept it.
    """
    request, sent = await derived(job_id, body, service, writer.owner)
    if body.validate_only:
        return await _plan(request, service, writer)
    return _accepted(await service.submit(request, sent, caller=writer, idempotency_key=idempotency_key))


async def derived(job_id: str, body: JobDerive, service: JobService, owner: str) -> tuple[JobCreate, dict[str, Any]]:
    """Return the request for a job that is derived from another one, validated and as a client would have sent it.

    Raises:
        NotFound: There is no such job.
        Refused: Nothing of it is different.
        Problem: What is different is invalid beside what stays.
    """
    parent = await run_in_threadpool(service.get, job_id, owner=owner)
    sent = body.body_for(parent.job, await run_in_threadpool(service.calibrations.of_job, parent.job))
    try:
        return JobCreate.model_validate(sent), sent
    except ValidationError as error:
        raise invalid(error, sent, JobCreate) from None


@router.get("/{job_id}/outlook", operation_id="getOutlook")
def get_outlook(job_id: JobId, outlooks: Forecasts, owner: Owner) -> OutlookView:
    """Predict what other budgets of a finished job would bring: size, speed and divergence, for each per cent.

    Nothing is built or measured for it. The checkpoints that it stands on are listed, with what would have been predicted of
    each from the others alone.
    """
    return outlooks.of(job_id, owner=owner)


@router.patch("/{job_id}", operation_id="renameJob", response_model=JobView, dependencies=[Depends(sent_json)])
def rename_job(job_id: JobId, body: JobChange, service: Service, writer: Writer) -> JobView:
    """Change what a job is called: its name and its tags, whatever its status. What was asked of it stays as it is."""
    if not body.model_fields_set:
        raise Refused("invalid_request", "name what is to change: name or tags")
    return _view(service.rename(job_id, body, caller=writer))


@router.delete("/{job_id}", status_code=204, operation_id="deleteJob")
def delete_job(job_id: JobId, deletion: Deletion, writer: Writer) -> None:
    """Delete a job with its events, its report, its files and what webhooks were still to be told of it. It cannot be undone.

    A job that runs must be cancelled first. Once it is deleted, its id and its Idempotency-Key may be used anew.
    """
    deletion.delete(job_id, caller=writer)


@router.get(
    "/{job_id}/report",
    operation_id="getReport",
    response_model=Report,
    responses={
        200: {"content": {"text/html": {"schema": {"type": "string"}}}},
        304: {"description": "The page has not changed since the ETag"},
    },
)
def get_report(
    job_id: JobId,
    service: Service,
    owner: Owner,
    accept: Annotated[str, Header(include_in_schema=False)] = "application/json",
    if_none_match: Annotated[str | None, Header(include_in_schema=False)] = None,
) -> Response:
    """Read the report of a finished job: JSON, or a page to look at with ``Accept: text/html``."""
    details = service.get(job_id, owner=owner)
    if details.job.report is None:
        raise NotFound("report_not_ready", f"the job is {details.job.status} and has no report")
    if not prefers_html(accept):
        report = details.job.report
        # Reports of earlier versions name the folder of an upload.
        shown = report.but(model=shown_reference(report.model))
        return JSONResponse(shown.model_dump(mode="json"), headers={"Vary": "Accept"})
    page = service.files.artifact(job_id, REPORT_PAGE, owner=owner)
    return serve_file(
        page,
        lambda start, stop: service.files.open(job_id, page, start, stop),
        Conditions(if_none_match=if_none_match),
        file_headers(page) | _PAGE_HEADERS,
    )


def _view(details: JobDetails, place: Place | None = None) -> JobView:
    return JobView.of(details.job, details.artifacts, place)


def _etag(details: JobDetails) -> str:
    # Weak: the estimated end moves on once it has passed, without a new version.
    return f'W/"{details.job.id}.{details.job.version}"'


def _weak(tag: str) -> str:
    """Normalise one tag of ``If-None-Match``, which compares weakly (RFC 9110, section 13.1.2)."""
    tag = tag.strip()
    return tag if tag.startswith("W/") or tag == "*" else f"W/{tag}"


def _wait_of(prefer: str | None) -> int:
    found = re.search(r"(?:^|[,;\s])wait=(\d{1,6})\b", prefer or "")
    return min(int(found.group(1)), _LONGEST_WAIT_S) if found else 0
