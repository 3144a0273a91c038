"""SQL of a waiting job's place: the jobs that start before it in the order of claims, and why it waits."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import sqlalchemy as sa

from app.db import now
from app.jobs import models
from app.jobs.control import ControlRepository
from app.jobs.fairness import Round
from app.jobs.line import ANY_POOL, Group, Limits, LineRepository
from app.jobs.needs import ANY, MOST_QUEUES, Abilities, Needs, why_nobody
from app.jobs.records import Job
from app.jobs.states import JobStatus
from app.refusals import QuotaExceeded

_jobs, _workers = models.jobs, models.workers

_MOST_BEFORE = 1000
_UNKNOWN = Abilities(device="unknown")  # of a worker of an earlier version: it serves what needs nothing


@dataclass(frozen=True, slots=True)
class Place:
    """Where a queued job is.

    Attributes:
        before: Number of jobs, of all tenants, that start before it if nothing is added; 1,000 at most.
        workers: Number of workers that are signed in and serve it.
        why: Why it waits, where there is another reason than its turn.
        paused: Whether an operator has said that no job is taken for now.
    """

    before: int
    workers: int
    why: str | None = None
    paused: bool = False


class PlaceRepository:
    """Queries within one transaction of the caller's."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection
        self._line = LineRepository(connection)

    def place(self, job: Job, *, seen_within_s: float, max_running: int | None = None) -> Place:
        """Find the place of a queued job. See `places`."""
        return self.places([job], seen_within_s=seen_within_s, max_running=max_running)[0]

    def places(
        self, jobs: Sequence[Job], *, seen_within_s: float, max_running: int | None = None, are_new: bool = False
    ) -> list[Place]:
        """Find the places of some queued jobs: of the pools of workers that serve a job, in that where fewest are before it.

        The line is read once for all of them.

        Args:
            jobs: The jobs. Of those of one tenant and priority, each was submitted right behind the one before it.
            seen_within_s: A worker that was not seen for so long is not counted.
            max_running: Largest number of running jobs of a tenant for which no other is set.
            are_new: Whether no attempt was made at any of them, so that none can be in a pause after one.
        """
        self._line.keep_to_indexes()
        shares, limits = self._line.rules(max_running)
        view = _View(self._connection, self._line, self.workers(seen_within_s=seen_within_s), shares, limits)
        paused = not ControlRepository(self._connection).is_open()
        return [replace(view.place(job, is_new=are_new), paused=paused) for job in jobs]

    def workers(self, *, seen_within_s: float) -> list[Abilities]:
        """List what the workers serve that were seen lately."""
        query = sa.select(_workers.c.serves).where(_workers.c.seen_at > now() - seen_within_s)
        return [_UNKNOWN if row is None else Abilities.model_validate(row) for row in self._connection.scalars(query)]

    def pools_for(self, needs: Needs, owner: str, *, seen_within_s: float, also: Collection[str] = ()) -> Sequence[str | None]:
        """Return the pools of workers of which one is to be woken for a new job of an owner; None stands for all.

        Args:
            needs: What the job needs.
            owner: The owner.
            seen_within_s: A worker that was not seen for so long is not counted.
            also: Queues of jobs of the owner that are about to be written.

        Raises:
            QuotaExceeded: The owner's jobs wait in as many queues as they may.
        """
        if needs.queue == ANY:
            return [None]
        waiting = {group.queue for group in self._line.groups() if group.owner == owner} | set(also)
        if needs.queue not in waiting and len(waiting) >= MOST_QUEUES:
            message = f"your jobs wait in {MOST_QUEUES} queues by what they need, which is as many as may be; try again later"
            raise QuotaExceeded("quota_exceeded", message)
        return _serving(needs, self.workers(seen_within_s=seen_within_s))

    def pools_of(self, job_ids: Collection[str], *, seen_within_s: float) -> Iterator[tuple[str, str | None]]:
        """Yield jobs with the pools of workers of which one is to be woken for them; None stands for all."""
        workers = self.workers(seen_within_s=seen_within_s)
        rows = self._connection.execute(sa.select(_jobs.c.id, _jobs.c.queue, _jobs.c.gpu_bytes).where(_jobs.c.id.in_(job_ids)))
        for job_id, queue, gpu_bytes in rows:
            yield from ((job_id, pool) for pool in _serving(Needs.of(queue, gpu_bytes), workers))


class _View:
    """The line at one moment: what was read of it once serves every job that is looked at."""

    def __init__(
        self,
        connection: sa.Connection,
        line: LineRepository,
        workers: Sequence[Abilities],
        shares: Mapping[str, float],
        limits: Limits,
    ) -> None:
        self._connection, self._line = connection, line
        self._workers, self._shares, self._limits = workers, shares, limits
        self._groups = line.groups()
        self._rounds: dict[str, dict[int, Round]] = {}
        self._earlier: dict[int, int] = {}
        self._own: dict[tuple[str, int, int], int] = {}
        self._counted: dict[tuple[str, int, tuple[str, ...]], tuple[int, int]] = {}

    def place(self, job: Job, *, is_new: bool) -> Place:
        """Find the place of one job."""
        able = [own for own in self._workers if own.serves(job.needs)]
        own_before = self._before_of_its_tenant(job)
        pools: dict[str, Abilities | None] = {own.pool: own for own in able} or {ANY_POOL: None}
        groups = [group for group in self._groups if group.rank == job.rank]
        before = min(
            self._before(
                job,
                own_before,
                [group for group in groups if own is None or own.serves_queue(group.queue)],
                self._round(pool, job.rank),
            )
            for pool, own in pools.items()
        )
        if job.rank not in self._earlier:
            self._earlier[job.rank] = self._count(_jobs.c.rank < job.rank)
        return Place(min(_MOST_BEFORE, before + self._earlier[job.rank]), len(able), self._why(job, able, is_new=is_new))

    def _round(self, pool: str, rank: int) -> Round:
        if pool not in self._rounds:
            self._rounds[pool] = self._line.rounds(pool, self._shares)
        return self._rounds[pool].get(rank, Round(shares=self._shares))

    def _before(self, job: Job, own_before: int, groups: Collection[Group], turns: Round) -> int:
        """Count the jobs of one rank that start before a job, from the turns that its tenant and the others have until then."""
        clock = turns.clock
        moment = turns.start(job.owner, clock) + own_before / turns.share(job.owner)
        heads: dict[str, tuple[float, str]] = {}
        queues: dict[str, list[str]] = {}
        for group in groups:
            heads[group.owner] = min(heads.get(group.owner, (group.since, group.first)), (group.since, group.first))
            queues.setdefault(group.owner, []).append(group.queue)
        mine = heads.get(job.owner, (job.created_at, job.id))
        before = own_before
        for owner, head in heads.items():
            most = 0 if owner == job.owner else turns.jobs_until(owner, moment, clock, wins_ties=head < mine)
            if most and before < _MOST_BEFORE:
                # The first job of each queue is known to wait; the rest is counted only where it matters.
                known = len(queues[owner])
                there = known if known >= most else self._there(owner, job.rank, tuple(queues[owner]), most)
                before += min(most, there)
        return before

    def _before_of_its_tenant(self, job: Job) -> int:
        """Count a tenant's own jobs before one. Of those that are looked at together, each stands behind the one before it."""
        key = (job.owner, job.rank, job.priority)
        known = self._own.get(key)
        self._own[key] = self._count_before(job) if known is None else min(_MOST_BEFORE, known + 1)
        return self._own[key]

    def _count_before(self, job: Job) -> int:
        older = sa.or_(_jobs.c.created_at < job.created_at, sa.and_(_jobs.c.created_at == job.created_at, _jobs.c.id < job.id))
        earlier = sa.or_(_jobs.c.priority > job.priority, sa.and_(_jobs.c.priority == job.priority, older))
        return self._count(_jobs.c.owner == job.owner, _jobs.c.rank == job.rank, earlier)

    def _there(self, owner: str, rank: int, queues: tuple[str, ...], most: int) -> int:
        """Count the waiting jobs of a tenant in some queues, up to a number."""
        counted, looked_for = self._counted.get((owner, rank, queues), (0, 0))
        if counted == looked_for and most > looked_for:
            counted = self._count(_jobs.c.rank == rank, _jobs.c.owner == owner, _jobs.c.queue.in_(queues), most=most)
            self._counted[owner, rank, queues] = (counted, most)
        return counted

    def _count(self, *where: sa.ColumnElement[bool], most: int = _MOST_BEFORE) -> int:
        waiting = sa.select(_jobs.c.id).where(_jobs.c.status == str(JobStatus.QUEUED), *where)
        found = waiting.limit(min(most, _MOST_BEFORE)).subquery()
        return self._connection.scalar(sa.select(sa.func.count()).select_from(found)) or 0

    def _why(self, job: Job, able: Sequence[Abilities], *, is_new: bool) -> str | None:
        if not able:
            return why_nobody(job.needs, self._workers)
        if self._limits.tenant_is_full(job.owner):
            return "as many of your jobs run as may at once; it starts when one of them has ended"
        if self._limits.queue_is_full(job.needs.queue):
            return f"as many jobs run as may at once of those that need {job.needs.described()}"
        if is_new:
            return None
        pause = sa.select(_jobs.c.not_before - now()).where(_jobs.c.id == job.id)
        if (pause_s := self._connection.scalar(pause) or 0) > 0:
            return f"an earlier attempt ended badly; it is tried again in {pause_s:.0f} s"
        return None


def _serving(needs: Needs, workers: Collection[Abilities]) -> Sequence[str | None]:
    return [None] if needs.queue == ANY else sorted({own.pool for own in workers if own.serves(needs)})
