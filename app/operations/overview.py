"""The operator's view over tenants: what each has, counted in one look."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from app.db import Database, now
from app.jobs import models
from app.jobs.fairness import DEFAULT_SHARE
from app.jobs.states import JobStatus
from app.keys.models import api_keys as _keys
from app.refusals import NotFound
from app.tenants.models import tenant_deletions as _deletions
from app.uploads.models import uploads as _uploads

_jobs, _artifacts, _tenants = models.jobs, models.artifacts, models.tenants


@dataclass(slots=True)
class TenantOverview:
    """What one tenant has; "" is the one of a service without keys."""

    owner: str
    jobs: Mapping[JobStatus, int] = field(default_factory=dict[JobStatus, int])
    artifact_bytes: int = 0
    upload_bytes: int = 0
    keys: int = 0  # valid ones
    last_submitted_at: float | None = None
    share: float = DEFAULT_SHARE
    max_running: int | None = None  # jobs at once; None: as the settings say
    is_being_deleted: bool = False


class OverviewRepository:
    """Queries within one transaction of the caller's."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection

    def tenants(self) -> list[TenantOverview]:
        """Count what every tenant has, by name."""
        found: dict[str, TenantOverview] = {}

        def of(owner: str) -> TenantOverview:
            return found.setdefault(owner, TenantOverview(owner))

        jobs: defaultdict[str, dict[JobStatus, int]] = defaultdict(dict)
        counted = sa.select(_jobs.c.owner, _jobs.c.status, sa.func.count()).group_by(_jobs.c.owner, _jobs.c.status)
        for owner, status, number in self._connection.execute(counted):
            jobs[owner][JobStatus(status)] = number
            of(owner).jobs = jobs[owner]
        for owner, moment in self._by_owner(_jobs, sa.func.max(_jobs.c.created_at)):
            of(owner).last_submitted_at = moment
        kept = sa.select(_jobs.c.owner, sa.func.sum(_artifacts.c.size)).join(_artifacts, _artifacts.c.job_id == _jobs.c.id)
        for owner, size in self._connection.execute(kept.group_by(_jobs.c.owner)):
            of(owner).artifact_bytes = int(size)
        for owner, size in self._by_owner(_uploads, sa.func.sum(_uploads.c.size)):
            of(owner).upload_bytes = int(size)
        lives = sa.or_(_keys.c.expires_at.is_(None), _keys.c.expires_at > now())
        for owner, number in self._by_owner(_keys, sa.func.count(), _keys.c.revoked_at.is_(None), lives):
            of(owner).keys = number
        for row in self._connection.execute(sa.select(_tenants)):
            of(row.owner).share, of(row.owner).max_running = row.share, row.max_running
        for owner in self._connection.scalars(sa.select(_deletions.c.owner).where(_deletions.c.finished_at.is_(None))):
            of(owner).is_being_deleted = True
        return [found[owner] for owner in sorted(found)]

    def _by_owner(
        self, table: sa.Table, figure: sa.ColumnElement[Any], *where: sa.ColumnElement[bool]
    ) -> list[tuple[str, Any]]:
        rows = self._connection.execute(sa.select(table.c.owner, figure).where(*where).group_by(table.c.owner))
        return [(row[0], row[1]) for row in rows]


class TenantList:
    """Use cases: look over all tenants, or at one."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def read(self) -> list[TenantOverview]:
        """Count what every tenant has, by name."""
        with self._database.read() as connection:
            return OverviewRepository(connection).tenants()

    def of(self, owner: str) -> TenantOverview:
        """Count what one tenant has. Raises `NotFound` where there is nothing of it, and nothing is set for it."""
        found = next((tenant for tenant in self.read() if tenant.owner == owner), None)
        if found is None:
            raise NotFound("tenant_not_found", f"there is nothing of a tenant {owner}")
        return found
