"""What is told of an attempt to the job's owner: when its stages began, and what its process printed.

The process has read a stranger's files, and what it prints is shown to people of the same tenant. So it is bounded, has no
signs that a terminal or a browser would obey, and tells no places of this host: paths are shown by their last part unless they
lie under the folders that jobs may name, and tracebacks stay in the worker's own log.
"""

from __future__ import annotations

import re
import threading
from collections import deque
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType

import structlog
from sqlalchemy.exc import SQLAlchemyError

from app.db import Database
from app.jobs.outputs import MOST_CHARACTERS, AttemptOutput, OutputRepository
from app.jobs.records import Claim
from app.logs import first_line

_log = structlog.get_logger(__name__)

_WRITE_EVERY_S = 3.0
_LONGEST_LINE = 1000
_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\-_])")
_OBEYED = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_PATH = re.compile(r"(?<![\w/.:])/(?:[^\s/'\"`,;:()\[\]<>]+/)+[^\s/'\"`,;:()\[\]<>]*")
_TRACEBACK = "Traceback (most recent call last)"


class Output:
    """The output of one attempt, written down every few seconds while the context is open, and at its end.

    Args:
        database: The database.
        claim: The claim of the job.
        roots: Folders that jobs may name, whose paths their owners know.
    """

    def __init__(self, database: Database, claim: Claim, roots: Sequence[Path]) -> None:
        self._database, self._claim = database, claim
        self._roots = tuple(f"{root}/" for root in roots)
        self._lines: deque[str] = deque()
        self._size, self._is_new, self._in_traceback = 0, False, False
        self._lock, self._closing = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._write_now_and_then, name="output", daemon=True)

    def __enter__(self) -> Output:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._closing.set()
        self._thread.join()
        self._write()

    def say(self, text: str) -> None:
        """Add a line of ours, with the time."""
        self._add(f"{datetime.now(UTC):%H:%M:%S} {text}")

    def printed(self, text: str) -> None:
        """Add a line that the process printed, as far as it may be shown."""
        shown = self._tidied(text)
        if shown is not None:
            self._add(f"         {shown}")

    def _tidied(self, text: str) -> str | None:
        """Return a line as it may be shown; None for what may not."""
        text = text.rstrip("\r\n").rpartition("\r")[2]  # of a bar that was drawn again and again, the last state
        text = _OBEYED.sub("\N{REPLACEMENT CHARACTER}", _ESCAPES.sub("", text))[:_LONGEST_LINE].rstrip()
        if text.startswith(_TRACEBACK):
            self._in_traceback = True
            return "(a traceback, which is in the worker's log)"
        if self._in_traceback and text.startswith(" "):
            return None
        self._in_traceback = False
        return _PATH.sub(self._place, text) or None

    def _place(self, found: re.Match[str]) -> str:
        path = found[0]
        return path if path.startswith(self._roots) and "/.." not in path else f"…/{path.rstrip('/').rpartition('/')[2]}"

    def _add(self, line: str) -> None:
        with self._lock:
            self._lines.append(line)
            self._size += len(line) + 1
            while self._size > MOST_CHARACTERS:
                self._size -= len(self._lines.popleft()) + 1
            self._is_new = True

    def _write_now_and_then(self) -> None:
        while not self._closing.wait(_WRITE_EVERY_S):
            self._write()

    def _write(self) -> None:
        """Put down what is new. It is of less weight than the job: where the database does not take it, it waits."""
        with self._lock:
            if not self._is_new:
                return
            self._is_new, text = False, "\n".join(self._lines)
        claim = self._claim
        try:
            with self._database.write() as connection:
                OutputRepository(connection).write(claim.job_id, claim.fence, AttemptOutput(claim.attempt, text))
        except SQLAlchemyError as error:
            _log.warning("output.not_written", error=type(error).__name__, reason=first_line(error))
            with self._lock:
                self._is_new = True
