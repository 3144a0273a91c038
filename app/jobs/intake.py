"""Group commit of submits: those that wait at the same moment share a transaction, and its wait for the disk.

Each is durable before its answer, as if it had had a transaction of its own. A limit, a name that is taken or an error of one
of them leaves the others alone: what can be known before anything is written is checked for each, and where writing them
together fails, each is written by itself.

SQLite has one writer, so there all that wait go together. On PostgreSQL those of one tenant do, who take turns anyway: nobody
waits for a lock on another tenant.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import sqlalchemy as sa
import structlog
from fastapi.concurrency import run_in_threadpool

from app.audit.records import Action
from app.audit.repository import AuditRepository
from app.db import OUTAGES, Database
from app.jobs.arrivals import ArrivalRepository, KeyUse, NewJob
from app.jobs.places import Place, PlaceRepository
from app.jobs.records import Job
from app.jobs.repository import JobRepository
from app.logs import first_line
from app.queue import Announcer
from app.refusals import QuotaExceeded, RequestError
from app.settings import Settings
from app.tenants.repository import TenantRepository

_MOST_TOGETHER = 64

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Arrival:
    """A job that is to be queued, whose key sent it, and the idempotency key that it is to be found by."""

    new: NewJob
    key_id: str
    key_use: KeyUse | None = None


@dataclass(frozen=True, slots=True)
class Queued:
    """A job that was queued, and its place; None where that could not be read any more."""

    job: Job
    place: Place | None


@dataclass(frozen=True, slots=True)
class _Written:
    """A job that was written, and the pools of workers of which one is to be woken."""

    job: Job
    pools: Sequence[str | None]


@dataclass(slots=True)
class _Lane:
    """Submits that wait to be written together."""

    waiting: list[tuple[Arrival, asyncio.Future[Queued]]] = field(
        default_factory=list[tuple[Arrival, "asyncio.Future[Queued]"]]
    )
    writing: asyncio.Task[None] | None = None


class Intake:
    """Writes jobs into the queue. Of the event loop: call it from there alone.

    Args:
        settings: Limits.
        database: The database.
        announcer: Wakes workers.
    """

    def __init__(self, settings: Settings, database: Database, announcer: Announcer) -> None:
        self._settings, self._database, self._announcer = settings, database, announcer
        self._lanes: defaultdict[str, _Lane] = defaultdict(_Lane)

    async def queue(self, arrival: Arrival) -> Queued:
        """Queue a job. It is in the database when this returns, and a worker is about to be woken.

        Raises:
            QuotaExceeded: Too many of the owner's jobs wait already.
            Conflict: The owner is being deleted.
            IntegrityError: The job's name, or its idempotency key, has another job by now.
        """
        name = "" if self._database.is_sqlite else arrival.new.owner
        lane = self._lanes[name]
        told = asyncio.get_running_loop().create_future()
        lane.waiting.append((arrival, told))
        if lane.writing is None:
            # Of no request's context: its logs would carry the id of whichever came first.
            lane.writing = asyncio.create_task(self._write_all(name, lane), context=contextvars.Context())
        return await told

    async def _write_all(self, name: str, lane: _Lane) -> None:
        """Write what waits, until nothing does."""
        try:
            while lane.waiting:
                together, lane.waiting = lane.waiting[:_MOST_TOGETHER], lane.waiting[_MOST_TOGETHER:]
                arrivals = [arrival for arrival, _told in together]
                outcomes: list[Queued | Exception]
                try:
                    outcomes = await run_in_threadpool(self._outcomes, arrivals)
                except Exception as error:  # no thread could be had
                    outcomes = [error for _ in arrivals]
                for (_arrival, told), outcome in zip(together, outcomes, strict=True):
                    if told.done():  # whoever asked has gone
                        continue
                    if isinstance(outcome, Exception):
                        told.set_exception(outcome)
                    else:
                        told.set_result(outcome)
        finally:
            del self._lanes[name]

    def _outcomes(self, arrivals: Sequence[Arrival]) -> list[Queued | Exception]:
        """Write some jobs, have workers woken, and find the places. Never raises."""
        written = self._write(arrivals)
        try:
            places = self._places([own.job for own in written if isinstance(own, _Written)])
        except Exception as error:  # they are queued all the same
            _log.error("jobs.places_unknown", error=type(error).__name__, reason=first_line(error))
            places = {}
        return [own if isinstance(own, Exception) else Queued(own.job, places.get(own.job.id)) for own in written]

    def _write(self, arrivals: Sequence[Arrival]) -> list[_Written | Exception]:
        """Write some jobs, together if that goes. Never raises."""
        try:
            written = self._write_together(arrivals)
        except OUTAGES as error:  # as it would be for each of them
            return [error for _ in arrivals]
        except Exception as error:  # the fault of one of them
            if len(arrivals) == 1:
                return [error]
            _log.info("jobs.written_apart", jobs=len(arrivals), error=type(error).__name__, reason=first_line(error))
            return [outcome for arrival in arrivals for outcome in self._write([arrival])]
        for own in written:
            if isinstance(own, _Written):
                for pool in own.pools:
                    self._announcer.announce(own.job.id, pool)
        return written

    def _write_together(self, arrivals: Sequence[Arrival]) -> list[_Written | Exception]:
        """Write some jobs in one transaction. Raise where it fails as a whole; nothing is written then."""
        with self._database.write() as connection:
            gate = _Gate(self._settings, connection)
            gates = [gate.admit(arrival.new) for arrival in arrivals]
            admitted = [own for own, pools in zip(arrivals, gates, strict=True) if not isinstance(pools, Exception)]
            jobs: dict[str, Job] = {}
            if admitted:
                repository = ArrivalRepository(connection)
                jobs = {job.id: job for job in repository.insert([own.new for own in admitted])}
                if uses := [own.key_use for own in admitted if own.key_use is not None]:
                    repository.remember(uses)
                submitted = [(own.new.owner, own.key_id, own.new.id) for own in admitted]
                AuditRepository(connection).record_all(Action.JOB_SUBMITTED, submitted)
        return [
            pools if isinstance(pools, Exception) else _Written(jobs[own.new.id], pools)
            for own, pools in zip(arrivals, gates, strict=True)
        ]

    def _places(self, jobs: Sequence[Job]) -> Mapping[str, Place]:
        """Find the places of jobs that were queued just now."""
        if not jobs:
            return {}
        with self._database.read() as connection:
            places = PlaceRepository(connection).places(
                jobs, seen_within_s=self._settings.worker_gone_s, max_running=self._settings.max_running_jobs, are_new=True
            )
        return dict(zip((job.id for job in jobs), places, strict=True))


class _Gate:
    """What bounds a tenant's jobs, for those that are about to be written in one transaction."""

    def __init__(self, settings: Settings, connection: sa.Connection) -> None:
        self._settings = settings
        self._jobs, self._places, self._tenants = (
            JobRepository(connection),
            PlaceRepository(connection),
            TenantRepository(connection),
        )
        self._waiting: dict[str, int] = {}
        self._queues: defaultdict[str, set[str]] = defaultdict(set)

    def admit(self, new: NewJob) -> Sequence[str | None] | RequestError:
        """Count a job in, and return the pools of workers of which one is to be woken; or return why it is refused."""
        try:
            return self._pools(new)
        except RequestError as error:
            return error

    def _pools(self, new: NewJob) -> Sequence[str | None]:
        owner, most = new.owner, self._settings.max_queued_jobs
        if owner not in self._waiting:
            waiting = self._jobs.waiting(owner, most)
            self._tenants.require_open(owner)
            self._waiting[owner] = waiting
        if self._waiting[owner] >= most:
            raise too_many_wait(most)
        pools = self._places.pools_for(new.needs, owner, seen_within_s=self._settings.worker_gone_s, also=self._queues[owner])
        self._queues[owner].add(new.needs.queue)
        self._waiting[owner] += 1
        return pools


def too_many_wait(most: int) -> QuotaExceeded:
    """Return the refusal of a job whose owner has as many waiting as the server takes."""
    message = f"{most} of your jobs are waiting, which is as many as this server takes; try again when some have begun"
    return QuotaExceeded("quota_exceeded", message)
