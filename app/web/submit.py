"""Routes of the form that submits jobs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Annotated, Any
from uuid import uuid4

from fastapi import APIRouter, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import RedirectResponse
from pydantic import ValidationError

from app.api.deps import Owner, Service, Writer
from app.api.jobs import JOB_ID
from app.breadth import TOO_WIDE, is_too_wide
from app.errors import FieldError, refusal_errors
from app.jobs.digests import digest_of
from app.jobs.schemas import JobCreate, JobView, PlanView
from app.jobs.service import JobService
from app.keys.records import Caller
from app.refusals import RequestError
from app.web import evaluated
from app.web.complaints import complaints
from app.web.forms import Form, read_form
from app.web.rendering import PageRoute, page
from app.web.specs import METRICS, blueprint, body_of, changed_from, empty_form, form_of, labels, place
from pruning_core.spec.engines import ENGINE_TITLES
from pruning_core.spec.evaluation import MOST_SETS

router = APIRouter(route_class=PageRoute, include_in_schema=False)

Place = Annotated[str, Query(max_length=4096, pattern=r"^[^\x00]*$")]

_ONCE = re.compile(r"[0-9a-f]{32}", re.ASCII)


@router.get("/submit")
def show_form(
    request: Request,
    service: Service,
    owner: Owner,
    like: Annotated[str | None, Query(max_length=64, pattern=JOB_ID)] = None,
    model: Place = "",
    data: Place = "",
) -> Response:
    """Show the form, empty or as a job was submitted; a model and data may have been chosen already."""
    form = empty_form()
    form = Form({**form.values, "model": [model], "data": [data]})
    if like is not None:
        details = service.get(like, owner=owner)
        view = JobView.of(details.job, [])
        form = form_of(
            view.spec.model_dump(mode="json"),
            priority=view.priority,
            metadata=view.metadata,
            needs=view.needs,
            limits=details.job.limits,
            naming=details.job.naming,
        )
    return _page(request, form, models=service.overview(owner).models)


@router.post("/submit")
async def submit(request: Request, service: Service, writer: Writer) -> Response:
    """Submit a job and show it, or say what is wrong; or only what would come of it, or one more set to fill in."""
    form = evaluated.compacted(await read_form(request))
    overview = await run_in_threadpool(service.overview, writer.owner)
    if form.one("do") == "more":
        return _page(request, form, models=overview.models)
    return await _submit(request, form, service, writer, overview.models)


async def _submit(request: Request, form: Form, service: JobService, writer: Caller, models: tuple[str, ...]) -> Response:
    body = body_of(form)
    if is_too_wide(body):
        return _page(request, form, models=models, errors=[FieldError(pointer="", message=TOO_WIDE)])
    try:
        job = JobCreate.model_validate(body)
        if form.one("do") == "check":
            admitted = await service.plan(job, owner=writer.owner)
            return _page(request, form, models=models, plan=PlanView.of(admitted.spec, admitted.prediction, admitted.findings))
        details = await service.submit(job, body, caller=writer, idempotency_key=_key(form, body))
    except ValidationError as error:
        return _page(request, form, models=models, errors=await complaints(body, error, service, owner=writer.owner))
    except RequestError as error:
        found = refusal_errors(error, body) or [FieldError(pointer="", message=error.message)]
        return _page(request, form, models=models, errors=found)
    return RedirectResponse(f"/jobs/{details.job.public_id}", HTTPStatus.SEE_OTHER)


def _key(form: Form, body: Mapping[str, Any]) -> str:
    """Sending a form twice submits once; sending it again with changes is another request."""
    once = form.one("once")
    return f"page-{once if _ONCE.fullmatch(once) else uuid4().hex}-{digest_of(body)}"


def _page(
    request: Request,
    form: Form,
    *,
    models: tuple[str, ...],
    errors: list[FieldError] | None = None,
    plan: PlanView | None = None,
) -> Response:
    placed = place(errors or [], form.one("method"))
    once = form.one("once")
    values = {
        "form": form,
        "blueprint": blueprint(),
        "metrics": METRICS,
        "engines": ENGINE_TITLES,
        "models": models,
        "errors": placed,
        "messages": [message for messages in placed.values() for message in messages],
        "plan": plan,
        "sets": min(MOST_SETS, max(1, len(evaluated.sets_of(form)) + (form.one("do") == "more"))),
        "most_sets": MOST_SETS,
        "changed": changed_from(form, empty_form()),
        "items": evaluated.ITEMS,
        "labels": labels(),
        "roots": [str(root) for root in request.app.state.settings.allowed_roots],
        "once": once if _ONCE.fullmatch(once) else uuid4().hex,
    }
    return page(request, "submit.html", values, status=HTTPStatus.UNPROCESSABLE_ENTITY if errors else HTTPStatus.OK)
