"""Limits that a process sets itself before it reads a stranger's bytes. Linux knows all of them, other systems some."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import sys
from pathlib import Path

from app.inspection.records import Limits

_PR_SET_PDEATHSIG = 1
_PR_SET_NO_NEW_PRIVS = 38
_CLONE_NEWUSER = 0x10000000
_CLONE_NEWNET = 0x40000000
_MOST_OPEN_FILES = 64
_NICENESS = 10  # the API's own threads go first


def leave_the_network() -> bool:
    """Move this process, which must have one thread, into a network namespace without any interface.

    Returns:
        Whether the host allows it. Where it does not, the process goes on: its code opens no connection, and this is a second
        lock.
    """
    if sys.platform != "linux":
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNET) == 0:
        return True
    user, group = os.geteuid(), os.getegid()
    if libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET) != 0:
        return False
    # Ourselves by our own name, so that files that we make and read have the same owner as before.
    with contextlib.suppress(OSError):
        Path("/proc/self/setgroups").write_text("deny", encoding="ascii")
        Path("/proc/self/uid_map").write_text(f"{user} {user} 1", encoding="ascii")
        Path("/proc/self/gid_map").write_text(f"{group} {group} 1", encoding="ascii")
    return True


def gain_no_privileges() -> None:
    """Arrange that no program which this process starts has more rights than it, and that no core is written."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def confine(limits: Limits, parent: int) -> bool:
    """Limit this process for the rest of its life, and arrange that it dies with its parent.

    Returns:
        False where the parent was gone already.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        # A container may forbid the write; the kernel then chooses by itself which process goes first.
        with contextlib.suppress(OSError):
            Path("/proc/self/oom_score_adj").write_text("800", encoding="ascii")
    os.nice(_NICENESS)
    space = _address_space() + limits.memory_bytes
    for kind, value in (
        (resource.RLIMIT_AS, space),
        (resource.RLIMIT_CPU, limits.cpu_s),
        (resource.RLIMIT_FSIZE, limits.file_bytes),
        (resource.RLIMIT_NOFILE, _MOST_OPEN_FILES),
        (resource.RLIMIT_NPROC, 0),  # no fork; the kernel does not count root's processes
    ):
        _limit(kind, value)
    return os.getppid() == parent


def _limit(kind: int, value: int) -> None:
    _soft, hard = resource.getrlimit(kind)
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    with contextlib.suppress(OSError, ValueError):  # macOS knows limits that it does not let anybody set
        resource.setrlimit(kind, (value, value))


def _address_space() -> int:
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    except OSError:
        return 2**30
    return pages * resource.getpagesize()
