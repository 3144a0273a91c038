"""SQL of deletions: jobs with everything that hangs on them, all or nothing."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from app.jobs import models
from app.jobs.states import ACTIVE
from app.webhooks.repository import WebhookRepository

_jobs = models.jobs


class RemovalRepository:
    """Statements within one transaction of the caller's."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection

    def find(self, job_id: str, *, owner: str) -> str | None:
        """Return our id of an owner's job that goes by ours or by the owner's own, whatever version wrote its spec."""
        named = sa.or_(_jobs.c.id == job_id, _jobs.c.client_id == job_id)
        return self._connection.scalar(sa.select(_jobs.c.id).where(named, _jobs.c.owner == owner))

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
