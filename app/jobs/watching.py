"""Waiting for jobs to change: one look at the database, after word of a change, serves all requests of a process that wait.

Every change of a job, each line of its event log among them, raises its version in the same transaction. So whoever has read a
job at a version waits for another one, and misses nothing however late the wait begins.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import sqlalchemy as sa
import structlog
from fastapi.concurrency import run_in_threadpool
from sqlalchemy.exc import SQLAlchemyError

from app.changes import Changes, changes_of
from app.db import Database
from app.ending import Ending
from app.jobs import models
from app.jobs.records import JobEvent
from app.jobs.repository import JobRepository

_jobs = models.jobs

_TICK_S = 0.25  # how often it is looked whether the process ends, and at jobs whose wait has just begun
_GATHER_S = 0.02  # after word of a change, for more of it
_AT_ONCE = 1000  # parameters of a query: databases have a limit

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Followed:
    """What a job's follower reads.

    Attributes:
        events: Lines of the event log.
        version: The job's version, of the same moment; None: the job was deleted.
        has_ended: Whether the job has ended.
    """

    events: Sequence[JobEvent]
    version: int | None
    has_ended: bool


class JobWatcher:
    """Looks for changes of jobs while any request waits for one. Of the event loop: call it from there alone.

    Args:
        database: The database of jobs.
        ending: When all waits end because the process does.
        changes: Where word of changes comes from; None: from the database, as it does best.
    """

    def __init__(self, database: Database, ending: Ending, changes: Changes | None = None) -> None:
        self._database, self._ending = database, ending
        self._changes = changes_of(database) if changes is None else changes
        self._waiting: dict[str, dict[asyncio.Future[None], int]] = {}
        self._looking: asyncio.Task[None] | None = None
        self._heard_of: set[str] = set()  # jobs that wait to be looked at
        self._all = False  # whether all do
        self._word = asyncio.Event()

    def close(self) -> None:
        """End whatever listens for changes."""
        self._changes.close()

    async def changed(self, job_id: str, version: int, *, within_s: float) -> bool:
        """Wait until a job has another version or is gone, or the process is to end. Return False where the time runs out.

        True may come early, such as when the database is away: who waited reads the job, and meets the outage itself.

        Args:
            job_id: Our id of the job.
            version: The version that is known.
            within_s: Longest wait in seconds.
        """
        woken = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(job_id, {})[woken] = version
        self._heard_of.add(job_id)  # it may have changed before this wait began: looked at with the next tick
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look())
        try:
            await asyncio.wait_for(woken, within_s)
        except TimeoutError:
            return False
        else:
            return True
        finally:
            del self._waiting[job_id][woken]
            if not self._waiting[job_id]:
                del self._waiting[job_id]

    async def follow(self, job_id: str, *, after: int, limit: int) -> Followed:
        """Read the event log of a job behind an id, and what is to be waited for when there is nothing in it."""
        return await run_in_threadpool(self._follow, job_id, after, limit)

    def _follow(self, job_id: str, after: int, limit: int) -> Followed:
        with self._database.read() as connection:
            row = connection.execute(sa.select(_jobs.c.version, _jobs.c.finished_at).where(_jobs.c.id == job_id)).one_or_none()
            if row is None:
                return Followed((), None, has_ended=True)
            events = JobRepository(connection).events(job_id, after=after, limit=limit)
            return Followed(events, row.version, row.finished_at is not None)

    def _hear(self, job_id: str | None) -> None:
        if job_id is None:
            self._all = True
        elif job_id in self._waiting:
            self._heard_of.add(job_id)
        else:
            return
        self._word.set()

    async def _look(self) -> None:
        async with self._changes.listening(self._hear):
            looked_at_all = time.monotonic()
            while self._waiting:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(min(_TICK_S, self._changes.pause_s)):
                        await self._word.wait()
                        await asyncio.sleep(_GATHER_S)
                self._word.clear()
                ends = self._ending.has_begun
                if ends or self._all or time.monotonic() - looked_at_all >= self._changes.pause_s:
                    wanted, looked_at_all = list(self._waiting), time.monotonic()
                else:
                    wanted = [job_id for job_id in self._heard_of if job_id in self._waiting]
                self._all = False
                self._heard_of.clear()
                if wanted:
                    self._wake(wanted, None if ends else await self._found(wanted))

    async def _found(self, job_ids: Sequence[str]) -> Mapping[str, int] | None:
        try:
            return await run_in_threadpool(self._versions, job_ids)
        except SQLAlchemyError as error:
            _log.warning("jobs.look_failed", error=type(error).__name__)
            return None

    def _wake(self, job_ids: Sequence[str], found: Mapping[str, int] | None) -> None:
        """Wake who waits for jobs that have another version, or all of them where none was found out."""
        for job_id in job_ids:
            for woken, version in self._waiting.get(job_id, {}).items():
                if (found is None or found.get(job_id) != version) and not woken.done():
                    woken.set_result(None)

    def _versions(self, job_ids: Sequence[str]) -> Mapping[str, int]:
        found: dict[str, int] = {}
        with self._database.read() as connection:
            for start in range(0, len(job_ids), _AT_ONCE):
                some = sa.select(_jobs.c.id, _jobs.c.version).where(_jobs.c.id.in_(job_ids[start : start + _AT_ONCE]))
                found.update((row.id, row.version) for row in connection.execute(some))
        return found
