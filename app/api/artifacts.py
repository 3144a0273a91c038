"""The files of a bundle: list and download, resumable and verifiable."""

from __future__ import annotations

import base64
import mimetypes
from http import HTTPStatus
from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Header, Path, Request, Response
from fastapi.responses import StreamingResponse

from app.api.deps import Owner, Service
from app.api.jobs import JobId
from app.api.ranges import Unsatisfiable, parse_range
from app.errors import Problem, ProblemDetails
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
    etag, headers = f'"{artifact.sha256}"', _headers(artifact)
    if if_none_match is not None and (if_none_match.strip() == "*" or etag in if_none_match):
        return Response(status_code=304, headers={"ETag": etag})
    wanted = None
    head = request.method == "HEAD"  # for which ranges have no meaning
    if not head and (if_range is None or if_range.strip() == etag):
        try:
            wanted = parse_range(range_header, artifact.size)
        except Unsatisfiable:
            raise Problem(
                HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE,
                "range_not_satisfiable",
                f"the file has {artifact.size} bytes; ask for a range within it",
                headers={"Content-Range": f"bytes */{artifact.size}"},
            ) from None
    start, stop = wanted or (0, artifact.size)
    headers["Content-Length"] = str(stop - start)
    if wanted:
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{artifact.size}"
    status = 206 if wanted else 200
    if head:
        return Response(status_code=status, headers=headers)
    return StreamingResponse(service.open_artifact(job_id, artifact, start, stop), status_code=status, headers=headers)


def _headers(artifact: PublishedArtifact) -> dict[str, str]:
    digest = base64.b64encode(bytes.fromhex(artifact.sha256)).decode()
    name = artifact.path.rpartition("/")[2]
    kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
    # A report or a card must never run as a page of this site: browsers are told to save, and not to guess.
    return {
        "ETag": f'"{artifact.sha256}"',
        "Repr-Digest": f"sha-256=:{digest}:",
        "Accept-Ranges": "bytes",
        "Content-Type": kind,
        "Content-Disposition": f"attachment; filename*=UTF-8''{quote(name)}",
        "X-Content-Type-Options": "nosniff",
        "Cache-Control": "private, max-age=31536000, immutable",
    }
