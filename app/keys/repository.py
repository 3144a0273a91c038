"""SQL of API keys and of browsers' sessions."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from app.db import now
from app.keys.models import api_keys as _keys
from app.keys.models import key_sessions as _sessions
from app.keys.records import ApiKey, Scope, SecretUse


class KeyRepository:
    """Queries within one transaction of the caller's."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection

    def insert(
        self,
        key_id: str,
        *,
        owner: str,
        name: str,
        digest: str,
        secret_id: str,
        scopes: frozenset[Scope],
        lives_s: float | None,
    ) -> ApiKey:
        """Insert a key."""
        moment = self._connection.execute(sa.select(now())).scalar_one()
        expires_at = None if lives_s is None else moment + lives_s
        key = ApiKey(key_id, owner, name, scopes, moment, expires_at, None)
        self._connection.execute(
            _keys.insert().values(
                id=key.id,
                owner=owner,
                name=name,
                digest=digest,
                secret_id=secret_id,
                scopes=sorted(scopes),
                created_at=key.created_at,
                expires_at=key.expires_at,
            )
        )
        return key

    def valid(self, digests: Sequence[str]) -> tuple[ApiKey, str | None] | None:
        """Find the key with one of these digests, and the id of its secret, unless it was revoked or has expired."""
        row = self._connection.execute(sa.select(_keys).where(_keys.c.digest.in_(digests), _is_valid())).mappings().first()
        return None if row is None else (_key(row), row["secret_id"])

    def has_expired(self, digests: Sequence[str]) -> bool:
        """Return whether the key with one of these digests has expired, and was not revoked."""
        late = sa.and_(_keys.c.revoked_at.is_(None), _keys.c.expires_at <= now())
        return self._connection.execute(sa.select(_keys.c.id).where(_keys.c.digest.in_(digests), late)).first() is not None

    def put_under(self, secret_id: str, key_id: str, digest: str) -> None:
        """Keep a key by its digest under another secret."""
        self._connection.execute(_keys.update().where(_keys.c.id == key_id).values(digest=digest, secret_id=secret_id))

    def secret_use(self, secret_id: str) -> SecretUse:
        """Count the valid keys by the secret that they are kept under."""
        under = sa.func.count().filter(_keys.c.secret_id == secret_id)
        row = self._connection.execute(sa.select(sa.func.count(), under).select_from(_keys).where(_is_valid())).one()
        return SecretUse(keys=row[0], keys_under_it=row[1])

    def begin_session(self, digest: str, key_id: str, *, lives_s: float, most: int) -> None:
        """Note a session, and forget those that have expired and, of the same key, the oldest beyond a number."""
        moment = self._connection.execute(sa.select(now())).scalar_one()
        self._connection.execute(_sessions.delete().where(_sessions.c.expires_at <= moment))
        mine = sa.select(_sessions.c.digest).where(_sessions.c.key_id == key_id).order_by(_sessions.c.created_at.desc())
        beyond = list(self._connection.scalars(mine.offset(most - 1)))
        self._connection.execute(_sessions.delete().where(_sessions.c.digest.in_(beyond)))
        values = {"digest": digest, "key_id": key_id, "created_at": moment, "expires_at": moment + lives_s}
        self._connection.execute(_sessions.insert().values(**values))

    def of_session(self, digests: Sequence[str]) -> ApiKey | None:
        """Find the key of a session, unless the session has ended or the key was revoked or has expired."""
        query = (
            sa.select(_keys)
            .join(_sessions, _sessions.c.key_id == _keys.c.id)
            .where(_sessions.c.digest.in_(digests), _sessions.c.expires_at > now(), _is_valid())
        )
        row = self._connection.execute(query).mappings().first()
        return None if row is None else _key(row)

    def end_session(self, digests: Sequence[str]) -> None:
        """End a session; ending it twice is once."""
        self._connection.execute(_sessions.delete().where(_sessions.c.digest.in_(digests)))

    def list(self, owner: str | None, *, limit: int) -> list[ApiKey]:
        """List the keys of one tenant or of all, newest first."""
        query = sa.select(_keys).order_by(_keys.c.created_at.desc(), _keys.c.id.desc()).limit(limit)
        if owner is not None:
            query = query.where(_keys.c.owner == owner)
        return [_key(row) for row in self._connection.execute(query).mappings()]

    def revoke(self, key_id: str, owner: str | None = None) -> ApiKey | None:
        """Revoke a key of one tenant or of any; revoking it twice is once. None: there is no such key."""
        this = _keys.c.id == key_id if owner is None else sa.and_(_keys.c.id == key_id, _keys.c.owner == owner)
        moment = sa.func.coalesce(_keys.c.revoked_at, now())
        self._connection.execute(_keys.update().where(this).values(revoked_at=moment))
        row = self._connection.execute(sa.select(_keys).where(this)).mappings().one_or_none()
        if row is None:
            return None
        self._connection.execute(_sessions.delete().where(_sessions.c.key_id == key_id))
        return _key(row)

    def revoke_of(self, owner: str) -> None:
        """Revoke all keys of a tenant, and end their sessions."""
        mine = _keys.c.owner == owner
        self._connection.execute(_keys.update().where(mine, _keys.c.revoked_at.is_(None)).values(revoked_at=now()))
        ids = sa.select(_keys.c.id).where(mine)
        self._connection.execute(_sessions.delete().where(_sessions.c.key_id.in_(ids)))

    def delete_of(self, owner: str) -> int:
        """Delete all keys of a tenant, with their sessions. Return how many keys."""
        return self._connection.execute(_keys.delete().where(_keys.c.owner == owner)).rowcount


def _is_valid() -> sa.ColumnElement[bool]:
    return sa.and_(_keys.c.revoked_at.is_(None), sa.or_(_keys.c.expires_at.is_(None), _keys.c.expires_at > now()))


def _key(found: sa.RowMapping) -> ApiKey:
    return ApiKey(
        id=found["id"],
        owner=found["owner"],
        name=found["name"],
        scopes=frozenset(Scope(scope) for scope in found["scopes"]),
        created_at=found["created_at"],
        expires_at=found["expires_at"],
        revoked_at=found["revoked_at"],
    )
