"""A filter of system calls: no new sockets, and none of the calls that lead out of a sandbox or its job's time.

The filter is the kernel's own (classic BPF, linux/seccomp.h). It names what is denied: the numerical libraries of a job use too
many calls, and too different ones on each GPU, for a list of what is allowed. The one maintained binding, libseccomp's own, is
not on the package index (docs/decisions/0106).
"""

from __future__ import annotations

import ctypes
import errno
import platform
import socket
import struct
from collections.abc import Mapping, Sequence
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


# Numbers on x86-64 and on ARM64 (Linux's own numbering of new architectures).
_DENIED: Mapping[str, tuple[int, int]] = {
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "keyctl": (250, 219),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "open_by_handle_at": (304, 265),
    "name_to_handle_at": (303, 264),
    "unshare": (272, 97),
    "setns": (308, 268),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "chroot": (161, 51),
    "acct": (163, 89),
    "reboot": (169, 142),
    # Whoever leaves the supervisor's group of processes lives on when the job has ended.
    "setsid": (112, 157),
    "setpgid": (109, 154),
    # Memory and queues that outlive their process, and are open to the next one of the same user.
    "shmget": (29, 194),
    "semget": (64, 190),
    "msgget": (68, 186),
    "mq_open": (240, 180),
    # They reach other processes of the same user, such as the supervisor.
    "setpriority": (141, 140),
    "ioprio_set": (251, 30),
    "sched_setscheduler": (144, 119),
    "sched_setparam": (142, 118),
    "sched_setattr": (314, 274),
}
# Names, addresses, and the list of this host's addresses, which resolving a name asks for. No sockets in the file system: a
# database may take who connects there for whom its process belongs to.
_FAMILIES = (socket.AF_INET, socket.AF_INET6, 16)


@dataclass(frozen=True, slots=True)
class _Machine:
    """An architecture as the kernel's audit names it, and the numbers of the calls of which arguments decide."""

    audit: int
    socket: int
    clone: int
    prlimit: int
    denied: tuple[int, ...]
    clone3: int = 435


_MACHINES: Mapping[str, _Machine] = {
    "x86_64": _Machine(0xC000003E, 41, 56, 302, tuple(number for number, _arm in _DENIED.values())),
    "aarch64": _Machine(0xC00000B7, 198, 220, 261, tuple(number for _x86, number in _DENIED.values())),
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
        sockets: Whether sockets of the internet may still be opened.

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
    if sockets:
        code += _only(machine.socket, _FAMILIES)
    code += _only(machine.prlimit, (0,))  # its own limits; those of others would end the supervisor
    code += [
        _instruction(_EQUAL, machine.clone, otherwise=3),
        _instruction(_LOAD, _FIRST_ARGUMENT),
        _instruction(_ANY_BIT, _NEW_USER_NAMESPACE, otherwise=1),
        _failure(errno.EPERM),
    ]
    code.append(_instruction(_RETURN, _ALLOW))
    return b"".join(code)


def _only(number: int, values: Sequence[int]) -> list[bytes]:
    """Let a call pass with some values of its first argument alone. The number is loaded again for what follows."""
    tests = [_instruction(_EQUAL, value, then=len(values) - index) for index, value in enumerate(values)]
    inner = [_instruction(_LOAD, _FIRST_ARGUMENT), *tests, _failure(errno.EPERM), _instruction(_LOAD, _NUMBER)]
    return [_instruction(_EQUAL, number, otherwise=len(inner)), *inner]


def _instruction(operation: int, value: int, *, then: int = 0, otherwise: int = 0) -> bytes:
    return struct.pack("=HBBI", operation, then, otherwise, value)


def _failure(number: int) -> bytes:
    return _instruction(_RETURN, _FAIL | number)
