"""Files on their way: bundles that come, folders that go."""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from coppice.errors import DownloadCorrupt
from coppice.types import Artifact


@dataclass(frozen=True, slots=True)
class Fetch:
    """One file of a bundle to fetch: what is there of it already is kept, and the rest asked for."""

    artifact: Artifact
    partial: Path
    on_size: Callable[[int], None]

    @property
    def path(self) -> str:
        """Where the service has it; a path, so that the key is shown to no other host."""
        if not self.artifact.url.startswith("/") or self.artifact.url.startswith("//"):
            raise DownloadCorrupt("the service names a file on another host")
        return self.artifact.url

    def headers(self) -> Mapping[str, str]:
        """Ask for what is missing, provided that it is still the same file."""
        have = self._have()
        return {"Range": f"bytes={have}-", "If-Range": f'"{self.artifact.sha256}"'} if have else {}

    def open(self, status: int) -> BinaryIO:
        """Open the file for an answer: to append where the rest is coming."""
        return self.partial.open("ab" if status == 206 else "wb")

    def write(self, file: BinaryIO, chunk: bytes) -> None:
        """Write what has come."""
        file.write(chunk)
        self.on_size(file.tell())

    def _have(self) -> int:
        have = self.partial.stat().st_size if self.partial.is_file() else 0
        return 0 if have >= self.artifact.size > 0 else have


def target_of(folder: Path, path: str) -> Path:
    """Give the place of a file of the bundle; a service must not be able to write elsewhere."""
    parts = PurePosixPath(path).parts
    if not parts or ".." in parts or path.startswith("/"):
        raise DownloadCorrupt("the service names a file outside the bundle")
    return folder.joinpath(*parts)


def sha256_of(path: Path) -> str:
    """Hash a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def pack(folder: Path, archive: Path) -> None:
    """Pack the files of a folder, hidden ones left out. Links are followed, as in the Hub's cache."""
    with tarfile.open(archive, "w", format=tarfile.PAX_FORMAT, dereference=True) as packed:
        for path in sorted(folder.rglob("*")):
            relative = path.relative_to(folder)
            if path.is_file() and not any(part.startswith(".") for part in relative.parts):
                packed.add(path, arcname=str(relative), recursive=False)
