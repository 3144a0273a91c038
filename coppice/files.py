"""Files in transit: downloads of a bundle's files, archives of folders for upload."""

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
    """The download of one file of a bundle. What has arrived before is kept, and only the rest is requested.

    Attributes:
        artifact: The file, as the service lists it.
        partial: Where its content is kept until it is whole.
        on_size: Called with the bytes that have arrived.
    """

    artifact: Artifact
    partial: Path
    on_size: Callable[[int], None]

    @property
    def path(self) -> str:
        """The file's path at the service. An address of another host is refused: the API key must not go there."""
        if not self.artifact.url.startswith("/") or self.artifact.url.startswith("//"):
            raise DownloadCorrupt("the service names a file on another host")
        return self.artifact.url

    def headers(self) -> Mapping[str, str]:
        """Return the headers that request the missing part, on condition that the file is still the same."""
        have = self._have()
        return {"Range": f"bytes={have}-", "If-Range": f'"{self.artifact.sha256}"'} if have else {}

    def open(self, status: int) -> BinaryIO:
        """Open the partial file for a response: to append if the response is the missing part (206), else to begin again."""
        return self.partial.open("ab" if status == 206 else "wb")

    def write(self, file: BinaryIO, chunk: bytes) -> None:
        """Write what has arrived, and tell the size. More than the service has announced is refused: it could be endless."""
        if file.tell() + len(chunk) > self.artifact.size:
            raise DownloadCorrupt(
                f"the service sends more of {self.artifact.path!a} than the {self.artifact.size} bytes it has"
            )
        file.write(chunk)
        self.on_size(file.tell())

    def _have(self) -> int:
        have = self.partial.stat().st_size if self.partial.is_file() else 0
        return 0 if have >= self.artifact.size > 0 else have


def target_of(folder: Path, path: str) -> Path:
    """Return where a file of the bundle is written. A path outside the folder is refused: the service must not write there."""
    parts = PurePosixPath(path).parts
    if not parts or ".." in parts or path.startswith("/"):
        raise DownloadCorrupt("the service names a file outside the bundle")
    return folder.joinpath(*parts)


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def pack(folder: Path, archive: Path) -> None:
    """Pack the files of a folder, without hidden ones, or one file, into a tar archive.

    Links, as in the Hub's cache, are followed.
    """
    with tarfile.open(archive, "w", format=tarfile.PAX_FORMAT, dereference=True) as packed:
        if folder.is_file():
            packed.add(folder, arcname=folder.name, recursive=False)
        for path in sorted(folder.rglob("*")):
            relative = path.relative_to(folder)
            if path.is_file() and not any(part.startswith(".") for part in relative.parts):
                packed.add(path, arcname=str(relative), recursive=False)
