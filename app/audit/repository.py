"""SQL of the audit log."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from app.audit.models import audit_events as _events
from app.audit.models import people as _people
from app.audit.records import Action, AuditEvent, AuditPerson
from app.db import dialect_of, now

_WITH_PEOPLE = sa.select(_events, _people.c.issuer, _people.c.subject.label("known_as"), _people.c.name).join_from(
    _events, _people, _people.c.id == _events.c.key_id, isouter=True
)


class AuditRepository:
    """Queries within one transaction of the caller's: what is written down is what was done, or neither."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection

    def record(self, action: Action, owner: str, key_id: str, subject: str) -> None:
        """Write down who did what to what."""
        self._connection.execute(
            _events.insert().values(at=now(), owner=owner, key_id=key_id, action=str(action), subject=subject)
        )

    def note_person(self, person_id: str, person: AuditPerson) -> None:
        """Keep who stands behind an id, by what the provider tells now. Safe to do twice at once."""
        fields = {"issuer": person.issuer, "subject": person.subject, "name": person.name, "seen_at": now()}
        if self._connection.execute(_people.update().where(_people.c.id == person_id).values(**fields)).rowcount:
            return
        kind = postgresql if dialect_of(self._connection) == "postgresql" else sqlite
        self._connection.execute(kind.insert(_people).values(id=person_id, **fields).on_conflict_do_nothing())

    def record_all(self, action: Action, done: Sequence[tuple[str, str, str]]) -> None:
        """Write down several at once: whose, by which key, to what."""
        rows = [{"owner": owner, "key_id": key_id, "subject": subject} for owner, key_id, subject in done]
        self._connection.execute(_events.insert().values(at=now(), action=str(action)), rows)

    def delete_of(self, owner: str, *, limit: int) -> int:
        """Delete some events of a tenant, the oldest first. Return how many."""
        oldest = sa.select(_events.c.id).where(_events.c.owner == owner).order_by(_events.c.id).limit(limit)
        return self._connection.execute(_events.delete().where(_events.c.id.in_(oldest))).rowcount

    def forget(self, *, older_than_s: float, limit: int) -> int:
        """Delete old events, of the oldest ``limit`` ones. Return how many."""
        clock = self._connection.execute(sa.select(now())).scalar_one()
        oldest = sa.select(_events.c.id).order_by(_events.c.id).limit(limit)
        old = _events.delete().where(_events.c.id.in_(oldest), _events.c.at < clock - older_than_s)
        return self._connection.execute(old).rowcount

    def settled(self) -> int:
        """Return the greatest id below which no event can appear any more; 0 where there is none.

        On PostgreSQL ids are drawn before the commit, so that an event may appear after others with greater ids. Writers are
        kept out for the moment that this takes, and those under way are waited for.
        """
        if dialect_of(self._connection) == "postgresql":
            self._connection.exec_driver_sql("LOCK TABLE audit_events IN SHARE MODE")
        return self._connection.scalar(sa.select(sa.func.max(_events.c.id))) or 0

    def after(self, event_id: int, *, up_to: int, limit: int) -> list[AuditEvent]:
        """List events of all tenants, oldest first, from behind an id."""
        query = _WITH_PEOPLE.where(_events.c.id > event_id, _events.c.id <= up_to).order_by(_events.c.id).limit(limit)
        return [_event(row) for row in self._connection.execute(query)]

    def list(self, *, owner: str | None, before: int | None, limit: int) -> list[AuditEvent]:
        """List events of one tenant or of all, newest first, from before an id."""
        query = _WITH_PEOPLE.order_by(_events.c.id.desc()).limit(limit)
        if owner is not None:
            query = query.where(_events.c.owner == owner)
        if before is not None:
            query = query.where(_events.c.id < before)
        return [_event(row) for row in self._connection.execute(query)]


def _event(row: sa.Row[Any]) -> AuditEvent:
    person = None if row.issuer is None else AuditPerson(row.issuer, row.known_as, row.name)
    return AuditEvent(row.id, row.at, row.owner, row.key_id, Action(row.action), row.subject, person)
