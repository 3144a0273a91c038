"""Limits that a process sets itself before it reads a stranger's bytes. Linux knows all of them, other systems some."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from app.inspection.records import Limits
from app.sandbox import kernel, landlock, seccomp
from app.sandbox.ties import be_first_to_go, die_with_parent

_CLONE_NEWUSER = 0x10000000
_CLONE_NEWNET = 0x40000000
_MOST_OPEN_FILES = 64
_RENAMES_SINCE = 2  # version of Landlock that allows renaming from a folder to another
_PACKAGES = ("app", "pruning_core")
# Libraries, and what the kernel says of this process and of the host.
_SYSTEM = ("/usr", "/lib", "/lib64", "/etc/ld.so.cache", "/etc/localtime", "/proc/self", "/proc/meminfo", "/proc/cpuinfo")
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
    """Arrange that no program which this process starts has more rights than it, and that no core is written."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if kernel.available():
        kernel.renounce_privileges()


def keep_to(read: Sequence[Path], write: Sequence[Path]) -> None:
    """Keep this process to some files, the interpreter and its libraries, for ever.

    A process that a stranger's bytes have taken over then reads no other tenant's uploads, no settings of the process that it
    was forked for (`/proc`), and writes nowhere else. Where the kernel cannot, it goes on: this is a second lock.

    Args:
        read: Files and folders that it reads.
        write: Folders that it writes to.
    """
    if landlock.version() < _RENAMES_SINCE:
        return
    home = Path(__file__).resolve().parents[2]
    places = {home, *(Path(entry) for entry in sys.path if entry)}
    code = {Path(sys.prefix), Path(sys.base_prefix), *(place for place in places if not _is_repository(place))}
    code |= {home / package for package in _PACKAGES}
    rules = [(path, landlock.READ) for path in (*map(Path, _SYSTEM), *code, *read)]
    rules += [(home, landlock.Access.READ_DIR), *((path, landlock.WRITE) for path in write)]
    with contextlib.suppress(OSError):
        landlock.restrict(rules, network=False)


def _is_repository(place: Path) -> bool:
    """Return whether a folder holds our packages without their libraries: then anything may lie there, the data too."""
    return all((place / package).is_dir() for package in _PACKAGES) and not (place / "pydantic").is_dir()


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
    if seccomp.available():  # last: it denies what is set above, too
        with contextlib.suppress(OSError):  # a kernel without filters; the limits hold all the same
            seccomp.deny_calls(sockets=False)
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
