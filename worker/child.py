"""A process of a job as the supervisor sees it: started in a group of its own, watched, stopped as a group."""

from __future__ import annotations

import contextlib
import contextvars
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import structlog
from pydantic import ValidationError

from pruning_core.report.progress import Progress
from worker.sandbox.bubblewrap import ended_as
from worker.sandbox.plan import Launch

_log = structlog.get_logger(__name__)

# -P: a folder `worker` in the current directory must not be imported in place of ours.
CHILD_COMMAND = (sys.executable, "-P", "-m", "worker.runner")
FETCH_COMMAND = (sys.executable, "-P", "-m", "worker.fetch")

# No honest line of progress is nearly as long.
_LONGEST_LINE = 4096
_MOST_LOGGED = 2**20


class Child:
    """One running process.

    Args:
        command: The interpreter and module, without arguments.
        scratch: Folder with its request.
        launch: How it is started.
        on_progress: Called from a thread for every progress line.
        on_line: Called from a thread for every line that is logged of what it prints.
    """

    def __init__(
        self,
        command: Sequence[str],
        scratch: Path,
        launch: Launch,
        on_progress: Callable[[Progress], None],
        on_line: Callable[[str], None] = lambda _line: None,
    ) -> None:
        (reader, writer), (output, log) = os.pipe(), os.pipe()
        try:
            self._process = subprocess.Popen(
                [*launch.prefix, *command, str(scratch), str(writer), str(os.getpid())],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=launch.environment,
                cwd=launch.folder,
                start_new_session=True,
                pass_fds=(writer,),
            )
        except BaseException:
            os.close(reader)
            os.close(output)
            raise
        finally:
            os.close(writer)
            os.close(log)
        self._is_wrapped = bool(launch.prefix)
        self.pid = self._process.pid
        # The threads' log lines then have the job's id, which is bound to the present context.
        context = contextvars.copy_context()
        self._readers = (
            threading.Thread(target=_read_lines, args=(reader, on_progress), daemon=True),
            threading.Thread(target=context.run, args=(_log_lines, output, on_line), daemon=True),
        )
        for thread in self._readers:
            thread.start()

    def wait(self, timeout_s: float) -> int | None:
        """Wait for the end. Return the exit code (negative: the signal that killed it), or None while the child runs."""
        try:
            code = self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None
        return ended_as(code) if self._is_wrapped else code

    def stop(self, grace_s: float) -> None:
        """End the whole process group: TERM, a grace period, KILL. Returns once the child is gone."""
        self._signal(signal.SIGTERM)
        if self.wait(grace_s) is None:
            self._signal(signal.SIGKILL)
            self._process.wait()
        self.close()

    def close(self) -> None:
        """Clear up behind a child that has ended: nothing that it started stays alive."""
        self._signal(signal.SIGKILL)
        for thread in self._readers:
            thread.join(timeout=5)

    def _signal(self, number: signal.Signals) -> None:
        # The group's id is the child's pid, which is not reused while any member of the group lives.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)


def _read_lines(descriptor: int, on_progress: Callable[[Progress], None]) -> None:
    with os.fdopen(descriptor, "rb") as lines:
        while line := lines.readline(_LONGEST_LINE):
            # Ignore a line that the child's death has cut short, and the pieces of one that is too long.
            with contextlib.suppress(ValidationError):
                on_progress(Progress.model_validate_json(line))


def _log_lines(descriptor: int, on_line: Callable[[str], None]) -> None:
    """Log what a child prints, as lines of its own that cannot pass for others, and not for ever.

    The log itself is not given to it: it could empty the file, read what others have written, and command the terminal.
    """
    left = _MOST_LOGGED
    with os.fdopen(descriptor, "rb") as lines:
        while line := lines.readline(_LONGEST_LINE):
            if left > 0:
                text = line.decode("utf-8", "backslashreplace").rstrip()
                _log.info("job.output", text=text)
                on_line(text)
                left -= len(line)
                if left <= 0:
                    _log.warning("job.output_too_long", logged_bytes=_MOST_LOGGED)
