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
# Of every kind: files, folders, and extensions of either. A file has one of its own, and often a folder and an extension.
_MOST_HEADERS = 8000
# What an archive may hold besides its files: headers, extensions, padding, and zeros at its end up to a tape's record.
_MOST_OTHER_BYTES = 32 * 2**20
_LONGEST_END = 2 * 2**20
# Weights shrink to a half at best, zeros to a thousandth. Small archives may hold anything.
_HIGHEST_RATIO = 200
_SMALL_BYTES = 64 * 2**20
_FILES = {tarfile.REGTYPE, tarfile.AREGTYPE}
_EXTENSIONS = {tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME}
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
        TarInvalid: The file is damaged or truncated, holds anything but files and folders, or far more than it weighs.
    """
    packed = archive.seek(0, 2)
    archive.seek(0)
    magic = archive.read(2)
    archive.seek(0)
    if magic != _GZIP_MAGIC:
        yield from _Reader(archive, most_bytes=packed).members()
        return
    with gzip.GzipFile(fileobj=archive, mode="rb") as unpacked:
        most = max(_SMALL_BYTES, _HIGHEST_RATIO * packed)
        yield from _Reader(cast("IO[bytes]", unpacked), most_bytes=most).members()


class _Reader:
    """One pass over a tar file, with a count of its headers, its bytes, and those that belong to no file."""

    def __init__(self, stream: IO[bytes], *, most_bytes: int) -> None:
        self._stream = stream
        self._most_bytes = most_bytes
        self._bytes = 0
        self._others = 0
        self._headers = 0

    def members(self) -> Iterator[Member]:
        """Read the files, one after the other, and then the end."""
        extension: dict[str, str] = {}
        while (block := self._exactly(_BLOCK)).count(0) != _BLOCK:
            entry = self._header(block)
            if entry.type in _EXTENSIONS:
                found = self._extension(entry)
                extension |= {} if entry.type == tarfile.XGLTYPE else found
                continue
            name, size = extension.pop("path", entry.name), _number(extension.pop("size", str(entry.size)))
            if extension.keys() & {"GNU.sparse.major", "GNU.sparse.map", "GNU.sparse.size", "linkpath"}:
                raise TarInvalid("the archive holds sparse files or links; put plain files into it")
            extension = {}
            if entry.type in _FILES and not entry.name.endswith("/"):
                body = self._body(size)
                yield Member(name, size, body)
                for _rest in body:  # skip what the caller has not read
                    pass
                self._exactly(-size % _BLOCK)
            elif entry.type != tarfile.DIRTYPE and entry.type not in _FILES:
                raise TarInvalid("the archive holds links, devices or the like; put plain files into it")
        self._end()

    def _header(self, block: bytes) -> tarfile.TarInfo:
        self._headers += 1
        if self._headers > _MOST_HEADERS:
            raise TarInvalid(f"the archive has more than {_MOST_HEADERS} entries, folders and headers included")
        try:
            entry = tarfile.TarInfo.frombuf(block, "utf-8", "strict")
        except (tarfile.HeaderError, UnicodeDecodeError, ValueError):
            raise TarInvalid(
                "the archive is damaged" if self._headers > 1 else "send a tar file, plain or compressed by gzip"
            ) from None
        if entry.size < 0:
            raise TarInvalid("the archive is damaged")
        return entry

    def _body(self, size: int) -> Iterator[bytes]:
        left = size
        while left:
            chunk = self._read(min(_CHUNK, left))
            if not chunk:
                raise TarInvalid("the archive was cut off")
            left -= len(chunk)
            yield chunk

    def _extension(self, entry: tarfile.TarInfo) -> dict[str, str]:
        """Read what an extended header says of the next file."""
        if entry.size > _LONGEST_EXTENSION:
            raise TarInvalid("the archive has a header that is far too long")
        data = self._exactly(entry.size)
        self._exactly(-entry.size % _BLOCK)
        try:
            if entry.type == tarfile.GNUTYPE_LONGNAME:
                return {"path": data.rstrip(b"\0").decode()}
            return dict(_records(data))
        except (UnicodeDecodeError, ValueError):
            raise TarInvalid("the archive is damaged") from None

    def _end(self) -> None:
        """Read to the end: nothing but zeros may follow, and a checksum of gzip's."""
        length = 0
        while chunk := self._read(_CHUNK):
            length += len(chunk)
            if chunk.count(0) != len(chunk) or length > _LONGEST_END:
                raise TarInvalid("the archive goes on after its end; send one archive, and nothing behind it")

    def _exactly(self, size: int) -> bytes:
        """Read bytes that belong to no file."""
        self._others += size
        if self._others > _MOST_OTHER_BYTES:
            raise TarInvalid("the archive consists of headers for the most part")
        data = self._read(size) if size else b""
        if len(data) != size:
            raise TarInvalid("the archive was cut off")
        return data

    def _read(self, size: int) -> bytes:
        try:
            data = self._stream.read(size)
        except (EOFError, zlib.error, gzip.BadGzipFile):
            raise TarInvalid("the archive is damaged or was cut off") from None
        self._bytes += len(data)
        if self._bytes > self._most_bytes:
            raise TarInvalid(f"the archive unpacks to more than {_HIGHEST_RATIO} times its size; send it uncompressed")
        return data


def _records(data: bytes) -> Iterator[tuple[str, str]]:
    """Read the ``length key=value`` lines of a pax header."""
    while data:
        length, _space, _rest = data[:20].partition(b" ")
        if not length.isdigit() or not len(length) + 3 <= int(length) <= len(data):
            raise ValueError("length")
        line, data = data[len(length) + 1 : int(length) - 1], data[int(length) :]
        key, _equals, value = line.partition(b"=")
        yield key.decode(), value.decode()


def _number(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise TarInvalid("the archive is damaged")
    return int(text)
