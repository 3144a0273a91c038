"""One published file over HTTP: conditional, resumable, verifiable. What the artifact routes and the Hub's have in common."""

from __future__ import annotations

import base64
import mimetypes
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import quote

from fastapi import Response
from fastapi.responses import StreamingResponse

from app.api.ranges import Unsatisfiable, parse_range
from app.errors import Problem
from app.jobs.records import PublishedArtifact


@dataclass(frozen=True, slots=True)
class Conditions:
    """The headers of a request that choose the representation."""

    head: bool = False
    range: str | None = None
    if_range: str | None = None
    if_none_match: str | None = None


def attachment(name: str) -> str:
    """Return the Content-Disposition that saves a file under its name. Curl reads the plain form alone."""
    plain = name if name.isascii() and not set(name) & set('"\\') else quote(name)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name)}"


def file_headers(artifact: PublishedArtifact) -> dict[str, str]:
    """Return the headers that describe a file. Its sha256 is the ETag."""
    digest = base64.b64encode(bytes.fromhex(artifact.sha256)).decode()
    return {
        "ETag": f'"{artifact.sha256}"',
        "Repr-Digest": f"sha-256=:{digest}:",
        "Accept-Ranges": "bytes",
        "Content-Type": mimetypes.guess_type(artifact.path)[0] or "application/octet-stream",
        "X-Content-Type-Options": "nosniff",
    }


def serve_file(
    artifact: PublishedArtifact,
    read: Callable[[int, int], Iterator[bytes]],
    conditions: Conditions,
    headers: Mapping[str, str],
) -> Response:
    """Answer with the file, the range asked for, or that nothing has changed.

    Args:
        artifact: The file.
        read: Opens the bytes ``[start, stop)``; raises at once where there are none.
        conditions: Conditions of the request.
        headers: Headers of the answer, those of `file_headers` among them.

    Raises:
        Problem: The range lies outside the file.
    """
    etag, known = f'"{artifact.sha256}"', conditions.if_none_match
    if known is not None and (known.strip() == "*" or etag in known):
        kept = ("etag", "cache-control", "vary", "x-repo-commit")
        return Response(status_code=304, headers={name: value for name, value in headers.items() if name.lower() in kept})
    wanted = None
    # Ranges have no meaning for HEAD.
    if not conditions.head and (conditions.if_range is None or conditions.if_range.strip() == etag):
        try:
            wanted = parse_range(conditions.range, artifact.size)
        except Unsatisfiable:
            raise Problem(
                HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE,
                "range_not_satisfiable",
                f"the file has {artifact.size} bytes; ask for a range within it",
                headers={"Content-Range": f"bytes */{artifact.size}"},
            ) from None
    start, stop = wanted or (0, artifact.size)
    sent = {**headers, "Content-Length": str(stop - start)}
    if wanted:
        sent["Content-Range"] = f"bytes {start}-{stop - 1}/{artifact.size}"
    status = 206 if wanted else 200
    if conditions.head:
        return Response(status_code=status, headers=sent)
    return StreamingResponse(read(start, stop), status_code=status, headers=sent)
