"""What browsers and programs show of a person, told apart by its form, which is no secret."""

from __future__ import annotations

import re
import secrets

_SESSION_PREFIX = "cpo_"
_SESSION = re.compile(r"cpo_[A-Za-z0-9_\-]{43}", re.ASCII)
_BROWSER = re.compile(r"[A-Za-z0-9_\-]{43}", re.ASCII)
_RANDOM_BYTES = 32
_COOKIE = "coppice_sign_in"


def is_token(text: str) -> bool:
    """Return whether a text has the form of a signed token: a JSON object, in three parts with dots between them."""
    return text.startswith("ey") and text.count(".") == 2


def is_person_session(value: str) -> bool:
    """Return whether a cookie's value has the form of a person's session."""
    return _SESSION.fullmatch(value) is not None


def new_session() -> str:
    """Return a session's cookie value of 256 random bits."""
    return _SESSION_PREFIX + secrets.token_urlsafe(_RANDOM_BYTES)


def browser_cookie(*, secure: bool) -> str:
    """Return the name of the cookie that ties a sign-in to the browser that began it."""
    return f"__Host-{_COOKIE}" if secure else _COOKIE


def browser_of(value: str | None) -> str:
    """Return that cookie's value: the one that the browser has, for it may have begun in another tab too, or a new one."""
    return value if value is not None and _BROWSER.fullmatch(value) else secrets.token_urlsafe(_RANDOM_BYTES)
