"""System calls that Python's library has no names for. Linux only: elsewhere `available` is False, and nothing else works."""

from __future__ import annotations

import ctypes
import os
import sys

_PR_SET_DUMPABLE = 4
_PR_SET_NO_NEW_PRIVS = 38
_CAPABILITY_VERSION = 0x20080522


def available() -> bool:
    """Return whether this is a kernel whose calls this room knows."""
    return sys.platform == "linux"


def syscall(number: int, *arguments: object) -> int:
    """Make a system call.

    Raises:
        OSError: The kernel refused; its number is in ``errno``.
    """
    library = ctypes.CDLL(None, use_errno=True)
    result = int(library.syscall(ctypes.c_long(number), *arguments))
    if result < 0:
        raise _error()
    return result


def prctl(option: int, *arguments: object) -> int:
    """Change an attribute of this process.

    Raises:
        OSError: The kernel refused.
    """
    library = ctypes.CDLL(None, use_errno=True)
    padded = [*arguments, *[ctypes.c_ulong(0)] * (4 - len(arguments))]
    result = int(library.prctl(option, *padded))
    if result < 0:
        raise _error()
    return result


def renounce_privileges() -> None:
    """Give up for ever what programs with the set-user-ID bit or file capabilities would grant, here and in all children."""
    prctl(_PR_SET_NO_NEW_PRIVS, ctypes.c_ulong(1))


def become(user: int, group: int) -> None:
    """Become another user, without a way back. Needs the right to switch users.

    The kernel then takes this process's own files in /proc away from it, which libraries need; they are given back.
    """
    os.setgroups([])
    os.setresgid(group, group, group)
    os.setresuid(user, user, user)
    prctl(_PR_SET_DUMPABLE, ctypes.c_ulong(1))


def drop_capabilities() -> None:
    """Give up what root may do beyond others. CAP_PERFMON, for one, shows the environment of every process.

    Raises:
        OSError: The kernel refused.
    """
    library = ctypes.CDLL(None, use_errno=True)
    header, none = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION, 0), (ctypes.c_uint32 * 6)()
    if library.capset(header, none) < 0:
        raise _error()


def _error() -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))
