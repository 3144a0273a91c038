"""Bundles in archives: unpacked into a folder of their own, names and kinds checked before a byte is written."""

from __future__ import annotations

import shutil
import stat
import tarfile
import tempfile
import zipfile
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO

from coppice.pushing.bundle import MANIFEST_FILE, BundleUnfit, NoBundle

_KEPT_FREE = 2**27
_CHUNK = 2**20


@contextmanager
def opened(path: Path) -> Generator[Path]:
    """Yield the folder of a bundle: the path itself, or where its archive was unpacked, which is removed afterwards.

    Raises:
        NoBundle: The path is neither a folder nor a .tar, .tar.gz or .zip.
        BundleUnfit: The archive is damaged, or holds what no bundle has.
    """
    if path.is_dir():
        yield path
        return
    if not path.is_file():
        raise NoBundle(f"there is no folder or archive {path}")
    with tempfile.TemporaryDirectory(prefix="coppice-push-") as name:
        folder = Path(name)
        try:
            _unpack(path, folder)
        except (tarfile.TarError, zipfile.BadZipFile, EOFError, RuntimeError, NotImplementedError) as error:
            raise BundleUnfit(f"{path} is damaged, or no archive: {type(error).__name__}") from None
        yield _root(folder)


def _root(folder: Path) -> Path:
    """Return the folder with the manifest: archives made by hand have one around all files."""
    entries = list(folder.iterdir())
    if not (folder / MANIFEST_FILE).is_file() and len(entries) == 1 and entries[0].is_dir():
        return entries[0]
    return folder


def _unpack(path: Path, folder: Path) -> None:
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as packed:
            _write(folder, _of_zip(packed))
    elif tarfile.is_tarfile(path):
        with tarfile.open(path) as packed:
            _write(folder, _of_tar(packed))
    else:
        raise NoBundle(f"{path} is no bundle: give its folder, or an archive of it (.tar, .tar.gz or .zip)")


def _of_zip(packed: zipfile.ZipFile) -> Iterator[tuple[str, int, IO[bytes]]]:
    for member in packed.infolist():
        if member.is_dir():
            continue
        if stat.S_ISLNK(member.external_attr >> 16):
            raise BundleUnfit(f"{member.filename!a} in the archive is a link; pack the files themselves")
        with packed.open(member) as content:
            yield member.filename, member.file_size, content


def _of_tar(packed: tarfile.TarFile) -> Iterator[tuple[str, int, IO[bytes]]]:
    for member in packed:
        if member.isdir():
            continue
        content = packed.extractfile(member) if member.isreg() else None
        if content is None:
            raise BundleUnfit(f"{member.name!a} in the archive is a link, or no file; pack the files themselves: tar -h")
        with content:
            yield member.name, member.size, content


def _write(folder: Path, members: Iterator[tuple[str, int, IO[bytes]]]) -> None:
    for name, size, content in members:
        parts = PurePosixPath(name).parts
        if not parts or name.startswith("/") or ".." in parts or "\\" in name or not name.isprintable():
            raise BundleUnfit(f"{name!a} in the archive would lie outside of the bundle")
        if size + _KEPT_FREE > shutil.disk_usage(folder).free:
            raise BundleUnfit(
                f"there is no room to unpack {name!a} ({size} bytes) in {folder.parent}; TMPDIR names another folder"
            )
        target = folder.joinpath(*parts)
        if target.exists():
            raise BundleUnfit(f"{name!a} is in the archive twice")
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("xb") as file:
            left = size
            while left and (chunk := content.read(min(_CHUNK, left))):
                left -= len(chunk)
                file.write(chunk)
