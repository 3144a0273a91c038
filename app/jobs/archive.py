"""One archive of a bundle, made while it is sent: a tar file, whose length is known before its first byte."""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Iterator, Sequence

from app.jobs.records import PublishedArtifact
from app.storage import ArtifactStore

MEDIA_TYPE = "application/x-tar"

_BLOCK = tarfile.BLOCKSIZE
_END = bytes(2 * _BLOCK)


class Archive:
    """The files of a bundle under a folder with the job's id. The same bundle gives the same bytes.

    Weights do not compress, so nothing is compressed: the server reads and sends, and the client can tell a whole archive from
    a broken one by its length.
    """

    def __init__(self, folder: str, moment: int, files: Sequence[PublishedArtifact], store: ArtifactStore) -> None:
        self._files = [(_header(f"{folder}/{file.path}", file.size, moment), file) for file in files]
        self._store = store
        self.name = f"{folder}.tar"

    @property
    def size(self) -> int:
        """Bytes of the archive."""
        return sum(len(header) + file.size + _padding(file.size) for header, file in self._files) + len(_END)

    @property
    def etag(self) -> str:
        """The archive's strong ETag, quoted."""
        digest = hashlib.sha256()
        for header, file in self._files:
            digest.update(header + file.sha256.encode())
        return f'"{digest.hexdigest()}"'

    def open(self) -> Iterator[bytes]:
        """Stream the archive. Raises `ArtifactMissing` at once where the first file is no longer in the store."""
        opened = self._store.open(self._files[0][1].key, 0, self._files[0][1].size)
        return self._chunks(opened)

    def _chunks(self, first: Iterator[bytes]) -> Iterator[bytes]:
        for index, (header, file) in enumerate(self._files):
            yield header
            yield from self._store.open(file.key, 0, file.size) if index else first
            yield bytes(_padding(file.size))
        yield _END


def _header(name: str, size: int, moment: int) -> bytes:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mtime, entry.mode = size, moment, 0o644
    return entry.tobuf(tarfile.PAX_FORMAT)


def _padding(size: int) -> int:
    return -size % _BLOCK
