"""SQL of deletions of tenants, and the guard of everything that would make something new for one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from app.db import now, take_turns
from app.refusals import Conflict
from app.tenants.models import tenant_deletions as _deletions
from app.tenants.records import Deletion

_TENANT_LOCK = 6_226_174  # the first half of the key of PostgreSQL's advisory lock


class TenantRepository:
    """Queries within one transaction of the caller's."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection

    def lock(self, owner: str) -> None:
        """Take turns with everybody else who makes something for a tenant or deletes it, until the transaction ends."""
        take_turns(self._connection, _TENANT_LOCK, owner)

    def require_open(self, owner: str) -> None:
        """Refuse to make something for a tenant that is being deleted. Call `lock` before.

        Raises:
            Conflict: The tenant is being deleted.
        """
        deleting = sa.select(_deletions.c.owner).where(_deletions.c.owner == owner, _deletions.c.finished_at.is_(None))
        if self._connection.scalar(deleting) is not None:
            message = f"the tenant {owner} is being deleted; nothing new is taken for it until that has ended"
            raise Conflict("tenant_deleting", message)

    def hold_open(self, owner: str) -> None:
        """Keep a tenant from being deleted until the transaction ends. Raises `Conflict` where that has begun."""
        self.lock(owner)
        self.require_open(owner)

    def begin(self, owner: str, *, with_audit: bool) -> None:
        """Note that a tenant is to be deleted; noting it twice is once. An earlier deletion of the name is forgotten."""
        fresh = {"requested_at": now(), "with_audit": with_audit, "finished_at": None, "counts": {}}
        mine = _deletions.c.owner == owner
        again = _deletions.update().where(mine, _deletions.c.finished_at.is_not(None)).values(**fresh)
        if self._connection.execute(again).rowcount:
            return
        if self._connection.scalar(sa.select(_deletions.c.owner).where(mine)) is None:
            self._connection.execute(_deletions.insert().values(owner=owner, **fresh))
        elif with_audit:
            self._connection.execute(_deletions.update().where(mine).values(with_audit=True))

    def get(self, owner: str, *, to_change: bool = False) -> Deletion | None:
        """Read the deletion of a tenant; ``to_change`` keeps others from it until the transaction ends."""
        query = sa.select(_deletions).where(_deletions.c.owner == owner)
        row = self._connection.execute(query.with_for_update() if to_change else query).one_or_none()
        return None if row is None else _deletion(row)

    def deletions(self) -> list[Deletion]:
        """List all deletions of tenants, those that have ended too."""
        return [_deletion(row) for row in self._connection.execute(sa.select(_deletions))]

    def unfinished(self, *, limit: int) -> list[str]:
        """List tenants that are being deleted, those first that have waited longest."""
        query = sa.select(_deletions.c.owner).where(_deletions.c.finished_at.is_(None)).order_by(_deletions.c.requested_at)
        return list(self._connection.scalars(query.limit(limit)))

    def add(self, deletion: Deletion, counts: Mapping[str, int]) -> None:
        """Add to what was deleted. The caller has read the deletion to change it."""
        kinds = [*deletion.counts, *(kind for kind in counts if kind not in deletion.counts)]
        total = {kind: deletion.counts.get(kind, 0) + counts.get(kind, 0) for kind in kinds}
        self._connection.execute(_deletions.update().where(_deletions.c.owner == deletion.owner).values(counts=total))

    def finish(self, owner: str) -> None:
        """Note that nothing of the tenant is left. The name may be used anew."""
        self._connection.execute(_deletions.update().where(_deletions.c.owner == owner).values(finished_at=now()))


def _deletion(row: sa.Row[Any]) -> Deletion:
    return Deletion(row.owner, row.requested_at, row.with_audit, row.finished_at, row.counts)
