"""Bubblewrap: the command that runs another one in namespaces of its own, where only what is named exists."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from worker.sandbox.confinement import Confinement

_SIGNALLED = 128


def wrapped(program: str, confinement: Confinement, folder: Path) -> list[str]:
    """Return what to put before a command.

    Args:
        program: Path of bubblewrap.
        confinement: What the command may touch.
        folder: Its working directory.
    """
    # No namespace of users for root: a user to become would not exist in it. Others get one anyway.
    command = [program, "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try", "--hostname", "job"]
    command += [] if confinement.network else ["--unshare-net"]
    command += ["--die-with-parent", "--cap-drop", "ALL"]
    if confinement.user is not None:
        command += ["--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
    places = [path for path in (*confinement.read, *confinement.write, *confinement.list) if path.exists()]
    for parent in _parents(places):
        # Bubblewrap makes them for the user who starts it alone, and the command may be another's.
        command += ["--perms", "0755", "--dir", str(parent)]
    command += ["--proc", "/proc", "--dev", "/dev"]
    for path in _outermost_first(confinement.read):
        command += (
            ["--symlink", str(path.readlink()), str(path)] if path.is_symlink() else ["--ro-bind-try", str(path), str(path)]
        )
    for path in _outermost_first(confinement.write):
        command += ["--bind", str(path), str(path)]
    for path in confinement.devices:
        if not _is_everywhere(path):
            command += ["--dev-bind-try", str(path), str(path)]
    return [*command, "--chdir", str(folder), "--"]


def ended_as(code: int) -> int:
    """Return how the wrapped command ended, as `subprocess` would: bubblewrap adds a signal's number to 128."""
    return _SIGNALLED - code if code > _SIGNALLED else code


def _parents(paths: Iterable[Path]) -> list[Path]:
    found = {parent for path in paths for parent in path.parents if parent != Path("/")}
    return sorted(found, key=lambda path: len(path.parts))


def _outermost_first(paths: Iterable[Path]) -> list[Path]:
    """Sort paths so that what is mounted later is not hidden. /proc and /dev are made anew."""
    return sorted((path for path in paths if path not in (Path("/proc"), Path("/dev"))), key=lambda path: len(path.parts))


def _is_everywhere(path: Path) -> bool:
    return path.name in {"null", "zero", "full", "random", "urandom", "tty", "shm"}
