"""A reader of tar files from strangers: bounded in everything, and regular files only.

The library's own reader takes extended headers of any length into memory and knows links, devices and sparse files, all of
which are refused here. Headers are still parsed by the library.
"""

from __future__ import annotations

import gzip
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, cast

_BLOCK = tarfile.BLOCKSIZE
_CHUNK = 1 << 20
_LONGEST_EXTENSION = 64 * 1024
_FILES = {tarfile.REGTYPE, tarfile.AREGTYPE}
_GZIP_MAGIC = b"\x1f\x8b"


class TarInvalid(Exception):
    """The file is not a tar file that is accepted here; the message says why."""


@dataclass(frozen=True, slots=True)
class Member:
    """One regular file."""

    name: str
    size: int
    chunks: Iterator[bytes]  # to be read before the next member


def members(archive: IO[bytes]) -> Iterator[Member]:
    """Read the regular files of a tar file, compressed by gzip or not.

    Raises:
        TarInvalid: The file is damaged or truncated, or holds anything but files and folders.
    """
    magic = archive.read(2)
    archive.seek(0)
    if magic != _GZIP_MAGIC:
        yield from _members(archive)
        return
    with gzip.GzipFile(fileobj=archive, mode="rb") as unpacked:
        yield from _members(cast("IO[bytes]", unpacked))


def _members(archive: IO[bytes]) -> Iterator[Member]:
    extension: dict[str, str] = {}
    first = True
    while (block := _exactly(archive, _BLOCK)).count(0) != _BLOCK:
        try:
            entry = tarfile.TarInfo.frombuf(block, "utf-8", "strict")
        except (tarfile.HeaderError, UnicodeDecodeError):
            raise TarInvalid(
                "the archive is damaged" if not first else "send a tar file, plain or compressed by gzip"
            ) from None
        first = False
        if entry.size < 0:
            raise TarInvalid("the archive is damaged")
        if entry.type in (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME):
            found = _extension(archive, entry)
            extension |= {} if entry.type == tarfile.XGLTYPE else found
            continue
        name, size = extension.pop("path", entry.name), _number(extension.pop("size", str(entry.size)))
        if extension.keys() & {"GNU.sparse.major", "GNU.sparse.map", "linkpath"}:
            raise TarInvalid("the archive holds sparse files or links; put plain files into it")
        extension = {}
        if entry.type in _FILES and not entry.name.endswith("/"):
            body = _body(archive, size)
            yield Member(name, size, body)
            for _rest in body:  # skip what the caller has not read
                pass
            _exactly(archive, -size % _BLOCK)
        elif entry.type != tarfile.DIRTYPE and entry.type not in _FILES:
            raise TarInvalid("the archive holds links, devices or the like; put plain files into it")


def _body(archive: IO[bytes], size: int) -> Iterator[bytes]:
    left = size
    while left:
        chunk = _read(archive, min(_CHUNK, left))
        if not chunk:
            raise TarInvalid("the archive was cut off")
        left -= len(chunk)
        yield chunk


def _extension(archive: IO[bytes], entry: tarfile.TarInfo) -> dict[str, str]:
    """Read what an extended header says of the next file."""
    if entry.size > _LONGEST_EXTENSION:
        raise TarInvalid("the archive has a header that is far too long")
    data = _exactly(archive, entry.size)
    _exactly(archive, -entry.size % _BLOCK)
    try:
        if entry.type == tarfile.GNUTYPE_LONGNAME:
            return {"path": data.rstrip(b"\0").decode()}
        return dict(_records(data))
    except (UnicodeDecodeError, ValueError):
        raise TarInvalid("the archive is damaged") from None


def _records(data: bytes) -> Iterator[tuple[str, str]]:
    """Read the ``length key=value`` lines of a pax header."""
    while data:
        length, _space, _rest = data.partition(b" ")
        if not length.isdigit() or not 0 < int(length) <= len(data):
            raise ValueError("length")
        line, data = data[len(length) + 1 : int(length) - 1], data[int(length) :]
        key, _equals, value = line.partition(b"=")
        yield key.decode(), value.decode()


def _number(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise TarInvalid("the archive is damaged")
    return int(text)


def _read(archive: IO[bytes], size: int) -> bytes:
    try:
        return archive.read(size)
    except (EOFError, zlib.error, gzip.BadGzipFile):
        raise TarInvalid("the archive is damaged or was cut off") from None


def _exactly(archive: IO[bytes], size: int) -> bytes:
    data = _read(archive, size) if size else b""
    if len(data) != size:
        raise TarInvalid("the archive was cut off")
    return data
