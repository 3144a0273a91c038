"""SQL of deletions: jobs with everything that hangs on them, all or nothing."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import sqlalchemy as sa

from app.db import now
from app.jobs import models
from app.jobs.repository import goes_by
from app.jobs.states import ACTIVE, TERMINAL, JobStatus
from app.webhooks.repository import WebhookRepository

_jobs, _events, _artifacts = models.jobs, models.job_events, models.artifacts


class RemovalRepository:
    """Statements within one transaction of the caller's."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection

    def find(self, job_id: str, *, owner: str) -> str | None:
        """Return our id of an owner's job that goes by ours or by the owner's own, whatever version wrote its spec."""
        return self._connection.scalar(sa.select(_jobs.c.id).where(*goes_by(job_id, owner)))

    def of_owner(self, owner: str, statuses: Collection[JobStatus], *, limit: int, asked: bool | None = None) -> list[str]:
        """List ids of an owner's jobs of some statuses; ``asked``: only those whose cancellation was asked for, or was not."""
        query = sa.select(_jobs.c.id).where(_jobs.c.owner == owner, _jobs.c.status.in_(sorted(statuses)))
        if asked is not None:
            query = query.where(_jobs.c.cancel_requested == asked)
        return list(self._connection.scalars(query.order_by(_jobs.c.id).limit(limit)))

    def ended(self, *, for_s: float, limit: int) -> list[str]:
        """List ids of jobs that ended so long ago, those first that ended first."""
        clock = self._connection.execute(sa.select(now())).scalar_one()
        query = sa.select(_jobs.c.id).where(_jobs.c.finished_at < clock - for_s, _jobs.c.status.in_(sorted(TERMINAL)))
        return list(self._connection.scalars(query.order_by(_jobs.c.finished_at).limit(limit)))

    def forget_events(self, *, older_than_s: float, after: int, limit: int) -> tuple[int, int]:
        """Delete old events of jobs that have ended, among the next ones of the log.

        Args:
            older_than_s: The age from which an event is old.
            after: Id behind which to look. Old events of jobs that have not ended stay, and must not be in the way.
            limit: Largest number of events to look at.

        Returns:
            The number of deleted events; and the id to go on behind, 0 where the next look begins anew.
        """
        clock = self._connection.execute(sa.select(now())).scalar_one()
        query = sa.select(_events.c.id, _events.c.created_at).where(_events.c.id > after).order_by(_events.c.id).limit(limit)
        page = self._connection.execute(query).all()
        old = [row.id for row in page if row.created_at < clock - older_than_s]
        ended = sa.select(_jobs.c.id).where(_jobs.c.status.in_(sorted(TERMINAL)))
        doomed = _events.delete().where(_events.c.id.in_(old), _events.c.job_id.in_(ended))
        deleted = self._connection.execute(doomed).rowcount if old else 0
        goes_on = len(page) == limit and page[-1].id in old
        return deleted, page[-1].id if goes_on else 0

    def contents(self, job_ids: Sequence[str]) -> dict[str, int]:
        """Count what some jobs hold, by kind."""
        events = sa.select(sa.func.count()).select_from(_events).where(_events.c.job_id.in_(job_ids))
        files = sa.select(sa.func.count(), sa.func.coalesce(sa.func.sum(_artifacts.c.size), 0))
        number, size = self._connection.execute(files.where(_artifacts.c.job_id.in_(job_ids))).one()
        counted = {"jobs": len(job_ids), "events": self._connection.scalar(events) or 0}
        return counted | {"artifacts": number, "artifact_bytes": int(size)}

    def remove(self, job_ids: Sequence[str]) -> list[str]:
        """Delete those of some jobs that no worker has, with their events, artifacts, idempotency keys and webhook messages.

        The files stay in the store: nothing points to them any more, and they are deleted after the commit, or swept.

        Returns:
            The ids of the deleted jobs.
        """
        free = sa.select(_jobs.c.id).where(_jobs.c.id.in_(job_ids), _jobs.c.status.not_in(sorted(ACTIVE)))
        # Lock the rows first: no worker can claim one of them between the two deletions.
        found = list(self._connection.scalars(free.order_by(_jobs.c.id).with_for_update()))
        if found:
            WebhookRepository(self._connection).forget_jobs(found)
            self._connection.execute(_jobs.delete().where(_jobs.c.id.in_(found)))  # the other tables follow by their keys
        return found
