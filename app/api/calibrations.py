"""Routes of calibrations: make, list, read and free them. All else is as for jobs, by the same ids, under ``/v1/jobs``."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header, Query, Response
from fastapi.concurrency import run_in_threadpool

from app.api.deps import Deletion, Owner, Sent, Service, Writer
from app.api.jobs import JOB_ID, JobId
from app.errors import ProblemDetails
from app.jobs.calibration_schemas import CalibrationCreate, CalibrationList, CalibrationView

router = APIRouter(prefix="/v1/calibrations", tags=["calibrations"], responses={"default": {"model": ProblemDetails}})


@router.post(
    "",
    status_code=202,
    operation_id="createCalibration",
    response_model=None,
    responses={202: {"model": CalibrationView, "description": "Accepted"}},
)
async def create_calibration(
    body: CalibrationCreate,
    sent: Sent,
    service: Service,
    writer: Writer,
    idempotency_key: Annotated[str | None, Header(min_length=1, max_length=255)] = None,
) -> Response:
    """Gather what is known of a dense model, for jobs to start from. It waits and runs as any job does."""
    accepted = await service.submit(body, sent, caller=writer, idempotency_key=idempotency_key, calibrates=True)
    made = await run_in_threadpool(service.calibrations.get, accepted.job.id, owner=writer.owner)
    headers = {"Location": f"/v1/calibrations/{accepted.job.id}", "Retry-After": "2"}
    view = CalibrationView.of(*made)
    return Response(view.model_dump_json(), status_code=202, headers=headers, media_type="application/json")


@router.get("", operation_id="listCalibrations", response_model=CalibrationList)
def list_calibrations(
    service: Service,
    owner: Owner,
    after: Annotated[str | None, Query(max_length=64, pattern=JOB_ID, description="`next` of the page before.")] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
) -> CalibrationList:
    """List calibrations, newest first, with the size of what they keep and the jobs that they served."""
    page, has_more = service.calibrations.list(owner=owner, after=after, limit=limit)
    data = [CalibrationView.of(*own) for own in page]
    return CalibrationList(data=data, has_more=has_more, next=data[-1].id if has_more else None)


@router.get("/{calibration_id}", operation_id="getCalibration", response_model=CalibrationView)
def get_calibration(calibration_id: JobId, service: Service, owner: Owner) -> CalibrationView:
    """Read a calibration."""
    return CalibrationView.of(*service.calibrations.get(calibration_id, owner=owner))


@router.delete("/{calibration_id}", status_code=204, operation_id="deleteCalibration")
def delete_calibration(calibration_id: JobId, service: Service, deletion: Deletion, writer: Writer) -> None:
    """Delete a calibration with its pieces. One that runs must be cancelled first.

    Jobs that name it and have not begun gather anew what they need, and say so in their reports.
    """
    service.calibrations.get(calibration_id, owner=writer.owner)
    deletion.delete(calibration_id, caller=writer)
