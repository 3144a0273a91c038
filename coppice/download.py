"""One file of a bundle, from the service to the disk: resumable, verified, never half there under its own name."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path, PurePosixPath

import httpx2

from coppice.errors import DownloadCorrupt
from coppice.models import Artifact
from coppice.wire import raise_for_problem

_CHUNK = 1 << 18


def fetch(http: httpx2.Client, artifact: Artifact, folder: Path, on_bytes: Callable[[int], None]) -> Path:
    """Download a file, or the rest of it, under its path in a folder.

    Args:
        http: A client whose base URL is the service's.
        artifact: What to fetch.
        folder: Folder of the bundle.
        on_bytes: Told how many bytes of the file are there.

    Raises:
        DownloadCorrupt: What arrived has another digest than was published, or the path leads out of the folder.
    """
    target = _inside(folder, artifact.path)
    if target.is_file() and target.stat().st_size == artifact.size and _sha256(target) == artifact.sha256:
        on_bytes(artifact.size)
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.name}.part")
    _append(http, artifact, part, on_bytes)
    if _sha256(part) != artifact.sha256:
        part.unlink()
        raise DownloadCorrupt(f"{artifact.path} arrived with another sha256 than was published; download it again")
    part.replace(target)
    return target


def _append(http: httpx2.Client, artifact: Artifact, part: Path, on_bytes: Callable[[int], None]) -> None:
    have = part.stat().st_size if part.is_file() else 0
    if part.is_file() and have == artifact.size:
        return
    if have > artifact.size:
        part.unlink()
        have = 0
    # If-Range: should the file have changed meanwhile, the whole new one comes.
    headers = {"Range": f"bytes={have}-", "If-Range": f'"{artifact.sha256}"'} if have else {}
    with http.stream("GET", artifact.url, headers=headers | {"Accept-Encoding": "identity"}) as response:
        if not response.is_success:
            response.read()
        raise_for_problem(response)
        resumed = response.status_code == HTTPStatus.PARTIAL_CONTENT
        size = have if resumed else 0
        with part.open("ab" if resumed else "wb") as file:
            for chunk in response.iter_bytes(_CHUNK):
                size += file.write(chunk)
                on_bytes(size)


def _inside(folder: Path, path: str) -> Path:
    """Give the place of a file; the service is not trusted to name one outside the folder."""
    parts = PurePosixPath(path).parts
    target = folder.joinpath(*parts)
    if not parts or ".." in parts or "\\" in path or not target.resolve().is_relative_to(folder.resolve()):
        raise DownloadCorrupt(f"the service names a file outside the bundle: {path!r}")
    return target


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
