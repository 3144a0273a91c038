"""Landlock: the kernel denies this process and its children all files but those that are named here.

It needs no privilege and works in containers, where namespaces are usually closed. From its fourth version on, it also denies
TCP, from its sixth signals and abstract sockets to processes outside. Python's standard library has no interface to it, and no
maintained package has either (docs/decisions/0106). The numbers are those of linux/landlock.h.
"""

from __future__ import annotations

import ctypes
import os
import stat
from collections.abc import Iterable
from enum import IntFlag
from pathlib import Path

from app.sandbox import kernel

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # the same on every architecture
_VERSION_FLAG = 1
_PATH_BENEATH = 1
_TCP = 0b11  # bind and connect
_SCOPES = 0b11  # abstract sockets and signals
_TCP_SINCE, _SCOPES_SINCE = 4, 6


class Access(IntFlag):
    """What may be done with a file."""

    EXECUTE = 1 << 0
    WRITE_FILE = 1 << 1
    READ_FILE = 1 << 2
    READ_DIR = 1 << 3
    REMOVE_DIR = 1 << 4
    REMOVE_FILE = 1 << 5
    MAKE_CHAR = 1 << 6
    MAKE_DIR = 1 << 7
    MAKE_REG = 1 << 8
    MAKE_SOCK = 1 << 9
    MAKE_FIFO = 1 << 10
    MAKE_BLOCK = 1 << 11
    MAKE_SYM = 1 << 12
    REFER = 1 << 13
    TRUNCATE = 1 << 14
    IOCTL_DEV = 1 << 15


READ = Access.READ_FILE | Access.READ_DIR | Access.EXECUTE
# No devices, sockets, pipes or links: a supervisor that finds one in a job's folder knows that something is wrong.
WRITE = (
    READ
    | Access.WRITE_FILE
    | Access.REMOVE_DIR
    | Access.REMOVE_FILE
    | Access.MAKE_DIR
    | Access.MAKE_REG
    | Access.REFER
    | Access.TRUNCATE
)
DEVICE = Access.READ_FILE | Access.WRITE_FILE | Access.READ_DIR | Access.IOCTL_DEV
_OF_FILES = Access.EXECUTE | Access.WRITE_FILE | Access.READ_FILE | Access.TRUNCATE | Access.IOCTL_DEV
# The rights that later versions of Landlock know beside the first thirteen.
_SINCE = {2: Access.REFER, 3: Access.TRUNCATE, 5: Access.IOCTL_DEV}


class _Ruleset(ctypes.Structure):
    _fields_ = (("files", ctypes.c_uint64), ("net", ctypes.c_uint64), ("scoped", ctypes.c_uint64))


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _layout_ = "ms"  # Python 3.14 wants to know
    _fields_ = (("allowed", ctypes.c_uint64), ("parent", ctypes.c_int32))


def version() -> int:
    """Return the version of Landlock that the kernel has; 0 where it has none or has it switched off."""
    if not kernel.available():
        return 0
    try:
        return kernel.syscall(_CREATE_RULESET, ctypes.c_void_p(None), ctypes.c_size_t(0), ctypes.c_uint32(_VERSION_FLAG))
    except OSError:
        return 0


def denies_tcp() -> bool:
    """Return whether this kernel's Landlock can take TCP away."""
    return version() >= _TCP_SINCE


def restrict(rules: Iterable[tuple[Path, Access]], *, network: bool) -> None:
    """Confine this process and all its children, for ever. Call `kernel.renounce_privileges` before.

    Args:
        rules: Files and folders, each with what may be done with it and all below it. Those that do not exist are left out.
        network: Whether TCP stays allowed.

    Raises:
        OSError: The kernel has no Landlock, or refused.
    """
    found = version()
    known = _known(found)
    ruleset = _Ruleset(int(known), 0 if network or found < _TCP_SINCE else _TCP, _SCOPES if found >= _SCOPES_SINCE else 0)
    size = 24 if found >= _SCOPES_SINCE else 16 if found >= _TCP_SINCE else 8
    descriptor = kernel.syscall(_CREATE_RULESET, ctypes.byref(ruleset), ctypes.c_size_t(size), ctypes.c_uint32(0))
    try:
        for path, access in rules:
            _allow(descriptor, path, access & known)
        kernel.syscall(_RESTRICT_SELF, ctypes.c_int(descriptor), ctypes.c_uint32(0))
    finally:
        os.close(descriptor)


def _known(version: int) -> Access:
    known = Access(Access.REFER - 1)
    for since, access in _SINCE.items():
        known |= access if version >= since else Access(0)
    return known


def _allow(ruleset: int, path: Path, access: Access) -> None:
    try:
        parent = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return
    try:
        is_folder = stat.S_ISDIR(os.fstat(parent).st_mode)
        rule = _PathBeneath(int(access if is_folder else access & _OF_FILES), parent)
        kernel.syscall(_ADD_RULE, ctypes.c_int(ruleset), ctypes.c_int(_PATH_BENEATH), ctypes.byref(rule), ctypes.c_uint32(0))
    finally:
        os.close(parent)
