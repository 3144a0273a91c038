"""A folder as artifact store."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import itertools
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

from app.storage.base import CHUNK, ArtifactMissing, parts_of


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
        if source.stat().st_size > shutil.disk_usage(target.parent).free:
            # A file with holes takes no room where it is, and all there is here.
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        try:
            with source.open("rb") as reader, temporary.open("wb") as writer:
                while chunk := reader.read(CHUNK):
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
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
            raise ArtifactMissing(key) from error

        def chunks() -> Iterator[bytes]:
            with file:
                file.seek(start)
                left = stop - start
                while left > 0 and (chunk := file.read(min(CHUNK, left))):
                    left -= len(chunk)
                    yield chunk

        return chunks()

    def keys(self, prefix: str, *, after: str, limit: int) -> list[str]:
        """List the files under a prefix, folder by folder; only one page is ever held."""
        begin = parts_of(after) if after else ()
        return list(itertools.islice(_walk(self._path(prefix), parts_of(prefix), begin), limit))

    def delete_prefix(self, prefix: str) -> None:
        """Delete a folder and all in it, and the folder above if that leaves it empty."""
        folder = self._path(prefix)
        shutil.rmtree(folder, ignore_errors=True)
        with contextlib.suppress(OSError):
            folder.parent.rmdir()

    def check(self) -> None:
        """Create the root if need be and see that it can be written to."""
        self._root.mkdir(parents=True, exist_ok=True)
        if not os.access(self._root, os.W_OK):
            raise PermissionError("the artifact folder cannot be written to")

    def _path(self, key: str) -> Path:
        path = self._root.joinpath(*parts_of(key))
        if not path.resolve().is_relative_to(self._root):
            raise ArtifactMissing(key)
        return path


def _walk(folder: Path, here: tuple[str, ...], after: tuple[str, ...]) -> Iterator[str]:
    """Yield the keys of the files under a folder in the order of their parts, from behind ``after``."""
    try:
        with os.scandir(folder) as found:
            entries = sorted((entry.name, entry.is_dir(follow_symlinks=False)) for entry in found)
    except (FileNotFoundError, NotADirectoryError):  # deleted since it was listed
        return
    for name, is_folder in entries:
        path = (*here, name)
        if is_folder:
            if path >= after[: len(path)]:
                yield from _walk(folder / name, path, after)
        elif path > after:
            yield "/".join(path)
