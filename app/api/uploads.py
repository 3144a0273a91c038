"""Routes of uploads: models and data sets that the server cannot reach by itself."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request, Response
from fastapi.responses import JSONResponse
from starlette.requests import ClientDisconnect

from app.api.deps import Owner, Service, Uploading, Uploads, Writer
from app.errors import Problem, ProblemDetails
from app.inspection.records import UploadKind
from app.keys.records import Caller
from app.refusals import Conflict
from app.uploads.receiving import Receiver
from app.uploads.schemas import UploadList, UploadView
from app.uploads.service import UploadService

router = APIRouter(prefix="/v1", responses={"default": {"model": ProblemDetails}})

UPLOAD_PATHS = ("/v1/models", "/v1/datasets")
MEDIA_TYPES = ("application/x-tar", "application/gzip", "application/x-gzip", "application/octet-stream")

# The last one is known to every generator of clients.
_DOCUMENTED = ("application/x-tar", "application/gzip", "application/octet-stream")

UploadId = Annotated[str, Path(min_length=1, max_length=80, pattern=r"^[a-z0-9_]+$")]
After = Annotated[
    str | None, Query(min_length=1, max_length=80, pattern=r"^[a-z0-9_]+$", description="`next` of the page before.")
]
Limit = Annotated[int, Query(ge=1, le=100)]

_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "A tar file, plain or compressed by gzip.",
        "content": {kind: {"schema": {"type": "string", "format": "binary"}} for kind in _DOCUMENTED},
    }
}
_STORED: dict[int | str, dict[str, Any]] = {
    200: {"model": UploadView, "description": "You had uploaded the same before"},
    201: {"model": UploadView, "description": "Stored"},
}


@router.post(
    "/models",
    status_code=201,
    operation_id="uploadModel",
    tags=["models"],
    response_model=None,
    responses=_STORED,
    openapi_extra=_BODY,
)
async def upload_model(request: Request, receiver: Uploading, writer: Writer) -> Response:
    """Upload a model: a tar file of config.json, safetensors weights and tokenizer. Its id is what a job names as `model`."""
    return await _receive(UploadKind.MODEL, request, receiver, writer)


@router.post(
    "/datasets",
    status_code=201,
    operation_id="uploadDataset",
    tags=["datasets"],
    response_model=None,
    responses=_STORED,
    openapi_extra=_BODY,
)
async def upload_dataset(request: Request, receiver: Uploading, writer: Writer) -> Response:
    """Upload a data set: a tar file of train and validation as Parquet, JSON Lines or CSV. A job names its id as `data`."""
    return await _receive(UploadKind.DATASET, request, receiver, writer)


@router.get("/models", operation_id="listModels", tags=["models"])
def list_models(uploads: Uploads, owner: Owner, after: After = None, limit: Limit = 20) -> UploadList:
    """List uploaded models, newest first."""
    return _page(UploadKind.MODEL, uploads, owner, after, limit)


@router.get("/datasets", operation_id="listDatasets", tags=["datasets"])
def list_datasets(uploads: Uploads, owner: Owner, after: After = None, limit: Limit = 20) -> UploadList:
    """List uploaded data sets, newest first."""
    return _page(UploadKind.DATASET, uploads, owner, after, limit)


@router.get("/models/{upload_id}", operation_id="getModel", tags=["models"])
def get_model(upload_id: UploadId, uploads: Uploads, owner: Owner) -> UploadView:
    """Read what an uploaded model consists of."""
    return UploadView.of(uploads.get(UploadKind.MODEL, upload_id, owner=owner))


@router.get("/datasets/{upload_id}", operation_id="getDataset", tags=["datasets"])
def get_dataset(upload_id: UploadId, uploads: Uploads, owner: Owner) -> UploadView:
    """Read what an uploaded data set consists of."""
    return UploadView.of(uploads.get(UploadKind.DATASET, upload_id, owner=owner))


@router.delete("/models/{upload_id}", status_code=204, operation_id="deleteModel", tags=["models"])
def delete_model(upload_id: UploadId, uploads: Uploads, service: Service, writer: Writer) -> None:
    """Delete an uploaded model, unless a job that has not finished needs it."""
    _delete(UploadKind.MODEL, upload_id, uploads, service.uses(uploads.folder(upload_id), owner=writer.owner), writer)


@router.delete("/datasets/{upload_id}", status_code=204, operation_id="deleteDataset", tags=["datasets"])
def delete_dataset(upload_id: UploadId, uploads: Uploads, service: Service, writer: Writer) -> None:
    """Delete an uploaded data set, unless a job that has not finished needs it."""
    _delete(UploadKind.DATASET, upload_id, uploads, service.uses(uploads.folder(upload_id), owner=writer.owner), writer)


async def _receive(kind: UploadKind, request: Request, receiver: Receiver, writer: Caller) -> Response:
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type not in MEDIA_TYPES:
        detail = "send a tar file as Content-Type: application/x-tar, or application/gzip where it is compressed"
        raise Problem(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", detail)
    declared = request.headers.get("content-length", "")
    length = int(declared) if declared.isascii() and declared.isdigit() else None
    try:
        upload, is_new = await receiver.receive(kind, request.stream(), declared=length, caller=writer)
    except ClientDisconnect:  # nobody hears it, and it is no error of ours: it must not fill the log
        raise Problem(HTTPStatus.BAD_REQUEST, "malformed_request", "the body was cut off") from None
    headers = {"Location": f"/v1/{kind}s/{upload.id}"}
    return JSONResponse(UploadView.of(upload).model_dump(mode="json"), status_code=201 if is_new else 200, headers=headers)


def _page(kind: UploadKind, uploads: UploadService, owner: str, after: str | None, limit: int) -> UploadList:
    page, has_more = uploads.list(kind, owner=owner, after=after, limit=limit)
    return UploadList(data=[UploadView.of(item) for item in page], has_more=has_more, next=page[-1].id if has_more else None)


def _delete(kind: UploadKind, upload_id: str, uploads: UploadService, is_needed: bool, writer: Caller) -> None:
    uploads.get(kind, upload_id, owner=writer.owner)
    if is_needed:
        raise Conflict("upload_in_use", "a job that has not finished needs it; wait for the job, or cancel it")
    uploads.delete(kind, upload_id, caller=writer)
