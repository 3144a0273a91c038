"""SQL of the line in which jobs wait: whose turn it is, by `app.jobs.fairness`, and the jobs of that tenant in their order.

Read and written in the transaction of a claim. On PostgreSQL claims take turns, so that each sees the turn before it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from typing import Any

import sqlalchemy as sa

from app.db import dialect_of, now, take_turns
from app.jobs import models
from app.jobs.fairness import Round, order
from app.jobs.needs import Abilities
from app.jobs.states import ACTIVE, JobStatus

_jobs, _tenants, _turns, _limits = models.jobs, models.tenants, models.turns, models.queue_limits

ANY_POOL = "any"
_CLAIM_LOCK = 6_226_175  # key of PostgreSQL's advisory lock
_SLOW_PLANS = ("sort", "seqscan", "bitmapscan", "hashjoin", "mergejoin")


@dataclass(frozen=True, slots=True)
class Group:
    """The waiting jobs of one tenant at one rank in one queue."""

    rank: int
    owner: str
    queue: str
    since: float  # when its first job, by priority and age, was made
    first: str  # id of that job


@dataclass(frozen=True, slots=True)
class Turn:
    """A due job, and the turn that its tenant has with it."""

    row: sa.Row[Any]
    start: float


@dataclass(frozen=True, slots=True)
class Limits:
    """How many jobs may run at once, and how many do.

    Attributes:
        tenants: Largest number of running jobs of the tenants that have one of their own.
        queues: The same of queues.
        default: That of all other tenants; None: any number.
        running: Number of running jobs by owner and queue; empty where nothing is limited.
    """

    tenants: Mapping[str, int]
    queues: Mapping[str, int]
    default: int | None
    running: Mapping[tuple[str, str], int]

    def tenant_is_full(self, owner: str) -> bool:
        """Return whether a tenant has as many jobs running as it may."""
        most = self.tenants.get(owner, self.default)
        return most is not None and sum(count for (own, _), count in self.running.items() if own == owner) >= most

    def queue_is_full(self, queue: str) -> bool:
        """Return whether a queue has as many jobs running as it may."""
        most = self.queues.get(queue)
        return most is not None and sum(count for (_, own), count in self.running.items() if own == queue) >= most


class LineRepository:
    """Queries and statements within one transaction of the caller's."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection

    def begin_turn(self) -> None:
        """Wait until nobody else claims, and have the line read along its indexes alone, until the transaction ends."""
        take_turns(self._connection, _CLAIM_LOCK)
        self.keep_to_indexes()

    def keep_to_indexes(self) -> None:
        """Have the line read along its indexes alone, until the transaction ends.

        PostgreSQL would sort all of a tenant's jobs for its first one where a queue has grown since its statistics were made.
        """
        if dialect_of(self._connection) == "postgresql":
            self._connection.execute(sa.select(*(sa.func.set_config(f"enable_{plan}", "off", True) for plan in _SLOW_PLANS)))

    def groups(self) -> list[Group]:
        """List what waits, as the first job of each tenant's queues: one look into the index for each of them."""
        return [Group(*row) for row in self._connection.execute(_heads())]

    def rounds(self, pool: str, shares: Mapping[str, float]) -> dict[int, Round]:
        """Read the rounds of a pool of workers, by rank."""
        turns: dict[int, dict[str, float]] = {}
        query = sa.select(_turns.c.rank, _turns.c.owner, _turns.c.start).where(_turns.c.pool == pool)
        for rank, owner, start in self._connection.execute(query):
            turns.setdefault(rank, {})[owner] = start
        return {rank: Round(found, shares) for rank, found in turns.items()}

    def rules(self, default: int | None) -> tuple[dict[str, float], Limits]:
        """Read the shares that are set, and what limits the running jobs."""
        rows = self._connection.execute(sa.select(_tenants)).all()
        tenants = {row.owner: row.max_running for row in rows if row.max_running is not None}
        queues = {row.queue: row.max_running for row in self._connection.execute(sa.select(_limits))}
        running: dict[tuple[str, str], int] = {}
        if default is not None or tenants or queues:
            counted = (
                sa.select(_jobs.c.owner, _jobs.c.queue, sa.func.count())
                .where(_jobs.c.status.in_(sorted(ACTIVE)))
                .group_by(_jobs.c.owner, _jobs.c.queue)
            )
            running = {(owner, queue): count for owner, queue, count in self._connection.execute(counted)}
        return {row.owner: row.share for row in rows}, Limits(tenants, queues, default, running)

    def in_turn(self, abilities: Abilities | None, max_running: int | None) -> Iterator[Turn]:
        """Yield the due jobs that a worker may claim, the one whose turn it is first, and the first of each tenant alone.

        On PostgreSQL the rows are locked, and those that others hold are passed over.

        Args:
            abilities: What the worker serves; None: everything.
            max_running: Largest number of running jobs of a tenant for which no other is set.
        """
        groups = [group for group in self.groups() if abilities is None or abilities.serves_queue(group.queue)]
        if not groups:
            return
        shares, limits = self.rules(max_running)
        rounds = self.rounds(pool_of(abilities), shares)
        for rank, level in groupby(groups, key=lambda group: group.rank):
            queues: dict[str, list[Group]] = {}
            for group in level:
                if not limits.queue_is_full(group.queue) and not limits.tenant_is_full(group.owner):
                    queues.setdefault(group.owner, []).append(group)
            heads = {owner: min((group.since, group.first) for group in own) for owner, own in queues.items()}
            turns = rounds.get(rank, Round())
            for owner in order(heads, turns):
                found = [row for group in queues[owner] if (row := self._first_due(group, abilities)) is not None]
                if found:
                    row = min(found, key=lambda row: (-row.priority, row.created_at, row.id))
                    yield Turn(row, turns.start(owner))

    def take(self, turn: Turn, pool: str) -> None:
        """Note that a tenant has had its turn."""
        row = turn.row
        one = sa.and_(_turns.c.pool == pool, _turns.c.rank == row.rank, _turns.c.owner == row.owner)
        if self._connection.execute(_turns.update().where(one).values(start=turn.start, taken_at=now())).rowcount == 0:
            first = {"pool": pool, "rank": row.rank, "owner": row.owner, "start": turn.start}
            self._connection.execute(_turns.insert().values(**first, taken_at=now()))

    def forget(self, *, older_than_s: float) -> None:
        """Delete the turns of long ago, which put nobody back: of pools that are gone, and of tenants that have gone."""
        self._connection.execute(_turns.delete().where(_turns.c.taken_at < now() - older_than_s))

    def forget_tenant(self, owner: str) -> None:
        """Delete what is set for a tenant, and its turns."""
        for table in (_tenants, _turns):
            self._connection.execute(table.delete().where(table.c.owner == owner))

    def _first_due(self, group: Group, abilities: Abilities | None) -> sa.Row[Any] | None:
        fits: Collection[sa.ColumnElement[bool]] = ()
        if abilities is not None and abilities.gpu_bytes is not None:
            fits = (sa.or_(_jobs.c.gpu_bytes.is_(None), _jobs.c.gpu_bytes <= abilities.gpu_bytes),)
        query = (
            sa.select(_jobs)
            .where(
                *(_jobs.c.status == str(JobStatus.QUEUED), _jobs.c.rank == group.rank, _jobs.c.owner == group.owner),
                *(_jobs.c.queue == group.queue, ~_jobs.c.cancel_requested, _jobs.c.not_before <= now(), *fits),
            )
            .order_by(_jobs.c.priority.desc(), _jobs.c.created_at, _jobs.c.id)
            .limit(1)
            .with_for_update(skip_locked=True)
        )
        return self._connection.execute(query).one_or_none()


@cache  # building it takes as long as running it
def _heads() -> sa.Select[Any, Any, Any, Any, Any]:
    """Build the query for the first job of each group."""
    rank, owner, queue = place = (_jobs.c.rank, _jobs.c.owner, _jobs.c.queue)
    whole = (*place, _jobs.c.priority.desc(), _jobs.c.created_at, _jobs.c.id)
    before = _jobs.alias("before")

    def first(*where: sa.ColumnElement[bool]) -> sa.ScalarSelect[str]:
        waiting = sa.select(_jobs.c.id).where(_jobs.c.status == str(JobStatus.QUEUED), *where)
        return waiting.order_by(*whole).limit(1).correlate(before).scalar_subquery()

    # One after the other, because SQLite uses no index beyond the first column of a comparison of rows.
    following = sa.func.coalesce(
        first(rank == before.c.rank, owner == before.c.owner, queue > before.c.queue),
        first(rank == before.c.rank, owner > before.c.owner),
        first(rank > before.c.rank),
    )
    heads = sa.select(first().label("id")).cte("heads", recursive=True)
    heads = heads.union_all(sa.select(following).select_from(heads.join(before, before.c.id == heads.c.id)))
    return sa.select(*place, _jobs.c.created_at, _jobs.c.id).join(heads, heads.c.id == _jobs.c.id).order_by(*place)


def pool_of(abilities: Abilities | None) -> str:
    """Name the pool of a worker that has these abilities."""
    return ANY_POOL if abilities is None else abilities.pool
