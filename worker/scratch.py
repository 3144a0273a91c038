"""The scratch folder of this host: one folder per attempt, ``<job>.<fence>``, with the work that a later attempt resumes.

A stage that takes long writes its checkpoints to ``work``. The folder survives an attempt that crashed or was interrupted, and
the next attempt on this host takes it over by renaming it, so that an attempt that has lost its lease without knowing finds
nothing to write to.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

WORK = "work"


@dataclass(frozen=True, slots=True)
class Attempt:
    """A folder of this host and the attempt that made it."""

    job_id: str
    fence: int
    folder: Path

    def has_work(self) -> bool:
        """Return whether a later attempt could go on from here."""
        try:
            return any((self.folder / WORK).iterdir())
        except OSError:
            return False

    def delete(self) -> None:
        """Delete the folder."""
        delete_tree(self.folder)

    def keep_work(self) -> None:
        """Delete all but the work, and the folder if there is none."""
        if not self.has_work():
            self.delete()
            return
        for path in self.folder.iterdir():
            if path.name != WORK:
                delete_tree(path)


class ScratchRoom:
    """All attempts' folders of this host."""

    def __init__(self, root: Path) -> None:
        self._root = root.resolve()

    def free_bytes(self) -> int:
        """Return the free bytes of the disk."""
        self._root.mkdir(parents=True, exist_ok=True)
        return shutil.disk_usage(self._root).free

    @contextlib.contextmanager
    def begin(self, job_id: str, fence: int) -> Generator[Attempt]:
        """Make the folder of an attempt, with the work of the latest attempt before it on this host.

        Only the work is left at the end; the reaper deletes that when the job has finished.
        """
        attempt = Attempt(job_id, fence, self._root / f"{job_id}.{fence}")
        attempt.delete()
        attempt.folder.mkdir(parents=True)
        earlier = sorted((found for found in self.attempts() if found.job_id == job_id), key=lambda found: found.fence)
        for found in reversed(earlier):
            if found.fence < fence and found.has_work() and not (attempt.folder / WORK).exists():
                with contextlib.suppress(OSError):  # the sweep has just deleted it: the attempt begins anew
                    (found.folder / WORK).rename(attempt.folder / WORK)
        try:
            (attempt.folder / WORK).mkdir(exist_ok=True)
            yield attempt
        finally:
            attempt.keep_work()

    def attempts(self) -> Iterator[Attempt]:
        """List the folders that are here."""
        if not self._root.is_dir():
            return
        for path in sorted(self._root.iterdir()):
            job_id, _dot, fence = path.name.rpartition(".")
            if job_id and fence.isdigit():
                yield Attempt(job_id, int(fence), path)


def delete_tree(top: Path) -> None:
    """Delete a file, a link, or a folder that a stranger has made: as deep as he likes, and closed to its owner.

    Folders are moved up to the top before they are emptied, so that no path is long, and nothing calls itself. What cannot be
    deleted stays.
    """
    with contextlib.suppress(OSError):
        if not stat.S_ISDIR(top.lstat().st_mode):
            top.unlink()
            return
        left = _emptied(top, top)
        while left:
            folder = left.pop()
            left += _emptied(folder, top)
            with contextlib.suppress(OSError):
                folder.rmdir()
        top.rmdir()


def _emptied(folder: Path, top: Path) -> list[Path]:
    """Delete the files of a folder, and move its folders to the top. Return where these are."""
    moved: list[Path] = []
    with contextlib.suppress(OSError):
        folder.chmod(stat.S_IRWXU)
        with os.scandir(folder) as entries:
            found = [(Path(entry.path), entry.is_dir(follow_symlinks=False)) for entry in entries]
        for path, is_folder in found:
            with contextlib.suppress(OSError):
                if not is_folder:
                    path.unlink()
                elif folder == top:
                    moved.append(path)
                else:
                    path.chmod(stat.S_IRWXU)  # a folder that is closed to its owner cannot be moved
                    moved.append(path.rename(top / uuid4().hex))
    return moved
