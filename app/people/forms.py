"""What browsers and programs show of a person, told apart by its form, which is no secret."""

from __future__ import annotations

import base64
import hashlib
import re
import secrets

_SESSION_PREFIX = "cpo_"
_SESSION = re.compile(r"cpo_[A-Za-z0-9_\-]{43}", re.ASCII)
_LOGIN = re.compile(r"cpl_([A-Z2-7]{20})([A-Za-z0-9_\-]{43})", re.ASCII)
_CHALLENGE = re.compile(r"[A-Za-z0-9_\-]{43}", re.ASCII)
_CODE_BYTES = 13  # of which 100 bits are used: five letters, four times
_CODE_LETTERS = 20
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


def is_login(text: str) -> bool:
    """Return whether a text has the form of what a command line shows after ``coppice login``."""
    return _LOGIN.fullmatch(text) is not None


def is_challenge(text: str) -> bool:
    """Return whether a text has the form of a command line's challenge: a SHA-256, as RFC 7636 (4.2) writes it."""
    return _CHALLENGE.fullmatch(text) is not None


def new_code() -> str:
    """Return a code of 100 random bits for people to copy."""
    return base64.b32encode(secrets.token_bytes(_CODE_BYTES)).decode()[:_CODE_LETTERS]


def proof(code: str, challenge: str) -> str:
    """Return what is kept, hashed, of a command line's login: its code, and the challenge of the one command line."""
    return f"{code} {challenge}"


def proof_of(login: str) -> str:
    """Return the same of what the command line shows: the code, and behind it what the challenge is the SHA-256 of."""
    found = _LOGIN.fullmatch(login)
    assert found is not None, "the form was looked at"
    code, verifier = found.groups()
    digest = hashlib.sha256(verifier.encode()).digest()
    return proof(code, base64.urlsafe_b64encode(digest).rstrip(b"=").decode())


def browser_cookie(*, secure: bool) -> str:
    """Return the name of the cookie that ties a sign-in to the browser that began it."""
    return f"__Host-{_COOKIE}" if secure else _COOKIE


def browser_of(value: str | None) -> str:
    """Return that cookie's value: the one that the browser has, for it may have begun in another tab too, or a new one."""
    return value if value is not None and _BROWSER.fullmatch(value) else secrets.token_urlsafe(_RANDOM_BYTES)
