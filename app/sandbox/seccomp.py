"""A filter of system calls: no new sockets, and none of the calls that lead out of a sandbox or into other processes.

The filter is the kernel's own (classic BPF, linux/seccomp.h). It names what is denied: the numerical libraries of a job use too
many calls, and too different ones on each GPU, for a list of what is allowed. The one maintained binding, libseccomp's own, is
not on the package index (docs/decisions/0106).
"""

from __future__ import annotations

import ctypes
import errno
import platform
import struct
from collections.abc import Mapping
from dataclasses import dataclass

from app.sandbox import kernel

_PR_SET_SECCOMP = 22
_MODE_FILTER = 2
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _FAIL = 0x7FFF0000, 0x00050000
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT = 0, 4, 16  # offsets into struct seccomp_data
_NEW_USER_NAMESPACE = 0x10000000
_X32 = 0x40000000

# Numbers that all architectures share.
_EVERYWHERE = {
    "pidfd_getfd": 438,
    "io_uring_setup": 425,  # its rings open sockets without the call below
    "io_uring_enter": 426,
    "io_uring_register": 427,
    "open_tree": 428,
    "move_mount": 429,
    "fsopen": 430,
    "fsconfig": 431,
    "fsmount": 432,
    "fspick": 433,
    "mount_setattr": 442,
}


@dataclass(frozen=True, slots=True)
class _Machine:
    """An architecture as the kernel's audit names it, and the numbers of its calls."""

    audit: int
    socket: int
    clone: int
    denied: tuple[int, ...]
    clone3: int = 435


# In the order: ptrace, process_vm_readv, process_vm_writev, bpf, perf_event_open, userfaultfd, keyctl, add_key, request_key,
# mount, umount2, pivot_root, open_by_handle_at, name_to_handle_at, unshare, setns, kexec_load, kexec_file_load, init_module,
# finit_module, delete_module, chroot, acct, reboot.
_MACHINES: Mapping[str, _Machine] = {
    "x86_64": _Machine(
        0xC000003E,
        41,
        56,
        (
            101,
            310,
            311,
            321,
            298,
            323,
            250,
            248,
            249,
            165,
            166,
            155,
            304,
            303,
            272,
            308,
            246,
            320,
            175,
            313,
            176,
            161,
            163,
            169,
        ),
    ),
    "aarch64": _Machine(
        0xC00000B7,
        198,
        220,
        (117, 270, 271, 280, 241, 282, 219, 217, 218, 40, 39, 41, 265, 264, 97, 268, 104, 294, 105, 273, 106, 51, 89, 142),
    ),
}


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def available() -> bool:
    """Return whether filters for this machine are known here. Whether the kernel takes one shows when it is set."""
    return kernel.available() and platform.machine() in _MACHINES


def deny_calls(*, sockets: bool) -> None:
    """Deny the calls to this process and its children, for ever; they fail with EPERM.

    Call `kernel.renounce_privileges` before.

    Args:
        sockets: Whether sockets may still be opened.

    Raises:
        OSError: The kernel takes no filter.
    """
    code = _filter(_MACHINES[platform.machine()], sockets=sockets)
    program = _Program(len(code) // 8, code)
    kernel.prctl(_PR_SET_SECCOMP, ctypes.c_ulong(_MODE_FILTER), ctypes.byref(program))


def _filter(machine: _Machine, *, sockets: bool) -> bytes:
    """Assemble the filter. Every test that holds returns at once."""
    denied = [*machine.denied, *_EVERYWHERE.values(), *([] if sockets else [machine.socket])]
    code = [
        _instruction(_LOAD, _ARCHITECTURE),
        _instruction(_EQUAL, machine.audit, then=1),
        _failure(errno.ENOSYS),  # a call of another architecture's binaries, whose numbers mean other things
        _instruction(_LOAD, _NUMBER),
        _instruction(_AT_LEAST, _X32, otherwise=1),
        _failure(errno.ENOSYS),
    ]
    for number in denied:
        code += [_instruction(_EQUAL, number, otherwise=1), _failure(errno.EPERM)]
    # Its arguments lie in memory, which no filter sees: libraries then fall back to clone.
    code += [_instruction(_EQUAL, machine.clone3, otherwise=1), _failure(errno.ENOSYS)]
    code += [
        _instruction(_EQUAL, machine.clone, otherwise=3),
        _instruction(_LOAD, _FIRST_ARGUMENT),
        _instruction(_ANY_BIT, _NEW_USER_NAMESPACE, otherwise=1),
        _failure(errno.EPERM),
    ]
    code.append(_instruction(_RETURN, _ALLOW))
    return b"".join(code)


def _instruction(operation: int, value: int, *, then: int = 0, otherwise: int = 0) -> bytes:
    return struct.pack("=HBBI", operation, then, otherwise, value)


def _failure(number: int) -> bytes:
    return _instruction(_RETURN, _FAIL | number)
