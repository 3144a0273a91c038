"""Sending requests, for both clients: addresses, keys, errors, and when to try again."""

from __future__ import annotations

import os
import re
from collections.abc import Generator
from contextlib import contextmanager
from json import JSONDecodeError
from urllib.parse import urlsplit

import httpx2
from pydantic import ValidationError
from tenacity import RetryCallState, wait_random_exponential

from coppice.errors import AnswerUnreadable, ApiError, BadArgument, ServiceUnreachable
from coppice.logins import login_for

DEFAULT_URL = "http://127.0.0.1:8000"
KEY_VARIABLE = "COPPICE_API_KEY"

TIMEOUT = httpx2.Timeout(10, read=40)
RETRY_FOR_S = 30
# A service that has never answered is more likely not there than restarting.
_FIRST_ANSWER_S = 3
_LONGEST_PAUSE_S = 30
_RETRIED = frozenset({429, 502, 503, 504})
_BEFORE_ANY_EFFECT = frozenset({429, 503})
_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
_NUMBER = re.compile(r"^\[Errno -?\d+\] ")
_NEVER_SENT = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout)


def address_of(url: str) -> str:
    """Return the address of a service as it is used.

    Raises:
        BadArgument: It is none.
    """
    wanted = f"must be such as {DEFAULT_URL} or https://pruning.example.org"
    try:
        parts = urlsplit(url.strip())
        port = parts.port
    except ValueError:
        raise BadArgument(f"the service's address {url!a} cannot be read; it {wanted}") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        like = "" if "://" in url or not url.strip() else f"; did you mean http://{url.strip()}?"
        raise BadArgument(f"the service's address {wanted}, got {url!a}{like}")
    if parts.query or parts.fragment:
        raise BadArgument(f"the service's address {wanted}, without ? and #; keys go into {KEY_VARIABLE}")
    return url.strip().rstrip("/")


def headers_for(api_key: str | None, url: str) -> dict[str, str]:
    """Return the headers of every request. Without ``api_key`` it is the environment's, or else what ``coppice login`` kept.

    Args:
        api_key: A key, or a token of the provider's.
        url: Address of the service.

    Raises:
        BadArgument: The key cannot be sent, or what was kept cannot be read.
    """
    key = (api_key or os.environ.get(KEY_VARIABLE, "")).strip() or login_for(url)
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise BadArgument(
            f"the API key holds signs that no key has; a key is cpk_ and 43 letters, digits, - and _: {KEY_VARIABLE}"
        )
    return {"Accept": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})


def is_outside(url: str) -> bool:
    """Return whether the environment's proxy applies to an address: a service on this host is never behind one."""
    return httpx2.URL(url).host not in _LOOPBACK


class RetryPolicy:
    """When a request is sent again, and after which pause. All requests of a client share one policy."""

    def __init__(self, retry_for_s: float) -> None:
        self._retry_for_s = retry_for_s
        self._backoff = wait_random_exponential(multiplier=0.2, max=5)
        self.has_answered = False

    def is_worth_it(self, error: BaseException, *, repeatable: bool) -> bool:
        """Return whether the same request may succeed later, and can be repeated without harm."""
        if isinstance(error, ServiceUnreachable):
            return repeatable or not error.was_sent
        return isinstance(error, ApiError) and error.status in (_RETRIED if repeatable else _BEFORE_ANY_EFFECT)

    def pause_s(self, state: RetryCallState) -> float:
        """Return the pause before the next try: the back-off, or what the service asks for (at most 30 s) if that is longer."""
        error = state.outcome.exception() if state.outcome is not None else None
        asked = error.retry_after_s if isinstance(error, ApiError) else None
        return max(self._backoff(state), min(asked or 0.0, _LONGEST_PAUSE_S))

    def is_over(self, state: RetryCallState) -> bool:
        """Return whether the request has been tried for long enough."""
        limit_s = self._retry_for_s if self.has_answered else min(self._retry_for_s, _FIRST_ANSWER_S)
        return (state.seconds_since_start or 0) >= limit_s


@contextmanager
def translated(url: str) -> Generator[None]:
    """Translate the transport's errors into the client's.

    Args:
        url: Address of the service.
    """
    try:
        yield
    except httpx2.TransportError as error:
        message = f"no answer from the service at {url} ({_reason(error)}); {_advice(url, error)}"
        raise ServiceUnreachable(message, was_sent=not isinstance(error, _NEVER_SENT)) from error


@contextmanager
def understood(url: str) -> Generator[None]:
    """Say so where an answer is none of the service's.

    Args:
        url: Address of the service.
    """
    try:
        yield
    except (ValidationError, JSONDecodeError) as error:
        message = f"what answers at {url} is not Coppice, or another version of it; is the address right?"
        raise AnswerUnreadable(message) from error


def _reason(error: httpx2.TransportError) -> str:
    if isinstance(error, httpx2.TimeoutException):
        return "it did not answer in time"
    said = _NUMBER.sub("", str(error)).strip().rstrip(".")
    return said[:1].lower() + said[1:] if said else type(error).__name__


def _advice(url: str, error: httpx2.TransportError) -> str:
    said = str(error)
    if "WRONG_VERSION_NUMBER" in said or "record layer" in said.lower():
        return f"it seems to speak http there: try http://{url.partition('://')[2]}"
    if "CERTIFICATE_VERIFY_FAILED" in said:
        return "its certificate is not trusted here: SSL_CERT_FILE names the authority's file"
    if isinstance(error, httpx2.RemoteProtocolError) and url.startswith("http://"):
        return f"is it running there, or does it speak https: https://{url.partition('://')[2]}?"
    return "is it running there, at this host and port?"


def api_error(response: httpx2.Response) -> ApiError:
    """Read the error of a response (RFC 9457)."""
    try:
        problem = response.json()
        code, detail = str(problem["code"]), str(problem["detail"])
        errors = tuple((str(one["pointer"]), str(one["message"])) for one in problem.get("errors", ()))
    except (ValueError, KeyError, TypeError, AttributeError):
        code, errors = "unknown", ()
        detail = f"the service answered {response.status_code} {response.reason_phrase}"
        if not response.headers.get("content-type", "").startswith("application/"):
            detail += f"; is {response.url.scheme}://{response.url.netloc.decode()} the address of Coppice?"
    after = response.headers.get("retry-after", "")
    retry_after_s = float(after) if after.isascii() and after.isdigit() else None
    return ApiError(response.status_code, code, detail, response.headers.get("x-request-id", ""), retry_after_s, errors)
