"""The read side of the Hugging Face Hub protocol: a succeeded job is the model repository ``jobs/<id>``.

With ``HF_ENDPOINT=http://host/hub`` the stock libraries download from here: ``from_pretrained``, ``pipeline``,
``snapshot_download``, ``hf_hub_download``, ``SentenceTransformer``. They tell which of repository, revision and file does not
exist by the header ``X-Error-Code``, and name what is in their cache by ``X-Repo-Commit`` and ``ETag``.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Annotated, Literal, assert_never

from fastapi import APIRouter, Depends, Header, Query, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict

from app.api.deps import Owner, Service
from app.api.files import Conditions, file_headers, serve_file
from app.api.jobs import JOB_ID
from app.errors import Problem, ProblemDetails
from app.jobs.records import Job, PublishedArtifact
from app.jobs.states import JobStatus
from app.refusals import NotFound
from pruning_core.spec.tasks import KINDS

router = APIRouter(prefix="/hub", tags=["hub"], responses={"default": {"model": ProblemDetails}})

_MAIN = "main"

_HubCode = Literal["RepoNotFound", "RevisionNotFound", "EntryNotFound"]

# The Hub mixes two styles of names; these fields are in camelCase.
_CAMELS = {"model_id": "modelId", "last_modified": "lastModified", "created_at": "createdAt", "pointer_size": "pointerSize"}


class _Wire(BaseModel):
    model_config = ConfigDict(alias_generator=lambda name: _CAMELS.get(name, name), populate_by_name=True)


class Sibling(_Wire):
    """One file, as model information lists it."""

    rfilename: str


class ModelInfo(_Wire):
    """The Hub's description of a model repository."""

    id: str
    model_id: str
    author: str
    sha: str
    last_modified: str
    created_at: str
    private: bool = False
    gated: bool = False
    disabled: bool = False
    downloads: int = 0
    likes: int = 0
    library_name: str = "transformers"
    pipeline_tag: str
    tags: list[str]
    siblings: list[Sibling]


class LfsPointer(_Wire):
    """How git would keep a large file."""

    oid: str
    size: int
    pointer_size: int


class TreeEntry(_Wire):
    """One line of a folder's listing."""

    type: Literal["file", "directory"]
    oid: str
    size: int = 0
    path: str
    lfs: LfsPointer | None = None


@dataclass(frozen=True, slots=True)
class Repository:
    """A succeeded job, seen as a repository with one commit."""

    job: Job
    files: Sequence[PublishedArtifact]

    @property
    def name(self) -> str:
        """The repository's id."""
        return f"jobs/{self.job.public_id}"

    @property
    def commit(self) -> str:
        """A name of the content: the same files give the same commit."""
        listing = "".join(f"{file.sha256} {file.path}\n" for file in self.files)
        return _sha1(listing.encode())


def _repository(job_id: str, request: Request, service: Service, owner: Owner) -> Repository:
    if not re.fullmatch(JOB_ID, job_id):
        raise _no_repository(request)
    try:
        details = service.get(job_id, owner=owner)
    except NotFound:
        raise _no_repository(request) from None
    if details.job.status != JobStatus.SUCCEEDED:
        raise _no_repository(request)
    return Repository(details.job, details.artifacts)


Repo = Annotated[Repository, Depends(_repository)]


@router.head("/jobs/{job_id}/resolve/{revision}/{path:path}", include_in_schema=False)
@router.get(
    "/jobs/{job_id}/resolve/{revision}/{path:path}",
    operation_id="resolveHubFile",
    response_class=StreamingResponse,
    responses={
        200: {"content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}},
        206: {"description": "The range asked for"},
        304: {"description": "Not changed since the ETag"},
    },
)
def resolve(
    repository: Repo,
    revision: str,
    path: str,
    request: Request,
    service: Service,
    range_header: Annotated[str | None, Header(alias="range")] = None,
    if_range: Annotated[str | None, Header()] = None,
    if_none_match: Annotated[str | None, Header()] = None,
) -> Response:
    """Stream a file of a revision."""
    commit = _require_revision(repository, revision)
    artifact = next((file for file in repository.files if file.path == path), None)
    if artifact is None:
        raise _problem(HTTPStatus.NOT_FOUND, "EntryNotFound", "Entry not found", commit=commit)
    job_id = repository.job.id
    return serve_file(
        artifact,
        lambda start, stop: service.files.open(job_id, artifact, start, stop),
        Conditions(request.method == "HEAD", range_header, if_range, if_none_match),
        file_headers(artifact)
        | {
            "X-Repo-Commit": commit,
            "X-Linked-Etag": f'"{artifact.sha256}"',
            "X-Linked-Size": str(artifact.size),
            "Content-Disposition": "attachment",
            "Cache-Control": "private, no-cache",
        },
    )


@router.get("/api/models/jobs/{job_id}", operation_id="getHubModel", response_model=ModelInfo)
def model_info(repository: Repo) -> ModelInfo:
    """Describe the repository."""
    return _info(repository)


@router.get("/api/models/jobs/{job_id}/revision/{revision}", operation_id="getHubRevision", response_model=ModelInfo)
def revision_info(repository: Repo, revision: str) -> ModelInfo:
    """Describe the repository at a revision: a branch, ``main``, or the commit."""
    _require_revision(repository, revision)
    return _info(repository)


@router.get("/api/models/jobs/{job_id}/tree/{revision}", operation_id="listHubTree", response_model=list[TreeEntry])
def tree(
    repository: Repo, revision: str, recursive: Annotated[bool, Query()] = False, expand: Annotated[bool, Query()] = False
) -> list[TreeEntry]:
    """List the files of the repository, those of its folders too when ``recursive``."""
    return folder(repository, revision, "", recursive, expand)


@router.get(
    "/api/models/jobs/{job_id}/tree/{revision}/{path:path}", operation_id="listHubFolder", response_model=list[TreeEntry]
)
def folder(
    repository: Repo,
    revision: str,
    path: str,
    recursive: Annotated[bool, Query()] = False,
    expand: Annotated[bool, Query(description="Asks for commits and scans, of which there are none here.")] = False,
) -> list[TreeEntry]:
    """List the files of one folder."""
    del expand
    commit = _require_revision(repository, revision)
    prefix = f"{path.strip('/')}/" if path.strip("/") else ""
    inside = [file for file in repository.files if file.path.startswith(prefix)]
    if not inside and prefix:
        raise _problem(HTTPStatus.NOT_FOUND, "EntryNotFound", f'{path} does not exist on "{revision}"', commit=commit)
    entries = _folders(inside, prefix, recursive=recursive)
    entries += [_entry(file) for file in inside if recursive or "/" not in file.path.removeprefix(prefix)]
    return entries


@router.head("/{anything:path}", include_in_schema=False)
@router.get("/{anything:path}", include_in_schema=False)
def unknown(anything: str, request: Request) -> Response:
    """Answer for every other repository as the Hub does for one that does not exist."""
    del anything
    raise _no_repository(request)


def _require_revision(repository: Repository, revision: str) -> str:
    """Return the commit of a revision. There is one branch with one commit."""
    commit = repository.commit
    if revision not in (_MAIN, commit):
        raise _problem(HTTPStatus.NOT_FOUND, "RevisionNotFound", "Invalid rev id")
    return commit


def _info(repository: Repository) -> ModelInfo:
    job = repository.job
    finished = _timestamp(job.finished_at if job.finished_at is not None else job.created_at)
    return ModelInfo(
        id=repository.name,
        model_id=repository.name,
        author="jobs",
        sha=repository.commit,
        last_modified=finished,
        created_at=finished,
        pipeline_tag=KINDS[job.spec.task.type].pipeline,
        tags=["transformers", "safetensors", "pruned", "coppice", job.spec.method.name],
        siblings=[Sibling(rfilename=file.path) for file in repository.files],
    )


def _timestamp(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")


def _folders(files: Sequence[PublishedArtifact], prefix: str, *, recursive: bool) -> list[TreeEntry]:
    listings: dict[str, str] = {}
    for file in files:
        parts = file.path.removeprefix(prefix).split("/")[:-1]
        for depth in range(1, (len(parts) if recursive else min(1, len(parts))) + 1):
            name = prefix + "/".join(parts[:depth])
            listings[name] = f"{listings.get(name, '')}{file.sha256} {file.path}\n"
    return [TreeEntry(type="directory", oid=_sha1(listing.encode()), path=name) for name, listing in listings.items()]


def _entry(file: PublishedArtifact) -> TreeEntry:
    """Describe a file as git would keep it with LFS: as a blob of a pointer to its sha256."""
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{file.sha256}\nsize {file.size}\n".encode()
    lfs = LfsPointer(oid=file.sha256, size=file.size, pointer_size=len(pointer))
    return TreeEntry(type="file", oid=_sha1(b"blob %d\0" % len(pointer) + pointer), size=file.size, path=file.path, lfs=lfs)


def _sha1(content: bytes) -> str:
    return hashlib.sha1(content, usedforsecurity=False).hexdigest()  # git's names are SHA-1


def _no_repository(request: Request) -> Problem:
    """Build the Hub's answer for no repository. It tells strangers nothing: 401 without a token, 404 with one."""
    anonymous = "authorization" not in request.headers
    status = HTTPStatus.UNAUTHORIZED if anonymous else HTTPStatus.NOT_FOUND
    return _problem(status, "RepoNotFound", "Repository not found")


def _problem(status: HTTPStatus, code: _HubCode, message: str, *, commit: str | None = None) -> Problem:
    headers = {"X-Error-Code": code, "X-Error-Message": _plain(message)}
    if commit is not None:
        headers["X-Repo-Commit"] = commit
    if status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = 'Bearer realm="Authentication required", charset="UTF-8"'
    return Problem(status, _own_code(code), message, headers=headers)


def _plain(message: str) -> str:
    """Return a message as headers can carry it: it may quote a path, in which a client can put anything."""
    return "".join(letter if letter.isascii() and letter.isprintable() else "?" for letter in message)


def _own_code(code: _HubCode) -> str:
    match code:
        case "RepoNotFound":
            return "repository_not_found"
        case "RevisionNotFound":
            return "revision_not_found"
        case "EntryNotFound":
            return "not_found"
        case _:
            assert_never(code)
