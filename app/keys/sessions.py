"""Browser sessions: a cookie with a key's id, signed, that lasts a working day (docs/decisions/0050)."""

from __future__ import annotations

from itsdangerous import BadData, URLSafeTimedSerializer

from app.secret import ServerSecret

COOKIE = "coppice_session"
LIFETIME_S = 12 * 3600


class Sessions:
    """Makes and reads the values of the session cookie. They name a key and are none: whether it still holds is looked up."""

    def __init__(self, secret: ServerSecret) -> None:
        self._secret = secret

    def seal(self, key_id: str) -> str:
        """Return the cookie's value for a key."""
        return self._signer().dumps(key_id)

    def open(self, value: str) -> str | None:
        """Return the id of the key that a cookie names, or None where it is too old or not ours."""
        try:
            found = self._signer().loads(value, max_age=LIFETIME_S)
        except BadData:
            return None
        return found if isinstance(found, str) else None

    def _signer(self) -> URLSafeTimedSerializer:
        return URLSafeTimedSerializer(self._secret.digest("session", "cookie"), salt="coppice.session")
