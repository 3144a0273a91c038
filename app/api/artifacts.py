"""The files of a bundle: list and download, resumable and verifiable."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Header, Path, Request, Response
from fastapi.responses import StreamingResponse

from app.api.deps import Owner, Service
from app.api.files import Conditions, file_headers, serve_file
from app.api.jobs import JobId
from app.errors import ProblemDetails
from app.jobs.records import PublishedArtifact
from app.jobs.schemas import ArtifactList, ArtifactView

router = APIRouter(prefix="/v1/jobs", tags=["artifacts"], responses={"default": {"model": ProblemDetails}})


@router.get("/{job_id}/artifacts", operation_id="listArtifacts", response_model=ArtifactList)
def list_artifacts(job_id: JobId, service: Service, owner: Owner) -> ArtifactList:
    """List the files that a job has published."""
    details = service.get(job_id, owner=owner)
    return ArtifactList(data=[ArtifactView.of(job_id, artifact) for artifact in details.artifacts])


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
    artifact = service.artifact(job_id, path, owner=owner)
    return serve_file(
        artifact,
        lambda start, stop: service.open_artifact(job_id, artifact, start, stop),
        Conditions(request.method == "HEAD", range_header, if_range, if_none_match),
        _headers(artifact),
    )


def _headers(artifact: PublishedArtifact) -> dict[str, str]:
    name = artifact.path.rpartition("/")[2]
    # A report or a card must never run as a page of this site: browsers are told to save, and not to guess.
    return file_headers(artifact) | {
        "Content-Disposition": f"attachment; filename*=UTF-8''{quote(name)}",
        "Cache-Control": "private, max-age=31536000, immutable",
    }
