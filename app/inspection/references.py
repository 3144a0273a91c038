"""Paths that clients name: confined first, looked at afterwards.

Nothing outside the allowed roots is touched, not even to see whether it is there: the answer for a path that leads out is the
same, and as quick, whatever lies at its end. So links are followed here by hand, one at a time, and each step is judged by its
name before the system is asked about it.
"""

from __future__ import annotations

import os
import stat
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from app.refusals import Refused

_Parts = tuple[str, ...]

_NO_ROOTS = "this server reads no folders by path"
_OUTSIDE = "the path, or a link in it, leads out of the folders that this server may read"
_REMEDY = (
    "its operator allows folders with COPPICE_ALLOWED_ROOTS (coppice serve --allow-root DIR); or upload the folder, and name "
    "the upload's id"
)
_MOST_MEMBERS = 1_000_000  # ImageNet has as many images; beyond it nobody looks, so it is refused
_MOST_LINKS = 40  # as many as Linux follows
_LONGEST_PATH = 4096
_LONGEST_PART = 255


def resolve(
    reference: str, pointer: str, roots: Sequence[Path], most_members: int = _MOST_MEMBERS, *, closed: Sequence[Path] = ()
) -> Path:
    """Resolve a path, links included, and insist that it and all that lies in it are under an allowed root.

    Args:
        reference: An absolute path.
        pointer: The field that names it.
        roots: Absolute paths of the allowed roots.
        most_members: Files and folders that may lie in it.
        closed: Absolute paths of the service's own folders. They hold what is other tenants', and stay closed where they lie
            under a root; a root within one is open all the same.

    Raises:
        Refused: It is no absolute path, leads out of the roots, or holds too much or something that is no file.
    """
    confinement = Confinement(roots, closed, pointer)
    path = confinement.follow(reference)
    for _member in confinement.members(path, most_members):
        pass
    return path


class Confinement:
    """The folders to which the paths of clients are confined. Of a file, only its name, its kind and its links are looked at.

    Args:
        roots: As `resolve`.
        closed: As `resolve`.
        pointer: As `resolve`.
    """

    def __init__(self, roots: Sequence[Path], closed: Sequence[Path], pointer: str) -> None:
        self._pointer = pointer
        self._closed = {folder.resolve().parts[1:] for folder in closed}
        # A root counts by the name that the operator gave it, and by its own, which has no link in it.
        self._names = {root.parts[1:]: root.resolve().parts[1:] for root in roots}
        self._roots = set(self._names.values())
        known = self._roots | set(self._names)
        self._passages = {parts[:length] for parts in known for length in range(len(parts))}

    def follow(self, reference: str, at: _Parts = ()) -> Path:
        """Resolve a path from a folder that is resolved already. Raises `Refused` where it leads out."""
        if "\0" in reference or not (at or reference.startswith("/")):
            raise Refused("invalid_request", "a path must be absolute", self._pointer)
        if reference.startswith("/"):
            at = ()
        waiting, links = deque(reference.split("/")), 0
        while waiting:
            part = waiting.popleft()
            if len(part.encode(errors="replace")) > _LONGEST_PART or len(waiting) > _LONGEST_PATH:
                raise Refused("path_not_allowed", "the path cannot be resolved", self._pointer)
            if part in ("", "."):
                continue
            if part == "..":
                at = at[:-1]
                continue
            at = (*at, part)
            if at in self._names:
                at = self._names[at]
                continue
            if at in self._passages:
                continue
            target = self._link(at)
            if target is not None:
                links += 1
                if links > _MOST_LINKS:
                    raise Refused("path_not_allowed", "the path cannot be resolved", self._pointer)
                at = () if target.startswith("/") else at[:-1]
                waiting.extendleft(reversed(target.split("/")))
        return self._inside(at)

    def members(self, top: Path, most: int) -> Iterator[tuple[Path, Path]]:
        """Yield what lies in a folder, at whatever depth: the path of each member, and where it is when links are followed.

        Raises:
            Refused: More than ``most`` lie in it, or something else than files, folders, and links to such under the roots.
        """
        waiting, seen, count = [top], {top}, 0
        while waiting:
            folder = waiting.pop()
            try:
                with os.scandir(folder) as found:
                    for member in found:
                        count += 1
                        if count > most:
                            raise Refused(
                                "path_not_allowed",
                                f"the folder has more than {most} files, and no more are looked through; name the folder of "
                                "one model or data set",
                                self._pointer,
                            )
                        path, is_folder = self._place_of(member)
                        if is_folder and path not in seen:
                            seen.add(path)
                            waiting.append(path)
                        yield Path(member.path), path
            except (FileNotFoundError, NotADirectoryError):
                continue  # the checks of models and data sets say what is missing
            except OSError:
                raise Refused("path_not_allowed", "a folder in it cannot be read by this server", self._pointer) from None

    def _place_of(self, member: os.DirEntry[str]) -> tuple[Path, bool]:
        """Return where a member is when links are followed, and whether that is a folder. Refuse what is no file either."""
        if member.is_symlink():
            path = self.follow(str(Path(member.path).readlink()), PurePosixPath(member.path).parts[1:-1])
            try:
                mode = path.lstat().st_mode
            except OSError:
                return path, False  # a link to nothing
        elif member.is_dir(follow_symlinks=False):
            return self._inside(PurePosixPath(member.path).parts[1:]), True
        elif member.is_file(follow_symlinks=False):
            return Path(member.path), False
        else:
            path, mode = Path(member.path), member.stat(follow_symlinks=False).st_mode
        if stat.S_ISDIR(mode) or stat.S_ISREG(mode):
            return path, stat.S_ISDIR(mode)
        raise Refused("path_not_allowed", "the folder holds pipes, sockets or devices, which are not read", self._pointer)

    def _link(self, at: _Parts) -> str | None:
        """Return what a link points to; None for everything else, and where there is nothing."""
        try:
            return str(self._inside(at).readlink())
        except (OSError, ValueError):
            return None

    def _inside(self, at: _Parts) -> Path:
        open_ = max((len(root) for root in self._roots if at[: len(root)] == root), default=-1)
        closed = max((len(folder) for folder in self._closed if at[: len(folder)] == folder), default=-1)
        if open_ < max(0, closed):
            raise Refused("path_not_allowed", f"{_OUTSIDE if self._roots else _NO_ROOTS}; {_REMEDY}", self._pointer)
        return Path("/", *at)
