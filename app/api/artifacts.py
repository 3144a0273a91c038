"""The files of a bundle: list and download, resumable and verifiable."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header, Path, Request, Response
from fastapi.responses import StreamingResponse

from app.api.deps import Owner, Service
from app.api.files import Conditions, attachment, file_headers, serve_file
from app.api.jobs import JobId
from app.errors import ProblemDetails
from app.jobs.archive import MEDIA_TYPE
from app.jobs.records import PublishedArtifact
from app.jobs.schemas import ArtifactList, ArtifactView

router = APIRouter(prefix="/v1/jobs", tags=["artifacts"], responses={"default": {"model": ProblemDetails}})


@router.get("/{job_id}/artifacts", operation_id="listArtifacts", response_model=ArtifactList)
def list_artifacts(job_id: JobId, service: Service, owner: Owner) -> ArtifactList:
    """List the files that a job has published."""
    details = service.get(job_id, owner=owner)
    return ArtifactList(data=[ArtifactView.of(details.job.public_id, artifact) for artifact in details.artifacts])


@router.get(
    "/{job_id}/download",
    operation_id="downloadBundle",
    response_class=StreamingResponse,
    responses={
        200: {"content": {"application/x-tar": {"schema": {"type": "string", "format": "binary"}}}},
        304: {"description": "Not changed since the ETag"},
    },
)
def download_bundle(
    job_id: JobId, service: Service, owner: Owner, if_none_match: Annotated[str | None, Header()] = None
) -> Response:
    """Stream all files as one tar archive, made on the way. Its length is known beforehand: a shorter one is broken."""
    details = service.get(job_id, owner=owner)
    archive = service.files.archive(details.job, details.artifacts)
    headers = {
        "ETag": archive.etag,
        "Content-Length": str(archive.size),
        "Content-Disposition": attachment(archive.name),
        "X-Content-Type-Options": "nosniff",
        "Cache-Control": "private, no-cache",
    }
    if if_none_match is not None and (if_none_match.strip() == "*" or archive.etag in if_none_match):
        return Response(status_code=304, headers={"ETag": archive.etag})
    return StreamingResponse(service.files.open_archive(archive), headers=headers, media_type=MEDIA_TYPE)


@router.head("/{job_id}/artifacts/{path:path}", operation_id="headArtifact", include_in_schema=False)
@router.get(
    "/{job_id}/artifacts/{path:path}",
    operation_id="downloadArtifact",
    response_class=StreamingResponse,
    responses={
        200: {"content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}},
        206: {"description": "The range asked for"},
        304: {"description": "Not changed since the ETag"},
    },
)
def download_artifact(
    job_id: JobId,
    path: Annotated[str, Path(max_length=512)],
    request: Request,
    service: Service,
    owner: Owner,
    range_header: Annotated[str | None, Header(alias="range")] = None,
    if_range: Annotated[str | None, Header()] = None,
    if_none_match: Annotated[str | None, Header()] = None,
) -> Response:
    """Stream a file. ETag and ``Repr-Digest`` are its sha256; ``Range`` and ``If-Range`` resume a broken download."""
    artifact = service.files.artifact(job_id, path, owner=owner)
    return serve_file(
        artifact,
        lambda start, stop: service.files.open(job_id, artifact, start, stop),
        Conditions(request.method == "HEAD", range_header, if_range, if_none_match),
        _headers(artifact),
    )


def _headers(artifact: PublishedArtifact) -> dict[str, str]:
    name = artifact.path.rpartition("/")[2]
    # A report or a card must never run as a page of this site: browsers are told to save, and not to guess.
    return file_headers(artifact) | {
        "Content-Disposition": attachment(name),
        "Cache-Control": "private, max-age=31536000, immutable",
    }
