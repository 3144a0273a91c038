"""Routes of jobs for people: the list, one job, cancel, retry and delete, and jobs of one model compared."""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import RedirectResponse
from pydantic import ValidationError

from app.api.deps import Deletion, Forecasts, Owner, Queue, Service, Writer
from app.api.jobs import JOB_ID, JobId
from app.errors import invalid
from app.jobs.outputs import AttemptOutput
from app.jobs.records import JobEvent
from app.jobs.schemas import JobChange
from app.jobs.search import Wanted
from app.jobs.service import JobService
from app.jobs.states import JobStatus
from app.web.comparing import AXES, SHARES, comparisons
from app.web.forms import listed, read_form
from app.web.outlook import OutlookPage
from app.web.plots import scatter
from app.web.rendering import PageRoute, page
from app.web.views import STATUS_WORDS, JobPage, event_lines, steps
from pruning_core.spec.naming import LONGEST_NAME
from pruning_core.spec.prune import AUTO_CLASSES
from pruning_core.support.capabilities import methods

router = APIRouter(route_class=PageRoute, include_in_schema=False)

_PAGE = 25
_MOST_EVENTS = 1000
_EVENTS_AT_ONCE = 200
_MOST_COMPARED = 100
ALL_MODELS = "*"
_MOST_LINES = 200

Text = Annotated[str, Query(max_length=1024, pattern=r"^[^\x00]*$")]


@router.get("/")
def list_jobs(
    request: Request,
    service: Service,
    queue: Queue,
    owner: Owner,
    status: str = "",
    name: Text = "",
    tag: Text = "",
    model: Text = "",
    method: Annotated[str, Query(max_length=64, pattern=r"^[^\x00]*$")] = "",
    after: Annotated[str, Query(max_length=64, pattern=JOB_ID + "|^$")] = "",
) -> Response:
    """List jobs, newest first."""
    chosen = JobStatus(status) if status in list(JobStatus) else None
    model, name, tag = model.strip(), name.strip(), tag.strip()
    wanted = Wanted(
        owner,
        [] if chosen is None else [chosen],
        model_like=model or None,
        method=method or None,
        name_like=name or None,
        tags=[tag] if tag else [],
    )
    found, more = service.list(wanted, after=after or None, limit=_PAGE)
    jobs = [JobPage.of(details) for details in found]
    values = {
        "jobs": jobs,
        "next": jobs[-1].view.id if more else None,
        "paused": not queue.is_open(),
        "origin": str(request.base_url).rstrip("/"),
        "overview": service.overview(owner),
        "statuses": STATUS_WORDS,
        "methods": [info.name for info in methods()],
        "chosen": {
            "status": "" if chosen is None else str(chosen),
            "name": name,
            "tag": tag,
            "model": model,
            "method": method,
            "after": after,
        },
    }
    return page(request, "jobs.html", values)


@router.get("/jobs/{job_id}")
def show_job(
    job_id: JobId,
    request: Request,
    service: Service,
    outlooks: Forecasts,
    owner: Owner,
    keep: Annotated[int | None, Query(ge=1, le=99, description="Budget of the outlook, in per cent.")] = None,
) -> Response:
    """Show one job: where it is, what came of it, and how to have it."""
    events = _events(service, job_id, owner)
    details = service.get(job_id, owner=owner)
    shown = JobPage.of(details, service.place(details.job))
    compared = comparisons([details])
    values = {
        "job": shown,
        "report": shown.report,
        "steps": steps(details.job),
        "parts": None if details.job.progress is None else (details.job.progress.part + 1, details.job.progress.parts),
        "events": event_lines(events),
        "last_event": events[-1].id if events else 0,
        "longest_name": LONGEST_NAME,
        "output": _last_lines(service.outputs.of(job_id, owner=owner)),
        "loader": AUTO_CLASSES[shown.view.spec.task.type],
        "frontier": compared[0] if compared and len(compared[0].checkpoints) > 1 else None,
        "outlook": None
        if shown.report is None or shown.report.outlook is None
        else OutlookPage.of(outlooks.of(job_id, owner=owner), keep),
        "scatter": scatter,
        "origin": str(request.base_url).rstrip("/"),
        "spec": shown.view.spec.model_dump_json(indent=2, exclude_defaults=True),
    }
    return page(request, "job.html", values)


@router.post("/jobs/{job_id}/cancel")
def cancel_job(job_id: JobId, service: Service, writer: Writer) -> Response:
    """Cancel, and show the job."""
    service.cancel(job_id, caller=writer)
    return RedirectResponse(f"/jobs/{job_id}", HTTPStatus.SEE_OTHER)


@router.post("/jobs/{job_id}/retry")
def retry_job(job_id: JobId, service: Service, writer: Writer) -> Response:
    """Queue a failed job again, and show it."""
    service.retry(job_id, caller=writer)
    return RedirectResponse(f"/jobs/{job_id}", HTTPStatus.SEE_OTHER)


@router.post("/jobs/{job_id}/name")
async def name_job(job_id: JobId, request: Request, service: Service, writer: Writer) -> Response:
    """Change what a job is called, and show it."""
    form = await read_form(request)
    sent = {"name": form.one("name").strip() or None, "tags": listed(form.one("tags"))}
    try:
        change = JobChange.model_validate(sent)
    except ValidationError as error:
        raise invalid(error, sent, JobChange) from None
    await run_in_threadpool(service.rename, job_id, change, caller=writer)
    return RedirectResponse(f"/jobs/{job_id}", HTTPStatus.SEE_OTHER)


@router.post("/jobs/{job_id}/delete")
def delete_job(job_id: JobId, deletion: Deletion, writer: Writer) -> Response:
    """Delete a job that has ended, and show those that are left."""
    deletion.delete(job_id, caller=writer)
    return RedirectResponse("/", HTTPStatus.SEE_OTHER)


@router.get("/compare")
def compare(
    request: Request, service: Service, owner: Owner, model: Text = "", name: Text = "", tag: Text = "", by: str = ""
) -> Response:
    """Show the checkpoints of one model side by side, or of all models (``*``)."""
    models = service.overview(owner).models
    chosen, name, tag = model.strip() or (models[0] if models else ""), name.strip(), tag.strip()
    across = chosen == ALL_MODELS
    ended = [JobStatus.SUCCEEDED, JobStatus.FAILED]  # failed jobs may have kept their best candidate
    wanted = Wanted(owner, ended, model=None if across else chosen or None, name_like=name or None, tags=[tag] if tag else [])
    jobs, more = service.list(wanted, after=None, limit=_MOST_COMPARED)
    axis = by if by in AXES else "bytes" if across else "macs"
    found = comparisons(jobs, across=across) if chosen else []
    points = [point for group in found for point in group.checkpoints]
    used = sorted({point.model if across else point.job.view.spec.method.name for point in points})
    values = {
        "models": models,
        "all_models": ALL_MODELS,
        "across": across,
        "chosen": chosen,
        "name": name,
        "tag": tag,
        "axis": axis,
        "axes": AXES,
        "series": used,
        "groups": [
            (
                group,
                scatter(
                    group.data(axis, used, by_model=across),
                    group.reference,
                    as_percent=axis in SHARES,
                    lower_is_better=group.lower_is_better,
                ),
            )
            for group in found
        ],
        "most": _MOST_COMPARED if more else None,
    }
    return page(request, "compare.html", values)


def _last_lines(outputs: Sequence[AttemptOutput]) -> str:
    """Return the end of what a job has printed; the API has all that is kept."""
    lines = [line for own in outputs for line in own.text.split("\n")]
    return "\n".join(lines[-_MOST_LINES:])


def _events(service: JobService, job_id: str, owner: str) -> list[JobEvent]:
    """Read the events from the first on; a job that was tried very often shows its newest only."""
    found: list[JobEvent] = []
    while True:
        events = service.events(job_id, owner=owner, after=found[-1].id if found else 0, limit=_EVENTS_AT_ONCE)
        found = [*found, *events][-_MOST_EVENTS:]
        if len(events) < _EVENTS_AT_ONCE:
            return found
