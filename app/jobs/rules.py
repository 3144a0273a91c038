"""What an operator sets for tenants and queues: shares, and how many jobs may run at once."""

from __future__ import annotations

from dataclasses import dataclass, replace

import sqlalchemy as sa

from app.audit.records import Action
from app.audit.repository import AuditRepository
from app.db import Database
from app.jobs import models
from app.jobs.fairness import DEFAULT_SHARE, LARGEST_SHARE, LEAST_SHARE
from app.jobs.needs import Needs
from app.jobs.states import ACTIVE, JobStatus
from app.keys.records import Caller
from app.refusals import Refused

_jobs, _tenants, _limits = models.jobs, models.tenants, models.queue_limits


@dataclass(frozen=True, slots=True)
class TenantRules:
    """What is set for a tenant: its share of the turns, and how many of its jobs run at once (None: as the settings say)."""

    share: float
    max_running: int | None


@dataclass(frozen=True, slots=True)
class Standing:
    """A queue: what is set for it, and its jobs.

    Attributes:
        name: Of the queue.
        max_running: How many of its jobs may run at once; None: any number.
        waiting: Number of its jobs that wait.
        running: Number of its jobs that run.
    """

    name: str
    max_running: int | None = None
    waiting: int = 0
    running: int = 0


class RuleService:
    """Use cases of an operator."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def queues(self) -> list[Standing]:
        """List the queues that have jobs open or a limit, by name."""
        with self._database.read() as connection:
            found = _counted(connection)
            for row in connection.execute(sa.select(_limits)):
                found[row.queue] = replace(found.get(row.queue, Standing(row.queue)), max_running=row.max_running)
        return [found[name] for name in sorted(found)]

    def set_tenant(self, owner: str, *, share: float | None, max_running: int | None, caller: Caller) -> TenantRules:
        """Set a tenant's share, or how many of its jobs may run at once (0: as the settings say). None leaves it as it is.

        Returns:
            What is set for the tenant now.

        Raises:
            Refused: The share is out of its range.
        """
        if share is not None and not LEAST_SHARE <= share <= LARGEST_SHARE:
            raise Refused("invalid_request", f"a share is between {LEAST_SHARE:g} and {LARGEST_SHARE:g}", "share")
        changes: dict[str, object] = {} if share is None else {"share": share}
        changes |= {} if max_running is None else {"max_running": max_running or None}
        with self._database.write() as connection:
            known = connection.execute(sa.select(_tenants).where(_tenants.c.owner == owner)).one_or_none()
            if known is None:
                defaults: dict[str, object] = {"owner": owner, "share": DEFAULT_SHARE}
                connection.execute(_tenants.insert().values(defaults | changes))
            elif changes:
                connection.execute(_tenants.update().where(_tenants.c.owner == owner).values(changes))
            AuditRepository(connection).record(Action.TENANT_SET, caller.owner, caller.key_id, owner)
            row = connection.execute(sa.select(_tenants).where(_tenants.c.owner == owner)).one()
        return TenantRules(row.share, row.max_running)

    def set_queue(self, name: str, *, max_running: int, caller: Caller) -> Standing:
        """Set how many jobs of a queue may run at once; 0: any number. Return the queue.

        Raises:
            Refused: There is no such queue.
        """
        try:
            usual = Needs.of(name, None).queue
        except ValueError:
            usual = ""
        if usual != name:
            message = "a queue is any, cpu or cuda, and then the tags that its jobs need, in order: cuda+a100+nvlink"
            raise Refused("invalid_request", message, "queue")
        with self._database.write() as connection:
            connection.execute(_limits.delete().where(_limits.c.queue == name))
            if max_running:
                connection.execute(_limits.insert().values(queue=name, max_running=max_running))
            AuditRepository(connection).record(Action.QUEUE_SET, caller.owner, caller.key_id, name)
            found = _counted(connection)
        return replace(found.get(name, Standing(name)), max_running=max_running or None)


def _counted(connection: sa.Connection) -> dict[str, Standing]:
    """Count the open jobs by queue."""
    column = _jobs.c.queue
    open_ = sorted({JobStatus.QUEUED, *ACTIVE})
    query = sa.select(column, _jobs.c.status, sa.func.count()).where(_jobs.c.status.in_(open_)).group_by(column, _jobs.c.status)
    found: dict[str, Standing] = {}
    for name, status, count in connection.execute(query):
        known = found.get(name, Standing(name))
        waits = status == str(JobStatus.QUEUED)
        found[name] = replace(known, waiting=known.waiting + count * waits, running=known.running + count * (not waits))
    return found
