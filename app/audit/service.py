"""Use cases of the audit log: reading it, and exporting it."""

from __future__ import annotations

from collections.abc import Iterator

from app.audit.chain import FIRST, lines
from app.audit.records import AuditEvent
from app.audit.repository import AuditRepository
from app.db import Database

_PAGE = 500


class AuditService:
    """The audit log of all tenants."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def list(self, *, owner: str | None, before: int | None, limit: int) -> list[AuditEvent]:
        """List events, newest first."""
        with self._database.read() as connection:
            return AuditRepository(connection).list(owner=owner, before=before, limit=limit)

    def export(self, *, after: int = 0, previous: str = FIRST) -> Iterator[str]:
        """Yield all events up to now as lines of a chain, oldest first, each with its line end.

        Args:
            after: Id of the last event that was exported before.
            previous: Digest of its line.
        """
        with self._database.write() as connection:
            up_to = AuditRepository(connection).settled()
        return (f"{line}\n" for line in lines(self._pages(after, up_to), previous=previous))

    def _pages(self, after: int, up_to: int) -> Iterator[AuditEvent]:
        while True:
            with self._database.read() as connection:
                page = AuditRepository(connection).after(after, up_to=up_to, limit=_PAGE)
            yield from page
            if len(page) < _PAGE:
                return
            after = page[-1].id
