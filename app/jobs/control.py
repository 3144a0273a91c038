"""Whether jobs are taken from the queue: an operator may pause it, or drain it, for the whole service."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import sqlalchemy as sa

from app.db import metadata, now
from app.jobs import models
from app.jobs.states import ACTIVE, JobStatus

_jobs = models.jobs


class QueueState(StrEnum):
    """What an operator has said of the queue."""

    OPEN = "open"
    PAUSED = "paused"
    DRAINING = "draining"  # paused so that something can be done once nothing runs any more


_STATES = ", ".join(f"'{state}'" for state in QueueState)

WHOLE_SERVICE = ""

# One row a queue. There is one queue, the whole service, whose row the migration makes.
queue_controls = sa.Table(
    "queue_controls",
    metadata,
    sa.Column("queue", sa.String(64), primary_key=True),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("since", sa.Double),  # null: it was never changed
    sa.CheckConstraint(f"state IN ({_STATES})", name="state"),
)
_whole = queue_controls.c.queue == WHOLE_SERVICE


@dataclass(frozen=True, slots=True)
class Control:
    """The queue's state, since when, and how many jobs run and wait."""

    state: QueueState
    since: float | None
    running: int
    waiting: int

    @property
    def is_drained(self) -> bool:
        """Whether nothing runs, and nothing will until the queue is opened."""
        return self.state is not QueueState.OPEN and not self.running


class ControlRepository:
    """Statements within one transaction of the caller's."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection

    def may_claim(self) -> bool:
        """Return whether a job may be taken, and keep the queue from being paused until the transaction ends.

        So no job begins once a request to pause has been answered.
        """
        query = sa.select(queue_controls.c.state).where(_whole).with_for_update(read=True)
        return self._connection.scalar(query) in {None, QueueState.OPEN}

    def is_open(self) -> bool:
        """Return whether jobs are taken: a look that takes no lock."""
        return self._connection.scalar(sa.select(queue_controls.c.state).where(_whole)) in {None, QueueState.OPEN}

    def set(self, state: QueueState) -> bool:
        """Change the state of the queue. Return whether it was another; the time of the change stays where it was not."""
        changed = queue_controls.update().where(_whole, queue_controls.c.state != str(state))
        return self._connection.execute(changed.values(state=str(state), since=now())).rowcount == 1

    def read(self) -> Control:
        """Read the queue's state, and count its jobs."""
        row = self._connection.execute(sa.select(queue_controls).where(_whole)).one_or_none()
        running, waiting = (
            self._connection.scalar(sa.select(sa.func.count()).select_from(_jobs).where(_jobs.c.status.in_(sorted(statuses))))
            for statuses in (ACTIVE, {JobStatus.QUEUED})
        )
        state, since = (QueueState.OPEN, None) if row is None else (QueueState(row.state), row.since)
        return Control(state, since, running or 0, waiting or 0)
