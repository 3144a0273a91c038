"""Processes with a time limit, which get no input and leave neither children nor full pipes behind."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import IO, Self

# A killed process may stay in the kernel for a while, for example on a disk that does not answer.
_GONE_S = 30.0
_SHORTEST_PAUSE_S, _LONGEST_PAUSE_S = 0.005, 0.2
_LOOK_S = 0.5
_LIMITED = 'ulimit -S -d "$0" 2>/dev/null; exec "$@"'


def _nothing() -> None:
    pass


def run_limited(
    command: Sequence[str],
    *,
    cwd: Path,
    env: Mapping[str, str],
    log: Path,
    limit_s: float,
    memory_bytes: int | None = None,
    meanwhile: Callable[[], None] = _nothing,
) -> int | None:
    """Run a command to its end, or until its time is up.

    The command leads a process group of its own. The whole group is killed when the command has ended, the time is up or this
    process is interrupted. Output goes to a file, so that nobody has to read it while the command runs.

    Args:
        command: Program and arguments.
        cwd: Working directory.
        env: Environment variables.
        log: File for standard output and standard error.
        limit_s: Seconds that the command may take.
        memory_bytes: Memory that it may allocate; None: as much as this process.
        meanwhile: Called again and again while it runs.

    Returns:
        The exit code, or the negative number of the signal that ended the command; None where the time was up.
    """
    with Running(command, cwd=cwd, env=env, log=log, memory_bytes=memory_bytes) as process:
        return process.wait(limit_s, meanwhile)


class Running:
    """A command that runs until it ends or the context does: see `run_limited`."""

    def __init__(
        self, command: Sequence[str], *, cwd: Path, env: Mapping[str, str], log: Path, memory_bytes: int | None = None
    ) -> None:
        """Start it. The arguments are those of `run_limited`."""
        # By a shell: where a filter of system calls holds, none sets the limits of another process.
        if memory_bytes is not None:
            command = ["/bin/sh", "-c", _LIMITED, str(memory_bytes // 1024), *command]
        with log.open("wb") as output:
            self._process = _started(command, cwd=cwd, env=env, output=output)

    @property
    def runs(self) -> bool:
        """Whether it has not ended yet."""
        return self._process.returncode is None and not _ends(self._process, 0.0)

    def wait(self, limit_s: float, meanwhile: Callable[[], None] = _nothing) -> int | None:
        """Wait for its end, and kill what it leaves behind.

        Args:
            limit_s: The longest time.
            meanwhile: Called again and again until then.

        Returns:
            The exit code, or the negative number of the signal that ended the command; None where the time was up.
        """
        until = time.monotonic() + limit_s
        while not _ends(self._process, min(_LOOK_S, max(0.0, until - time.monotonic()))):
            if time.monotonic() >= until:
                return None
            meanwhile()
        return _reaped(self._process)

    def __enter__(self) -> Self:
        """Leave it running."""
        return self

    def __exit__(self, *_error: object) -> None:
        """Kill its group."""
        _end(self._process)


def _started(command: Sequence[str], *, cwd: Path, env: Mapping[str, str], output: IO[bytes]) -> subprocess.Popen[bytes]:
    """Start a command in a group of its own; or in ours, where a sandbox lets nobody leave it, and ends the group itself."""
    start = partial(subprocess.Popen[bytes], command, cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    try:
        return start(process_group=0)
    except PermissionError:
        return start()


def _ends(process: subprocess.Popen[bytes], limit_s: float) -> bool:
    """Wait until a process has ended, and leave it unreaped: until then, no other process gets its number, nor its group's."""
    if not hasattr(os, "waitid"):
        with suppress(subprocess.TimeoutExpired):
            process.wait(limit_s)
        return process.poll() is not None
    until, pause = time.monotonic() + limit_s, _SHORTEST_PAUSE_S
    while os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is None:
        left = until - time.monotonic()
        if left <= 0:
            return False
        time.sleep(min(pause, left))
        pause = min(2 * pause, _LONGEST_PAUSE_S)
    return True


def _reaped(process: subprocess.Popen[bytes]) -> int:
    """Kill what an ended process has left in its group, and return its exit code."""
    with suppress(ProcessLookupError, PermissionError):
        if process.returncode is None and os.getpgid(process.pid) == process.pid:
            os.killpg(process.pid, signal.SIGKILL)
    return process.wait()


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is not None:
        return
    with suppress(ProcessLookupError):
        if os.getpgid(process.pid) == process.pid:
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
    with suppress(subprocess.TimeoutExpired):
        process.wait(_GONE_S)
