"""Word that jobs have changed, in whatever process: who waits for a change need not ask the database over and over.

On PostgreSQL a trigger of the table of jobs notifies of each change of a job's version (migration 0016), as part of the
transaction that makes it; one connection of each process listens. Where it is lost, or nothing is heard through it (PgBouncer
in transaction mode, which a probe finds out), the old way stands in: a look every quarter of a second.

On SQLite every commit of any process writes to the file of its log: a look at the file's size and time costs no query.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast
from uuid import uuid4

import sqlalchemy as sa
import structlog
from sqlalchemy.exc import SQLAlchemyError

from app.db import Database
from app.logs import first_line

if TYPE_CHECKING:
    import psycopg  # an extra: the local profile does without

CHANNEL = "coppice_jobs"  # as the trigger names it

# Longest time between two looks at everything: while nothing can be heard of changes, and while it can.
_POLL_S, _GUARD_S = 0.25, 5.0
_FILE_EVERY_S = 0.02
_PROBE = "probe "
_PROBE_EVERY_S, _PROBE_PATIENCE_S = 30.0, 3.0
_TICK_S = 0.5
_RETRY_S, _RETRY_DEAF_S = 2.0, 60.0
_LINGER_S = 30.0  # a connection that nobody needs is kept for so long

_log = structlog.get_logger(__name__)

# Called in the event loop with the id of a job that has changed; None: any may have.
Heard = Callable[[str | None], None]


class Changes(Protocol):
    """Where word comes from."""

    @property
    def pause_s(self) -> float:
        """Seconds after which who waits should look without a word."""
        ...

    def listening(self, heard: Heard) -> contextlib.AbstractAsyncContextManager[None]:
        """Pass on what is heard while the context lasts."""
        ...

    def close(self) -> None:
        """End."""
        ...


def changes_of(database: Database) -> Changes:
    """Return where word of a database's changes comes from."""
    if database.is_sqlite:
        return _OfFile(Path(database.url.database or ""))
    return _OfNotifications(database) if database.can_listen else _Unheard()


class _Unheard:
    """No word: who waits looks every quarter of a second."""

    pause_s = _POLL_S

    @asynccontextmanager
    async def listening(self, heard: Heard) -> AsyncGenerator[None]:
        del heard
        yield

    def close(self) -> None:
        """Nothing is kept open."""


class _OfFile:
    """Changes of a SQLite database, by the file that every commit writes to.

    Args:
        database: Path of the database.
    """

    pause_s = 1.0  # a commit within one tick of the file system's clock may not show

    def __init__(self, database: Path) -> None:
        self._files = (database.with_name(f"{database.name}-wal"), database)

    @asynccontextmanager
    async def listening(self, heard: Heard) -> AsyncGenerator[None]:
        task = asyncio.create_task(self._watch(heard))
        try:
            yield
        finally:
            task.cancel()

    def close(self) -> None:
        """Nothing is kept open."""

    async def _watch(self, heard: Heard) -> None:
        known = self._state()
        while True:
            await asyncio.sleep(_FILE_EVERY_S)
            state = self._state()
            if state != known:
                known = state
                heard(None)

    def _state(self) -> list[tuple[int, int] | None]:
        return [_size_and_time(file) for file in self._files]


def _size_and_time(file: Path) -> tuple[int, int] | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns


class _OfNotifications:
    """Changes of a PostgreSQL database, by LISTEN on a connection of its own, in a thread.

    Args:
        database: The database.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._tell: tuple[asyncio.AbstractEventLoop, Heard] | None = None
        self._unneeded_since = time.monotonic()
        self._closing = threading.Event()
        self.hears = False

    @property
    def pause_s(self) -> float:
        return _GUARD_S if self.hears else _POLL_S

    @asynccontextmanager
    async def listening(self, heard: Heard) -> AsyncGenerator[None]:
        with self._lock:
            self._tell = (asyncio.get_running_loop(), heard)
            if self._thread is None and not self._closing.is_set():
                self._thread = threading.Thread(target=self._run, name="changes", daemon=True)
                self._thread.start()
        try:
            yield
        finally:
            with self._lock:
                self._tell, self._unneeded_since = None, time.monotonic()

    def close(self) -> None:
        self._closing.set()
        thread = self._thread
        if thread is not None:
            thread.join(2 * _TICK_S + _PROBE_PATIENCE_S)

    def _run(self) -> None:
        while not self._is_over():
            retry_s = _RETRY_S
            try:
                self._listen()
            except _Deaf:
                retry_s = _RETRY_DEAF_S
                _log.warning("changes.deaf", reason="notifications do not come through; is PgBouncer in transaction mode?")
            except (self._database.driver_error, SQLAlchemyError) as error:
                _log.warning("changes.connection_lost", error=type(error).__name__, reason=first_line(error))
            except Exception:
                _log.exception("changes.failed")
            self.hears = False
            self._say(None)  # what was not heard meanwhile
            until = time.monotonic() + retry_s
            while time.monotonic() < until and not self._is_over():
                self._closing.wait(_TICK_S)

    def _is_over(self) -> bool:
        """Return whether the thread is to end; it is forgotten then, and another one is started when somebody listens."""
        with self._lock:
            idle = self._tell is None and time.monotonic() - self._unneeded_since > _LINGER_S
            if idle or self._closing.is_set():
                self._thread = None
                return True
            return False

    def _listen(self) -> None:
        """Listen until the connection is lost, or nobody needs it. Raise `_Deaf` where nothing comes through."""
        pooled = self._database.engine.raw_connection()
        connection = cast("psycopg.Connection[Any]", pooled.driver_connection)
        pooled.detach()  # it is this thread's alone, and leaves its place in the pool to others
        with contextlib.closing(pooled):
            connection.autocommit = True
            connection.execute(f"LISTEN {CHANNEL}")
            probe, probed_at, answered = self._probe(), time.monotonic(), False
            while not self._wanted_no_more():
                for note in connection.notifies(timeout=_TICK_S):
                    if note.payload == probe:
                        answered = self.hears = True
                    elif not note.payload.startswith(_PROBE):
                        self._say(note.payload)
                passed_s = time.monotonic() - probed_at
                if not answered and passed_s > _PROBE_PATIENCE_S:
                    raise _Deaf
                if passed_s > _PROBE_EVERY_S:
                    probe, probed_at, answered = self._probe(), time.monotonic(), False

    def _wanted_no_more(self) -> bool:
        with self._lock:
            idle = self._tell is None and time.monotonic() - self._unneeded_since > _LINGER_S
            return idle or self._closing.is_set()

    def _probe(self) -> str:
        """Notify ourselves by another connection."""
        word = f"{_PROBE}{uuid4().hex}"
        with self._database.write() as connection:
            connection.execute(sa.select(sa.func.pg_notify(CHANNEL, word)))
        return word

    def _say(self, job_id: str | None) -> None:
        with self._lock:
            tell = self._tell
        if tell is not None:
            loop, heard = tell
            with contextlib.suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(heard, job_id)


class _Deaf(Exception):
    """Nothing that is notified comes through the connection."""
