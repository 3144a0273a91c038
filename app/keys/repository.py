"""SQL of API keys."""

from __future__ import annotations

import sqlalchemy as sa

from app.db import now
from app.keys.models import api_keys as _keys
from app.keys.records import ApiKey, Scope


class KeyRepository:
    """Queries within one transaction of the caller's."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection

    def insert(
        self, key_id: str, *, owner: str, name: str, digest: str, scopes: frozenset[Scope], lives_s: float | None
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
                scopes=sorted(scopes),
                created_at=key.created_at,
                expires_at=key.expires_at,
            )
        )
        return key

    def valid(self, digest: str) -> ApiKey | None:
        """Find the key with a digest, unless it was revoked or has expired."""
        return self._valid(_keys.c.digest == digest)

    def valid_by_id(self, key_id: str) -> ApiKey | None:
        """Find the key with an id, unless it was revoked or has expired."""
        return self._valid(_keys.c.id == key_id)

    def _valid(self, named: sa.ColumnElement[bool]) -> ApiKey | None:
        alive = sa.or_(_keys.c.expires_at.is_(None), _keys.c.expires_at > now())
        query = sa.select(_keys).where(named, _keys.c.revoked_at.is_(None), alive)
        row = self._connection.execute(query).mappings().one_or_none()
        return None if row is None else _key(row)

    def list(self, owner: str | None, *, limit: int) -> list[ApiKey]:
        """List the keys of one tenant or of all, newest first."""
        query = sa.select(_keys).order_by(_keys.c.created_at.desc(), _keys.c.id.desc()).limit(limit)
        if owner is not None:
            query = query.where(_keys.c.owner == owner)
        return [_key(row) for row in self._connection.execute(query).mappings()]

    def revoke(self, key_id: str) -> ApiKey | None:
        """Revoke a key; revoking it twice is once. None: there is no such key."""
        moment = sa.func.coalesce(_keys.c.revoked_at, now())
        self._connection.execute(_keys.update().where(_keys.c.id == key_id).values(revoked_at=moment))
        row = self._connection.execute(sa.select(_keys).where(_keys.c.id == key_id)).mappings().one_or_none()
        return None if row is None else _key(row)


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
