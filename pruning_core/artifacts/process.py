"""Processes with a time limit, which get no input and leave neither children nor full pipes behind."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import IO

# A killed process may stay in the kernel for a while, for example on a disk that does not answer.
_GONE_S = 30.0


def run_limited(command: Sequence[str], *, cwd: Path, env: Mapping[str, str], log: Path, limit_s: float) -> int | None:
    """Run a command to its end, or until its time is up.

    The command leads a process group of its own. The whole group is killed when the time is up or this process is interrupted.
    Output goes to a file, so that nobody has to read it while the command runs.

    Args:
        command: Program and arguments.
        cwd: Working directory.
        env: Environment variables.
        log: File for standard output and standard error.
        limit_s: Seconds that the command may take.

    Returns:
        The exit code, or the negative number of the signal that ended the command; None where the time was up.
    """
    with log.open("wb") as output:
        process = _started(command, cwd=cwd, env=env, output=output)
        try:
            return process.wait(limit_s)
        except subprocess.TimeoutExpired:
            return None
        finally:
            _end(process)


def _started(command: Sequence[str], *, cwd: Path, env: Mapping[str, str], output: IO[bytes]) -> subprocess.Popen[bytes]:
    """Start a command in a group of its own; or in ours, where a sandbox lets nobody leave it, and ends the group itself."""
    start = partial(subprocess.Popen[bytes], command, cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    try:
        return start(process_group=0)
    except PermissionError:
        return start()


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
