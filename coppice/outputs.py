"""Places that a command will write to: tried before any work, so that no work is done for a place that takes nothing."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

_PROBE = b"\0" * 4096  # a full disk takes names, but no content
_ADVICE = "name another place"
_LONGEST_SHOWN = 120
_REASONS = {
    errno.EACCES: "this user may not write there",
    errno.EPERM: "this user may not write there",
    errno.EROFS: "it is on a disk that can only be read",
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.ENAMETOOLONG: "the name is too long",
    errno.ELOOP: "its links lead in a circle",
    errno.ENOENT: "no folder can be made there",
}


class OutputUnusable(Exception):
    """A place cannot be written to. The message says why, and what would be right."""


def check_folder(path: Path, option: str = "--out", *, may_hold_files: bool = False) -> None:
    """Insist that a folder can be made and written to, and is empty. Nothing of the try is left.

    Args:
        path: The folder.
        option: The option that names it, for the message.
        may_hold_files: Whether the folder may hold files already.

    Raises:
        OutputUnusable: It cannot.
    """
    with _said(path, option):
        if str(path) in ("", ".") and not may_hold_files and any(Path().iterdir()):
            raise OutputUnusable(
                f"{option} names the current folder, which is not empty: the output folder must not exist, or be empty"
            )
        if path.is_symlink() and not path.exists():
            raise OutputUnusable(f"{option} {path} is a link that leads nowhere; {_ADVICE}")
        if path.exists() and not path.is_dir():
            wanted = "name a folder" if may_hold_files else "the output folder must not exist, or be empty"
            raise OutputUnusable(f"{option} {path} is a file: {wanted}")
        if not may_hold_files and path.is_dir() and any(path.iterdir()):
            raise OutputUnusable(f"{option} {path} holds files already: the output folder must not exist, or be empty")
        _try_folder(path, option)


def check_file(path: Path, option: str = "--out") -> None:
    """Insist that a file can be written, or written anew. Its folder must be there.

    Args:
        path: The file.
        option: The option that names it, for the message.

    Raises:
        OutputUnusable: It cannot.
    """
    with _said(path, option):
        if path.is_dir():
            raise OutputUnusable(f"{option} {path} is a folder; name a file, such as {path / 'report.html'}")
        folder = path.parent
        if not folder.is_dir():
            what = "is a file" if folder.exists() else "does not exist"
            raise OutputUnusable(f"{option} {path}: the folder {folder} {what}; make it, or {_ADVICE}")
        if path.exists():
            if not os.access(path, os.W_OK):
                raise PermissionError(errno.EACCES, "", str(path))
        else:
            _try_names(folder, path.name)


def _try_folder(path: Path, option: str) -> None:
    """Make a folder with its parents and write into it, and take away what was made."""
    missing: list[Path] = []
    there = path
    while not there.exists():
        missing.append(there)
        there = there.parent
    if not there.is_dir():
        raise OutputUnusable(f"{option} {path}: {there} is a file, so that no folder can be made in it; {_ADVICE}")
    made: list[Path] = []
    try:
        for folder in reversed(missing):
            folder.mkdir()
            made.append(folder)
        _try_names(path, None)
    finally:
        for folder in reversed(made):
            folder.rmdir()


def _try_names(folder: Path, name: str | None) -> None:
    """Write a file into a folder, and a file of a name."""
    with tempfile.TemporaryFile(dir=folder) as probe:
        probe.write(_PROBE)
    if name is not None:
        (folder / name).touch(exist_ok=False)
        (folder / name).unlink()


@contextmanager
def _said(path: Path, option: str) -> Generator[None]:
    """Turn what the system says into a sentence."""
    try:
        yield
    except OSError as error:
        reason = _REASONS.get(error.errno or 0, (error.strerror or str(error)).lower())
        shown = str(path) if len(str(path)) <= _LONGEST_SHOWN else f"{str(path)[:_LONGEST_SHOWN]}…"
        raise OutputUnusable(f"{option} {shown} cannot be written: {reason}; {_ADVICE}") from error
