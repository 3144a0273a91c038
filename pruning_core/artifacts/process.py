"""A process with an end: it has a time limit, is given no input, and leaves neither children nor full pipes behind."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

# A process that is killed may still be in the kernel for a while, such as on a disk that does not answer.
_GONE_S = 30.0


def run_limited(command: Sequence[str], *, cwd: Path, env: Mapping[str, str], log: Path, limit_s: float) -> int | None:
    """Run a command to its end, or to the end of its time.

    It is the head of a process group of its own, which is killed as a whole when time is up or this process is interrupted.
    Output goes to a file, so that nobody has to read it while it runs.

    Args:
        command: Program and arguments.
        cwd: Folder that it runs in.
        env: Its environment.
        log: File for its output and errors.
        limit_s: Seconds that it may take.

    Returns:
        Its exit code, the negative number of the signal that ended it; None where it was stopped for its time.
    """
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=output, stderr=output, process_group=0
        )
        try:
            return process.wait(limit_s)
        except subprocess.TimeoutExpired:
            return None
        finally:
            _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is not None:
        return
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    with suppress(subprocess.TimeoutExpired):
        process.wait(_GONE_S)
