"""SQL of people's sessions and of sign-ins under way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from app.audit.models import people as _people
from app.db import now
from app.people.models import person_sessions as _sessions
from app.people.models import sign_ins as _sign_ins


@dataclass(frozen=True, slots=True)
class PersonSession:
    """A browser's session of a person."""

    person_id: str
    issuer: str
    subject: str
    name: str
    tenant: str
    groups: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Begun:
    """A sign-in under way."""

    nonce: str
    verifier: str
    wanted: str


class PeopleRepository:
    """Queries within one transaction of the caller's."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection

    def begin_sign_in(self, state: str, browser: str, begun: Begun, *, lives_s: float, most: int) -> None:
        """Note a sign-in, and forget those that have expired and, of all, the oldest beyond a number."""
        moment = self._connection.execute(sa.select(now())).scalar_one()
        self._connection.execute(_sign_ins.delete().where(_sign_ins.c.expires_at <= moment))
        beyond = sa.select(_sign_ins.c.state).order_by(_sign_ins.c.expires_at.desc()).offset(most - 1).limit(most)
        self._connection.execute(_sign_ins.delete().where(_sign_ins.c.state.in_(list(self._connection.scalars(beyond)))))
        values = {"nonce": begun.nonce, "verifier": begun.verifier, "wanted": begun.wanted, "expires_at": moment + lives_s}
        self._connection.execute(_sign_ins.insert().values(state=state, browser=browser, **values))

    def take_sign_in(self, states: Sequence[str], browsers: Sequence[str]) -> Begun | None:
        """Return a sign-in that this browser began, once: it is under way no more."""
        mine = sa.and_(_sign_ins.c.state.in_(states), _sign_ins.c.browser.in_(browsers), _sign_ins.c.expires_at > now())
        columns = (_sign_ins.c.nonce, _sign_ins.c.verifier, _sign_ins.c.wanted)
        row = self._connection.execute(_sign_ins.delete().where(mine).returning(*columns)).first()
        return None if row is None else Begun(row.nonce, row.verifier, row.wanted)

    def begin_session(
        self, digest: str, person_id: str, *, tenant: str, groups: Sequence[str], lives_s: float, most: int
    ) -> None:
        """Note a session, and forget those that have expired and, of the same person, the oldest beyond a number."""
        moment = self._connection.execute(sa.select(now())).scalar_one()
        self._connection.execute(_sessions.delete().where(_sessions.c.expires_at <= moment))
        mine = sa.select(_sessions.c.digest).where(_sessions.c.person_id == person_id).order_by(_sessions.c.created_at.desc())
        beyond = list(self._connection.scalars(mine.offset(most - 1)))
        self._connection.execute(_sessions.delete().where(_sessions.c.digest.in_(beyond)))
        values = {"tenant": tenant, "groups": list(groups), "created_at": moment, "expires_at": moment + lives_s}
        self._connection.execute(_sessions.insert().values(digest=digest, person_id=person_id, **values))

    def of_session(self, digests: Sequence[str]) -> PersonSession | None:
        """Find a session that has not ended."""
        query = (
            sa.select(_sessions, _people.c.issuer, _people.c.subject, _people.c.name)
            .join_from(_sessions, _people, _people.c.id == _sessions.c.person_id)
            .where(_sessions.c.digest.in_(digests), _sessions.c.expires_at > now())
        )
        row = self._connection.execute(query).first()
        if row is None:
            return None
        return PersonSession(row.person_id, row.issuer, row.subject, row.name, row.tenant, tuple(row.groups))

    def choose_tenant(self, digests: Sequence[str], tenant: str) -> None:
        """Have a session show another tenant."""
        self._connection.execute(_sessions.update().where(_sessions.c.digest.in_(digests)).values(tenant=tenant))

    def end_session(self, digests: Sequence[str]) -> None:
        """End a session; ending it twice is once."""
        self._connection.execute(_sessions.delete().where(_sessions.c.digest.in_(digests)))
