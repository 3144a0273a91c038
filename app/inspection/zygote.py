"""The process that inspections are forked from. It has the checks imported, no secret, no network, and reads nothing itself.

Started as ``python -P -m app.inspection.zygote CONTROL_FD``. A message on the control socket is a `Limits`, packed, with two
descriptors: the child's, for the question and its answer, and one to write the child's fate to. It ends when the other side
of the socket is closed, which the kernel does however the API ends.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import selectors
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

from app.inspection.confinement import confine, gain_no_privileges, leave_the_network
from app.inspection.records import Limits

ORDER = struct.Struct("!QQQQ")
FATE = struct.Struct("!i")

_SILENCE_S = 60.0


@dataclass(frozen=True, slots=True)
class _Child:
    """A child under way: where its fate is written, and when it is killed."""

    fate: int
    deadline: float


class _Zygote:
    def __init__(self, control: socket.socket, work: Callable[[socket.socket], None]) -> None:
        self._control = control
        self._work = work
        self._children: dict[int, _Child] = {}
        self._selector = selectors.DefaultSelector()
        self._selector.register(control, selectors.EVENT_READ)
        waker, wakes = socket.socketpair()
        for end in (waker, wakes):
            end.setblocking(False)
        self._waker, self._wakes = waker, wakes
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
        signal.set_wakeup_fd(wakes.fileno(), warn_on_full_buffer=False)
        self._selector.register(waker, selectors.EVENT_READ)

    def serve(self) -> None:
        """Fork a child for each order, until the API is gone."""
        while True:
            for key, _events in self._selector.select(self._next_deadline_s()):
                if key.fileobj is self._control:
                    if not self._order():
                        return
                else:
                    with contextlib.suppress(BlockingIOError):
                        self._waker.recv(4096)
            self._kill_the_late()
            self._reap()

    def _next_deadline_s(self) -> float:
        return min((max(0.0, own.deadline - time.monotonic()) for own in self._children.values()), default=_SILENCE_S)

    def _order(self) -> bool:
        """Take one order. Return whether there was one."""
        message, descriptors, _flags, _address = socket.recv_fds(self._control, ORDER.size, 2)
        if len(message) != ORDER.size or len(descriptors) != 2:
            return False
        limits, (work, fate) = Limits(*ORDER.unpack(message)), descriptors
        parent = os.getpid()
        try:
            pid = os.fork()
        except OSError:  # no memory, or too many processes: the API sees that nobody answers
            os.close(work)
            os.close(fate)
            return True
        if pid == 0:
            self._become_a_child(work, fate, limits, parent)
        os.close(work)
        self._children[pid] = _Child(fate, time.monotonic() + limits.wall_s)
        return True

    def _become_a_child(self, work: int, fate: int, limits: Limits, parent: int) -> None:
        """Inspect, and end: this never returns."""
        code = 1
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for descriptor in (self._control.fileno(), self._waker.fileno(), self._wakes.fileno(), fate):
                os.close(descriptor)
            for other in self._children.values():
                os.close(other.fate)
            if confine(limits, parent):
                with socket.socket(fileno=work) as connection:
                    self._work(connection)
                code = 0
        finally:
            os._exit(code)

    def _kill_the_late(self) -> None:
        for pid, own in self._children.items():
            if own.deadline <= time.monotonic():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def _reap(self) -> None:
        for pid in list(self._children):
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                fate = self._children.pop(pid).fate
                with contextlib.suppress(OSError):  # whoever asked has gone
                    os.write(fate, FATE.pack(os.waitstatus_to_exitcode(status)))
                os.close(fate)


def main(arguments: list[str]) -> int:
    """Serve the API whose end of the control socket is the other one."""
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    leave_the_network()
    gain_no_privileges()
    # Imported once, here, and shared by every child. The rest of the API's code is not needed, and its settings neither.
    from app.inspection.work import answer_to
    from pruning_core.checks.declared import NAMES, declared

    with contextlib.suppress(ImportError):  # without it, what only it can read is not looked at
        for module in ("pyarrow.ipc", "pyarrow.parquet"):
            importlib.import_module(module)
    for name in NAMES:  # or each child would parse them again
        declared(name)
    gc.collect()
    gc.freeze()
    with socket.socket(fileno=int(arguments[0])) as control:
        _Zygote(control, answer_to).serve()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
