"""Use cases of API keys: create, recognise, list, revoke."""

from __future__ import annotations

import contextlib
import math
import re
import secrets
import time
from uuid import uuid4

from app.audit.records import Action
from app.audit.repository import AuditRepository
from app.db import OUTAGES, Database
from app.keys.records import ApiKey, Caller, Scope, SecretUse
from app.keys.repository import KeyRepository
from app.keys.sessions import LIFETIME_S, MOST_OF_A_KEY, is_session, new_session
from app.refusals import NotFound
from app.secret import ServerSecret
from app.tenants.repository import TenantRepository

PREFIX = "cpk_"
_RANDOM_BYTES = 32
_FORM = re.compile(r"cpk_[A-Za-z0-9_\-]{43}", re.ASCII)
_MOST_LISTED = 1000
_MOVE_EVERY_S = 60


def is_key(text: str) -> bool:
    """Return whether a text has the form of a key, which is no secret."""
    return _FORM.fullmatch(text) is not None


class KeyService:
    """Keys of all tenants."""

    def __init__(self, database: Database, secret: ServerSecret) -> None:
        self._database = database
        self._secret = secret
        self._moved_at: dict[str, float] = {}  # by the ids of keys

    def create(
        self, *, owner: str, name: str, scopes: frozenset[Scope], lives_s: float | None, caller: Caller
    ) -> tuple[ApiKey, str]:
        """Make a key of 256 random bits.

        Returns:
            The key, and its text, which is nowhere else and cannot be had again.

        Raises:
            Conflict: The tenant is being deleted.
        """
        text = PREFIX + secrets.token_urlsafe(_RANDOM_BYTES)
        with self._database.write() as connection:
            TenantRepository(connection).hold_open(owner)
            key = KeyRepository(connection).insert(
                f"key_{uuid4().hex}",
                owner=owner,
                name=name,
                digest=self._digests(text)[0],
                secret_id=self._secret.id,
                scopes=scopes,
                lives_s=lives_s,
            )
            AuditRepository(connection).record(Action.KEY_CREATED, caller.owner, caller.key_id, key.id)
        return key, text

    def recognise(self, text: str) -> ApiKey | None:
        """Return the key with this text, or None where it was revoked, has expired or never was.

        A key that is found under an old secret is kept under the new one from now on: only the text can be hashed anew.
        """
        if not is_key(text):
            return None
        digests = self._digests(text)
        with self._database.read() as connection:
            found = KeyRepository(connection).valid(digests)
        if found is None:
            return None
        key, secret_id = found
        # While processes with either secret run, each would put the key under its own at every use.
        moved_s = time.monotonic() - self._moved_at.get(key.id, -math.inf)
        if secret_id != self._secret.id and moved_s > _MOVE_EVERY_S:
            self._moved_at[key.id] = time.monotonic()
            with contextlib.suppress(*OUTAGES), self._database.write() as connection:  # a later use does it
                KeyRepository(connection).put_under(self._secret.id, key.id, digests[0])
        return key

    def expired(self, text: str) -> bool:
        """Return whether the key with this whole text has expired and was not revoked. Only who has a key learns that of it."""
        if not is_key(text):
            return False
        with self._database.read() as connection:
            return KeyRepository(connection).has_expired(self._digests(text))

    def begin_session(self, key: ApiKey) -> str:
        """Return the value of a browser's session cookie for a key."""
        value = new_session()
        with self._database.write() as connection:
            repository = KeyRepository(connection)
            repository.begin_session(self._session_digests(value)[0], key.id, lives_s=LIFETIME_S, most=MOST_OF_A_KEY)
        return value

    def of_session(self, value: str) -> ApiKey | None:
        """Return the key that a browser's session is for, or None where either has ended."""
        if not is_session(value):
            return None
        with self._database.read() as connection:
            return KeyRepository(connection).of_session(self._session_digests(value))

    def end_session(self, value: str) -> None:
        """End a browser's session, wherever its cookie was copied to."""
        if is_session(value):
            with self._database.write() as connection:
                KeyRepository(connection).end_session(self._session_digests(value))

    def secret_use(self) -> SecretUse:
        """Count what stands under the server's secret already, and what does not."""
        with self._database.read() as connection:
            return KeyRepository(connection).secret_use(self._secret.id)

    def list(self, owner: str | None = None) -> list[ApiKey]:
        """List the keys of one tenant or of all, newest first."""
        with self._database.read() as connection:
            return KeyRepository(connection).list(owner, limit=_MOST_LISTED)

    def revoke(self, key_id: str, *, caller: Caller, owner: str | None = None) -> ApiKey:
        """Revoke a key of one tenant or of any. Raises `NotFound`."""
        with self._database.write() as connection:
            key = KeyRepository(connection).revoke(key_id, owner)
            if key is None:
                raise NotFound("key_not_found", "there is no such key")
            AuditRepository(connection).record(Action.KEY_REVOKED, caller.owner, caller.key_id, key.id)
        return key

    def _digests(self, text: str) -> tuple[str, ...]:
        return tuple(digest.hex() for digest in self._secret.digests("api-key", text))

    def _session_digests(self, value: str) -> tuple[str, ...]:
        return tuple(digest.hex() for digest in self._secret.digests("session", value))
