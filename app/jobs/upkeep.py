"""Upkeep of jobs, for the reaper: lost jobs, lost wake-ups, expiry, deletion. Safe to run twice at once.

Every statement takes a bounded number of rows, and only the database's clock is used.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import assert_never

import sqlalchemy as sa

from app.db import dialect_of, now
from app.jobs import models
from app.jobs.leases import LeaseRepository
from app.jobs.needs import Abilities
from app.jobs.records import JobError
from app.jobs.states import ACTIVE, TERMINAL, JobStatus

_jobs, _artifacts, _keys, _workers = models.jobs, models.artifacts, models.idempotency_keys, models.workers

LOST = JobError("lost", "the worker was lost more often than allowed; see the operator's logs, then submit the job again")

_BATCH = 200
_FORGET_WORKERS_S = 24 * 3600
_MOST_DOUBLINGS = 6


@dataclass(frozen=True, slots=True)
class Taken:
    """A job that was taken from a worker whose lease had run out."""

    job_id: str
    fence: int
    status: JobStatus  # the status after the take-over


class UpkeepRepository:
    """Statements within one transaction of the caller's."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection

    def clock(self) -> float:
        """Read the database's clock."""
        return self._connection.execute(sa.select(now())).scalar_one()

    def sign_in(self, worker: str, abilities: Abilities | None = None) -> float:
        """Record that a worker is alive, and return the database's clock. It writes, so it fails where workers cannot renew."""
        clock = self.clock()
        now_ = {"seen_at": clock, "serves": None if abilities is None else abilities.model_dump(mode="json")}
        seen = _workers.update().where(_workers.c.name == worker).values(now_)
        if self._connection.execute(seen).rowcount == 0:
            self._connection.execute(_workers.insert().values(name=worker, started_at=clock, **now_))
            self._connection.execute(_workers.delete().where(_workers.c.seen_at < clock - _FORGET_WORKERS_S))
        return clock

    def set_right(self, *, lease_s: float, longest_pause_s: float) -> int:
        """Bring back moments that lie further ahead than they can: the database's clock was put back since they were written.

        Returns:
            How many jobs were concerned.
        """
        limits = (
            (ACTIVE, _jobs.c.lease_until, 2 * lease_s, now() + lease_s),
            ({JobStatus.QUEUED}, _jobs.c.not_before, longest_pause_s + lease_s, now()),
            ({JobStatus.QUEUED}, _jobs.c.published_at, lease_s, now()),
        )
        return sum(
            self._connection.execute(
                _jobs.update().where(_jobs.c.status.in_(sorted(statuses)), column > now() + ahead_s).values({column: moment})
            ).rowcount
            for statuses, column, ahead_s, moment in limits
        )

    def reap(self, *, max_attempts: int) -> list[Taken]:
        """Take jobs from workers whose lease has run out.

        A running one is queued again, or failed as `lost` at the cap; one being cancelled is cancelled. The guard on the fence
        makes it safe to run twice at once.
        """
        leases = LeaseRepository(self._connection)
        expired = (
            sa.select(_jobs.c.id, _jobs.c.fence, _jobs.c.max_attempts)
            .where(_jobs.c.status.in_(sorted(ACTIVE)), _jobs.c.lease_until < now())
            .order_by(_jobs.c.lease_until)
            .limit(_BATCH)
            .with_for_update(skip_locked=True)
        )
        taken: list[Taken] = []
        for row in self._connection.execute(expired).all():
            most = max_attempts if row.max_attempts is None else min(row.max_attempts, max_attempts)
            became = leases.lost(row.id, row.fence, error=LOST, max_attempts=most)
            if became is not None:
                taken.append(Taken(row.id, row.fence, became))
        return taken

    def due_for_publish(
        self, *, older_than_s: float, limit: int, patient: bool = True, queues: Collection[str] | None = None
    ) -> list[str]:
        """Choose queued jobs whose wake-up seems lost, and count this one.

        Args:
            older_than_s: Seconds that a wake-up may take; they double with each wake-up, up to 64-fold.
            limit: Largest number of jobs.
            patient: False where the broker holds no message at all: then the wait does not double.
            queues: The queues, by needs, of which to choose; None: all.
        """
        among = [] if queues is None else [_jobs.c.queue.in_(queues)]
        doublings = sa.case((_jobs.c.publish_count > _MOST_DOUBLINGS, _MOST_DOUBLINGS), else_=_jobs.c.publish_count)
        wait_s = older_than_s * self._power_of_two(doublings) if patient else sa.literal(older_than_s)
        due = (
            sa.select(_jobs.c.id)
            .where(
                _jobs.c.status == str(JobStatus.QUEUED),
                _jobs.c.not_before <= now(),
                *among,
                sa.or_(_jobs.c.published_at.is_(None), _jobs.c.published_at + wait_s < now()),
            )
            # In no order but that of an index: a message says that there is work, and the claim chooses.
            .order_by(_jobs.c.rank, _jobs.c.owner, _jobs.c.queue, _jobs.c.priority.desc(), _jobs.c.created_at, _jobs.c.id)
            .limit(limit)
            .with_for_update(skip_locked=True)
        )
        ids = list(self._connection.scalars(due))
        if ids:
            self._connection.execute(
                _jobs.update().where(_jobs.c.id.in_(ids)).values(published_at=now(), publish_count=_jobs.c.publish_count + 1)
            )
        return ids

    def _power_of_two(self, exponent: sa.ColumnElement[int]) -> sa.ColumnElement[float]:
        dialect = dialect_of(self._connection)
        match dialect:
            case "sqlite":  # some builds of it have no mathematical functions
                return sa.cast(sa.literal(1).op("<<")(exponent), sa.Double)
            case "postgresql":
                return sa.func.pow(2.0, exponent)
            case _:
                assert_never(dialect)

    def not_published(self, job_ids: Sequence[str]) -> None:
        """Take back what `due_for_publish` has counted: the broker did not take the messages."""
        self._connection.execute(
            _jobs.update()
            .where(_jobs.c.id.in_(job_ids), _jobs.c.status == str(JobStatus.QUEUED), _jobs.c.publish_count > 0)
            .values(published_at=None, publish_count=_jobs.c.publish_count - 1)
        )

    def expire(self) -> list[str]:
        """Withdraw the artifacts of jobs whose time has come; the sweep deletes the files then.

        Returns:
            The ids of the jobs.
        """
        has_files = sa.exists().where(_artifacts.c.job_id == _jobs.c.id)
        due = (
            sa.select(_jobs.c.id)
            # The clock as a constant: PostgreSQL uses no index to compare with a function that changes.
            .where(_jobs.c.expires_at <= self.clock(), has_files)
            .order_by(_jobs.c.expires_at)
            .limit(_BATCH)
            .with_for_update(skip_locked=True)
        )
        ids = list(self._connection.scalars(due))
        if ids:
            self._connection.execute(_artifacts.delete().where(_artifacts.c.job_id.in_(ids)))
            self._connection.execute(_jobs.update().where(_jobs.c.id.in_(ids)).values(version=_jobs.c.version + 1))
        return ids

    def forget_keys(self, *, older_than_s: float) -> int:
        """Delete old idempotency keys. Return how many."""
        old = sa.select(_keys.c.owner, _keys.c.key).where(_keys.c.created_at < self.clock() - older_than_s).limit(_BATCH)
        found = [tuple(row) for row in self._connection.execute(old)]
        if found:
            self._connection.execute(_keys.delete().where(sa.tuple_(_keys.c.owner, _keys.c.key).in_(found)))
        return len(found)

    def live_fences(self, job_ids: Collection[str]) -> dict[str, set[int]]:
        """Return for each job the fences whose files must stay in the store: the running attempt's and the published one's."""
        known: dict[str, set[int]] = {job_id: set() for job_id in job_ids}
        running = sa.select(_jobs.c.id, _jobs.c.fence).where(_jobs.c.id.in_(job_ids), _jobs.c.status.in_(sorted(ACTIVE)))
        published = sa.select(_artifacts.c.job_id, _artifacts.c.fence).where(_artifacts.c.job_id.in_(job_ids)).distinct()
        for query in (running, published):
            for job_id, fence in self._connection.execute(query):
                known[job_id].add(fence)
        return known

    def unfinished(self, job_ids: Collection[str]) -> dict[str, int | None]:
        """Return those of some jobs that have not finished, each with the fence under which it runs, or None while it waits."""
        query = sa.select(_jobs.c.id, _jobs.c.fence, _jobs.c.status).where(
            _jobs.c.id.in_(job_ids), _jobs.c.status.not_in(sorted(TERMINAL))
        )
        return {row.id: row.fence if row.status in ACTIVE else None for row in self._connection.execute(query)}
