"""The zygote as the API sees it: started when it is needed, started again when it has died, gone with the API."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import threading
from dataclasses import astuple
from pathlib import Path

import structlog

from app.inspection.records import Limits
from app.inspection.zygote import ORDER

_log = structlog.get_logger(__name__)

# Where Python and its libraries are, and which letters paths have. No setting of the service, no key of anybody's.
_ENVIRONMENT = ("PATH", "PYTHONHOME", "LD_LIBRARY_PATH", "LANG", "LC_ALL", "LC_CTYPE", "PYTHONUTF8")
# Libraries of Parquet and numbers start no thread in a process that forks, and take memory as its limits count it.
_WITHOUT_THREADS = {
    "ARROW_DEFAULT_MEMORY_POOL": "system",
    "JE_ARROW_MALLOC_CONF": "background_thread:false",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}
# -P: the current folder is not searched, where a folder `app` need not be ours.
_COMMAND = (sys.executable, "-P", "-m", "app.inspection.zygote")
_END_S = 5


# The code that is imported there is the code that runs here, however it was found.
_HOME = str(Path(__file__).resolve().parents[2])


class Zygote:
    """The process that inspections are forked from. Safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None

    @property
    def pid(self) -> int | None:
        """The process's id; None where there is none yet."""
        return None if self._process is None else self._process.pid

    def start(self) -> None:
        """Start the process, unless it runs. It may still be importing when this returns."""
        with self._lock:
            self._running()

    def order(self, limits: Limits, work: socket.socket, fate: int) -> None:
        """Have a child forked.

        Args:
            limits: What the child may use.
            work: The child's end of the socket for the question and its answer.
            fate: Descriptor to which the child's exit code is written.

        Raises:
            OSError: The process cannot be started.
        """
        message, descriptors = ORDER.pack(*astuple(limits)), [work.fileno(), fate]
        with self._lock:
            try:
                socket.send_fds(self._running(), [message], descriptors)
            except OSError:
                self._end()
                socket.send_fds(self._running(), [message], descriptors)

    def close(self) -> None:
        """End the process, and with it every inspection that is under way."""
        with self._lock:
            self._end()

    def _running(self) -> socket.socket:
        if self._process is not None and self._process.poll() is not None:
            _log.warning("inspection.zygote_died", code=self._process.returncode)
            self._end()
        if self._control is None:
            ours, theirs = socket.socketpair()
            with theirs:
                self._process = subprocess.Popen(
                    [*_COMMAND, str(theirs.fileno())],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    env=_environment(),
                    cwd="/",
                    pass_fds=(theirs.fileno(),),
                    start_new_session=True,  # Ctrl-C is for the API, which ends this process
                )
            ours.settimeout(_END_S)
            self._control = ours
        return self._control

    def _end(self) -> None:
        control, process = self._control, self._process
        self._control = self._process = None
        if control is not None:
            control.close()
        if process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_END_S)
            if process.poll() is None:
                process.kill()
                process.wait()


def _environment() -> dict[str, str]:
    found = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
    return _WITHOUT_THREADS | found | {"PYTHONPATH": os.pathsep.join(filter(None, [_HOME, os.environ.get("PYTHONPATH", "")]))}
