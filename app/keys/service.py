"""Use cases of API keys: create, recognise, list, revoke."""

from __future__ import annotations

import re
import secrets
from uuid import uuid4

from app.audit.records import Action
from app.audit.repository import AuditRepository
from app.db import Database
from app.keys.records import ApiKey, Caller, Scope
from app.keys.repository import KeyRepository
from app.keys.sessions import Sessions
from app.refusals import NotFound
from app.secret import ServerSecret

PREFIX = "cpk_"
_RANDOM_BYTES = 32
_FORM = re.compile(r"cpk_[A-Za-z0-9_\-]{43}", re.ASCII)
_MOST_LISTED = 1000


class KeyService:
    """Keys of all tenants."""

    def __init__(self, database: Database, secret: ServerSecret) -> None:
        self._database = database
        self._secret = secret
        self._sessions = Sessions(secret)

    def create(
        self, *, owner: str, name: str, scopes: frozenset[Scope], lives_s: float | None, caller: Caller
    ) -> tuple[ApiKey, str]:
        """Make a key of 256 random bits.

        Returns:
            The key, and its text, which is nowhere else and cannot be had again.
        """
        text = PREFIX + secrets.token_urlsafe(_RANDOM_BYTES)
        with self._database.write() as connection:
            key = KeyRepository(connection).insert(
                f"key_{uuid4().hex}", owner=owner, name=name, digest=self._digest(text), scopes=scopes, lives_s=lives_s
            )
            AuditRepository(connection).record(Action.KEY_CREATED, caller.owner, caller.key_id, key.id)
        return key, text

    def recognise(self, text: str) -> ApiKey | None:
        """Return the key with this text, or None where it was revoked, has expired or never was."""
        if not _FORM.fullmatch(text):
            return None
        with self._database.read() as connection:
            return KeyRepository(connection).valid(self._digest(text))

    def begin_session(self, key: ApiKey) -> str:
        """Return the value of a browser's session cookie for a key."""
        return self._sessions.seal(key.id)

    def of_session(self, value: str) -> ApiKey | None:
        """Return the key that a browser's session names, or None where it was revoked or has expired since."""
        key_id = self._sessions.open(value)
        if key_id is None:
            return None
        with self._database.read() as connection:
            return KeyRepository(connection).valid_by_id(key_id)

    def list(self, owner: str | None = None) -> list[ApiKey]:
        """List the keys of one tenant or of all, newest first."""
        with self._database.read() as connection:
            return KeyRepository(connection).list(owner, limit=_MOST_LISTED)

    def revoke(self, key_id: str, *, caller: Caller) -> ApiKey:
        """Revoke a key. Raises `NotFound`."""
        with self._database.write() as connection:
            key = KeyRepository(connection).revoke(key_id)
            if key is None:
                raise NotFound("key_not_found", "there is no such key")
            AuditRepository(connection).record(Action.KEY_REVOKED, caller.owner, caller.key_id, key.id)
        return key

    def _digest(self, text: str) -> str:
        return self._secret.digest("api-key", text).hex()
