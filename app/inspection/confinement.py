"""Limits that a process sets itself before it reads a stranger's bytes. Linux knows all of them, other systems some."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
from pathlib import Path

from app.inspection.records import Limits
from app.sandbox import kernel, seccomp
from app.sandbox.ties import be_first_to_go, die_with_parent

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
    if not kernel.available():
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
    """Arrange that nothing which this process starts has more rights than it, opens a socket or writes a core."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if kernel.available():
        kernel.renounce_privileges()
        if seccomp.available():
            with contextlib.suppress(OSError):  # a kernel without filters; the limits hold all the same
                seccomp.deny_calls(sockets=False)


def confine(limits: Limits, parent: int) -> bool:
    """Limit this process for the rest of its life, and arrange that it dies with its parent.

    Returns:
        False where the parent was gone already.
    """
    be_first_to_go()
    is_tied = die_with_parent(parent, signal.SIGKILL)
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
    return is_tied


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
