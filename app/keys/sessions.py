"""Browser sessions: a random cookie, of which only a keyed hash is kept (docs/decisions/0103)."""

from __future__ import annotations

import re
import secrets

LIFETIME_S = 12 * 3600
MOST_OF_A_KEY = 100  # browsers that are signed in by one key; the next one signs out the oldest

_COOKIE = "coppice_session"
_PREFIX = "cps_"
_RANDOM_BYTES = 32
_FORM = re.compile(r"cps_[A-Za-z0-9_\-]{43}", re.ASCII)


def cookie_name(*, secure: bool) -> str:
    """Return the name of the session cookie. Over HTTPS browsers take it from this very host alone (RFC 6265bis, 4.1.3.2)."""
    return f"__Host-{_COOKIE}" if secure else _COOKIE


def new_session() -> str:
    """Return a cookie value of 256 random bits."""
    return _PREFIX + secrets.token_urlsafe(_RANDOM_BYTES)


def is_session(value: str) -> bool:
    """Return whether a value has the form of one of ours."""
    return _FORM.fullmatch(value) is not None
