"""The artifact store: bytes under keys ``jobs/<id>/<fence>/<path>``. The database says which of them are published."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Protocol
from uuid import uuid4

from app.settings import Settings

_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class StoredArtifact:
    """One file of a bundle as stored: its path in the bundle, size in bytes, and sha256 in hex."""

    path: str
    size: int
    sha256: str


class ArtifactMissing(Exception):
    """The store holds nothing under a key."""


class ArtifactStore(Protocol):
    """What a store must do. Keys are relative POSIX paths."""

    def put(self, key: str, source: Path) -> tuple[int, str]:
        """Store a file whole or not at all; gives its size and sha256."""
        ...

    def open(self, key: str, start: int, stop: int) -> Iterator[bytes]:
        """Stream the bytes ``[start, stop)``. Raises `ArtifactMissing` at once, not on the first chunk."""
        ...

    def children(self, prefix: str) -> list[str]:
        """List the names directly under a prefix."""
        ...

    def delete_prefix(self, prefix: str) -> None:
        """Delete everything under a prefix; nothing there is no error."""
        ...

    def check(self) -> None:
        """Raise OSError where the store cannot be used."""
        ...


class LocalArtifactStore:
    """A folder. A file appears under its key only when it is complete and on the disk."""

    def __init__(self, root: Path) -> None:
        self._root = root.resolve()

    def put(self, key: str, source: Path) -> tuple[int, str]:
        """Store a file: temporary name, fsync, rename, fsync of the folder."""
        target = self._path(key)
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}.{uuid4().hex}.tmp")
        digest, size = hashlib.sha256(), 0
        try:
            with source.open("rb") as reader, temporary.open("wb") as writer:
                while chunk := reader.read(_CHUNK):
                    digest.update(chunk)
                    size += writer.write(chunk)
                writer.flush()
                os.fsync(writer.fileno())
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
        folder = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        return size, digest.hexdigest()

    def open(self, key: str, start: int, stop: int) -> Iterator[bytes]:
        """Stream a range of a file."""
        try:
            file = self._path(key).open("rb")
        except (FileNotFoundError, IsADirectoryError) as error:
            raise ArtifactMissing(key) from error

        def chunks() -> Iterator[bytes]:
            with file:
                file.seek(start)
                left = stop - start
                while left > 0 and (chunk := file.read(min(_CHUNK, left))):
                    left -= len(chunk)
                    yield chunk

        return chunks()

    def children(self, prefix: str) -> list[str]:
        """List the names directly under a prefix."""
        folder = self._path(prefix)
        return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []

    def delete_prefix(self, prefix: str) -> None:
        """Delete a folder and all in it."""
        shutil.rmtree(self._path(prefix), ignore_errors=True)

    def check(self) -> None:
        """Create the root if need be and see that it can be written to."""
        self._root.mkdir(parents=True, exist_ok=True)
        if not os.access(self._root, os.W_OK):
            raise PermissionError("the artifact folder cannot be written to")

    def _path(self, key: str) -> Path:
        parts = PurePosixPath(key).parts
        path = self._root.joinpath(*parts)
        # Keys come from our own code, but part of a key may have come from a URL.
        if not parts or key.startswith("/") or ".." in parts or not path.resolve().is_relative_to(self._root):
            raise ArtifactMissing(key)
        return path


def create_store(settings: Settings) -> ArtifactStore:
    """Build the store that the settings name."""
    return LocalArtifactStore(settings.resolved_artifacts_dir)
