"""SQL of calibrations: jobs whose result is what is known of a dense model, kept as artifacts within a budget of bytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from app.db import now
from app.jobs import models
from app.jobs.records import PublishedArtifact
from app.jobs.states import TERMINAL
from app.tenants.repository import TenantRepository
from pruning_core.report.statistics import StatisticsReport

_jobs, _artifacts, _calibrations = models.jobs, models.artifacts, models.calibrations

_MOST_SERVED = 20  # jobs that are named of those that a calibration served


@dataclass(frozen=True, slots=True)
class Calibration:
    """What is known of a calibration beside its job.

    Attributes:
        job_id: Its id, which is that of its job.
        used_at: When a worker last fetched its pieces, or they were made; None: there are none yet.
        found: What was gathered; None: nothing yet.
        size: Bytes of the pieces that are kept; 0: none are.
        served: How many jobs have named it.
        newest: The ids of the newest of these, as the API knows them.
    """

    job_id: str
    used_at: float | None
    found: StatisticsReport | None
    size: int
    served: int
    newest: tuple[str, ...]


class CalibrationRepository:
    """Statements within one transaction of the caller's."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection

    def page(self, owner: str, *, after: str | None, limit: int) -> list[str]:
        """List ids of an owner's calibrations, newest first, from behind a given one."""
        columns = (_calibrations.c.created_at, _calibrations.c.job_id)
        query = sa.select(_calibrations.c.job_id).where(_calibrations.c.owner == owner)
        if after is not None:
            start = sa.select(*columns).where(_calibrations.c.job_id == after, _calibrations.c.owner == owner)
            found = self._connection.execute(start).one_or_none()
            if found is None:
                raise LookupError(after)
            query = query.where(sa.tuple_(*columns) < sa.tuple_(*found))
        return list(self._connection.scalars(query.order_by(*(own.desc() for own in columns)).limit(limit)))

    def read(self, job_ids: Sequence[str]) -> dict[str, Calibration]:
        """Read what is known of some calibrations."""
        sizes = sa.select(_artifacts.c.job_id, sa.func.sum(_artifacts.c.size)).where(_artifacts.c.job_id.in_(job_ids))
        size_of: dict[str, Any] = {row[0]: row[1] for row in self._connection.execute(sizes.group_by(_artifacts.c.job_id))}
        rows = self._connection.execute(sa.select(_calibrations).where(_calibrations.c.job_id.in_(job_ids)))
        return {
            row.job_id: Calibration(
                row.job_id,
                row.used_at,
                None if row.found is None else StatisticsReport.model_validate(row.found),
                int(size_of.get(row.job_id, 0)),
                *self._served(row.job_id),
            )
            for row in rows.all()
        }

    def pieces(self, job_id: str, *, owner: str) -> list[PublishedArtifact]:
        """List the pieces of an owner's calibration, and note that they are used."""
        used = _calibrations.update().where(_calibrations.c.job_id == job_id, _calibrations.c.owner == owner)
        if self._connection.execute(used.values(used_at=now())).rowcount == 0:
            return []
        rows = self._connection.execute(sa.select(_artifacts).where(_artifacts.c.job_id == job_id).order_by(_artifacts.c.path))
        return [PublishedArtifact(row.path, row.fence, row.size, row.sha256, row.job_id) for row in rows]

    def kept(self, job_id: str, found: StatisticsReport) -> None:
        """Note what a calibration has gathered."""
        values = {"found": found.model_dump(mode="json"), "used_at": now()}
        self._connection.execute(_calibrations.update().where(_calibrations.c.job_id == job_id).values(**values))

    def make_room_for(self, job_id: str, size: int, *, most_bytes: int | None) -> bool:
        """Free calibrations of the same owner until there is room for one more.

        Nothing is freed where that would not be enough. Calibrations that unfinished jobs name stay.

        Args:
            job_id: The calibration that is to be kept.
            size: Bytes of its pieces.
            most_bytes: How many bytes the pieces of its owner may have; None: any number.

        Returns:
            Whether there is room.
        """
        owner = self._connection.scalar(sa.select(_calibrations.c.owner).where(_calibrations.c.job_id == job_id))
        if most_bytes is None or owner is None:
            return True
        TenantRepository(self._connection).lock(owner)
        over, free = self._over(owner, most_bytes - size)
        if over > sum(own for _id, own in free):
            return False
        self._free(over, free)
        return True

    def bring_within(self, most_bytes: int) -> None:
        """Free calibrations of owners whose pieces have more bytes than they may: the budget was lowered."""
        sizes = sa.select(_calibrations.c.owner).join(_artifacts, _artifacts.c.job_id == _calibrations.c.job_id)
        over = sizes.group_by(_calibrations.c.owner).having(sa.func.sum(_artifacts.c.size) > most_bytes)
        for owner in self._connection.scalars(over).all():
            TenantRepository(self._connection).lock(owner)
            self._free(*self._over(owner, most_bytes))

    def _over(self, owner: str, most_bytes: int) -> tuple[int, list[tuple[str, int]]]:
        """Return by how many bytes an owner's pieces are too many, and the calibrations that may go: id and size, in order."""
        size, user = sa.func.sum(_artifacts.c.size), _jobs.alias("user")
        unfinished = user.c.status.not_in(sorted(TERMINAL))
        is_needed = sa.exists().where(user.c.calibration == _calibrations.c.job_id, unfinished)
        query = (
            sa.select(_calibrations.c.job_id, size.label("size"), is_needed.label("is_needed"))
            .join(_artifacts, _artifacts.c.job_id == _calibrations.c.job_id)
            .where(_calibrations.c.owner == owner)
            .group_by(_calibrations.c.job_id, _calibrations.c.used_at)
            .order_by(_calibrations.c.used_at)
        )
        rows = self._connection.execute(query).all()
        return int(sum(row.size for row in rows)) - most_bytes, [
            (row.job_id, int(row.size)) for row in rows if not row.is_needed
        ]

    def _free(self, over: int, free: Sequence[tuple[str, int]]) -> None:
        """Withdraw pieces until so many bytes are freed. The sweep deletes their files."""
        for job_id, size in free:
            if over <= 0:
                return
            self._connection.execute(_artifacts.delete().where(_artifacts.c.job_id == job_id))
            self._connection.execute(_jobs.update().where(_jobs.c.id == job_id).values(version=_jobs.c.version + 1))
            over -= size

    def _served(self, job_id: str) -> tuple[int, tuple[str, ...]]:
        own = _jobs.c.calibration == job_id
        number = self._connection.scalar(sa.select(sa.func.count()).where(own)) or 0
        newest = sa.select(_jobs.c.id, _jobs.c.client_id).where(own).order_by(_jobs.c.created_at.desc()).limit(_MOST_SERVED)
        return number, tuple(row.client_id or row.id for row in self._connection.execute(newest))
