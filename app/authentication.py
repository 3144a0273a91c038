"""Authentication: the caller is known before anything else of a request is read, at every address of the API."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode

import structlog
from fastapi.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from app.db import OUTAGES
from app.errors import database_problem, problem_response
from app.keys.records import Caller
from app.keys.service import KeyService, is_key
from app.keys.sessions import cookie_name
from app.paths import is_under
from app.people.forms import is_login, is_person_session, is_token
from app.people.problems import NoRole, ProviderAway, SignInProblem, TenantUnclear, TokenRefused
from app.proxies import party_of
from app.rates import Allowance, RateLimiter

if TYPE_CHECKING:  # its libraries are there only where people sign in by a provider
    from app.people.service import PeopleService

# Every path under these needs a key. The others (health, the OpenAPI document, the dashboard's own files) tell nothing about
# anybody's jobs.
_API, _HUB = "/v1", "/hub"
_GUARDED = (_API, _HUB)
# Pages for people: a browser's session replaces the key, and without a session the sign-in form is shown.
_PAGES = ("/jobs", "/submit", "/browse", "/compare", "/tenants", "/command-line")
_START = "/"
SIGN_IN = "/sign-in"
BY_PROVIDER = "/sign-in/oidc"
_SAFE = frozenset({"GET", "HEAD"})
# Wrong keys and sessions that begin with the same characters are guesses at one: 48 random bits, after `cpk_` or `cps_`.
_ALIKE = 12
_MAKE_ONE = "whoever runs the server makes one by coppice keys create"
_NO_KEY = "show an API key: Authorization: Bearer cpk_..."
_NO_BEARER = "the Authorization header holds no API key; show one, once: Authorization: Bearer cpk_..."
_NO_FORM = "what was shown is no whole API key: one is cpk_ and 43 letters, digits, - and _; was it cut off, or quoted?"
_UNKNOWN = f"this API key is not known here, or was revoked; is it another server's? {_MAKE_ONE.capitalize()}"
_EXPIRED = f"this API key has expired; {_MAKE_ONE}"
_NO_PROVIDER = "this is no API key but a token, and people do not sign in by a provider here; an API key is cpk_..."
# How each problem of a sign-in is answered where a token was shown.
PROBLEMS: Mapping[type[SignInProblem], tuple[HTTPStatus, str]] = {
    TokenRefused: (HTTPStatus.UNAUTHORIZED, "unauthenticated"),
    NoRole: (HTTPStatus.FORBIDDEN, "no_role"),
    TenantUnclear: (HTTPStatus.BAD_REQUEST, "tenant_unclear"),
    ProviderAway: (HTTPStatus.SERVICE_UNAVAILABLE, "sign_in_unavailable"),
}
_TENANT_HEADER = b"coppice-tenant"
_SESSION_OVER = "the session of this browser has ended; sign in again, or show an API key: Authorization: Bearer cpk_..."
_LOGIN_OVER = "this login of a command line has ended, was ended, or is another server's; log in again: coppice login"
# The Hub's own headers: its clients then tell people that they may need a token.
_UNKNOWN_TO_STRANGERS = {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"}


class AuthenticationMiddleware:
    """Puts a `Caller` into the request's state, or answers 401; counts requests, or answers 429.

    Args:
        app: The guarded application.
        keys: The keys; None while authentication is off, and then everything belongs to one caller without a name.
        people: Those who sign in by a provider; None: nobody does.
        limiter: How often a key may ask.
        strangers: How often an address may ask without a right key, and how often anybody may guess at one key.
    """

    def __init__(
        self,
        app: ASGIApp,
        keys: KeyService | None,
        people: PeopleService | None,
        limiter: RateLimiter,
        strangers: RateLimiter,
    ) -> None:
        self._app = app
        self._keys = keys
        self._people = people
        self._limiter = limiter
        self._strangers = strangers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        state = scope.setdefault("state", {})
        if self._keys is None:
            state["caller"] = Caller()
        elif _is_guarded(scope):
            caller, refused = None, None
            try:
                caller = await self._caller(scope, self._keys)
            except OUTAGES as error:
                await database_problem(scope["path"], error)(scope, receive, send)
                return
            except SignInProblem as problem:
                refused = problem
            allowance = self._count_stranger(scope) if caller is None else self._limiter.take(caller.key_id)
            state["headers"] = allowance.headers()
            if not allowance.granted:
                whose = "one key may make" if caller is not None else "may come without a right key"
                detail = f"{allowance.limit} requests a minute are as many as {whose}; slow down"
                headers = {"Retry-After": str(allowance.reset_s)}
                response = problem_response(scope["path"], 429, "rate_limited", detail, headers=headers)
                await response(scope, receive, send)
                return
            if caller is None:
                if refused is not None:
                    ask = _refusal(scope["path"], refused)
                else:
                    ask = self._app if is_under(scope["path"], SIGN_IN) else await self._unauthenticated(scope, self._keys)
                await ask(scope, receive, send)
                return
            state["caller"] = caller
            with structlog.contextvars.bound_contextvars(tenant=caller.owner, key_id=caller.key_id):
                await self._app(scope, receive, send)
            return
        await self._app(scope, receive, send)

    async def _caller(self, scope: Scope, keys: KeyService) -> Caller | None:
        session, text = _shown(scope)
        if self._people is not None and is_person_session(session):
            return await run_in_threadpool(self._people.of_session, session)
        if self._people is not None and is_token(text):
            return await run_in_threadpool(self._people.of_token, text, _tenant(scope))
        if self._people is not None and is_login(text):
            return await run_in_threadpool(self._people.of_login, text)
        if session:
            key = await run_in_threadpool(keys.of_session, session)
        elif text:
            key = await run_in_threadpool(keys.recognise, text)
        else:
            return None
        return None if key is None else Caller(key.owner, key.id, key.scopes)

    def _count_stranger(self, scope: Scope) -> Allowance:
        """Count who showed nothing right by address and by what was shown, apart from right keys: nobody locks another out."""
        client = scope.get("client")
        by_address = self._strangers.take(f"address {party_of(client[0]) if client else ''}")
        guess = next(filter(None, _shown(scope)), "")
        # Tokens begin alike, and are nothing to guess at.
        if not by_address.granted or not guess or is_token(guess):
            return by_address
        by_guess = self._strangers.take(guess_name(guess))
        return by_guess if not by_guess.granted else min(by_address, by_guess, key=lambda allowance: allowance.remaining)

    async def _unauthenticated(self, scope: Scope, keys: KeyService) -> ASGIApp:
        """Build the answer to a request without a key: a redirect to the sign-in form on pages, a 401 elsewhere."""
        if _is_page(scope["path"]):
            return RedirectResponse(_sign_in_first(scope), HTTPStatus.SEE_OTHER)
        try:
            detail = await self._what_is_wrong(scope, keys)
        except OUTAGES as error:
            return database_problem(scope["path"], error)
        challenge = 'Bearer realm="coppice"' + ("" if detail == _NO_KEY else ', error="invalid_token"')
        headers = {"WWW-Authenticate": challenge}
        if is_under(scope["path"], _HUB):
            headers |= _UNKNOWN_TO_STRANGERS
        return problem_response(scope["path"], HTTPStatus.UNAUTHORIZED, "unauthenticated", detail, headers=headers)

    async def _what_is_wrong(self, scope: Scope, keys: KeyService) -> str:
        """Say what was wrong with what was shown. Nothing of a key that is not shown whole is told, but its form."""
        session, text = _shown(scope)
        if session:
            return _SESSION_OVER
        if not any(name == b"authorization" for name, _value in scope["headers"]):
            return _NO_KEY
        if not text:
            return _NO_BEARER
        if is_login(text):
            return _LOGIN_OVER
        if not is_key(text):
            return _NO_PROVIDER if is_token(text) else _NO_FORM
        return _EXPIRED if await run_in_threadpool(keys.expired, text) else _UNKNOWN


def _refusal(path: str, problem: SignInProblem) -> ASGIApp:
    """Answer for a token that does not count, or not for this."""
    status, code = PROBLEMS[type(problem)]
    headers = {"Retry-After": "5"} if status is HTTPStatus.SERVICE_UNAVAILABLE else {}
    if status is HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = 'Bearer realm="coppice", error="invalid_token"'
    return problem_response(path, status, code, str(problem), headers=headers)


def guess_name(text: str) -> str:
    """Name what a wrong key or session guesses at, as limits count it, from whatever address."""
    return f"guess {text[:_ALIKE]}"


def _shown(scope: Scope) -> tuple[str, str]:
    """Return the session and the key, token or login that a request shows: one of them, or neither."""
    given = [value for name, value in scope["headers"] if name == b"authorization"]
    if not given:
        return _session(scope) or "", ""
    scheme, _space, text = given[0].decode("latin-1").partition(" ") if len(given) == 1 else ("", "", "")
    return "", text.strip() if scheme.lower() == "bearer" else ""


def _tenant(scope: Scope) -> str | None:
    """Read for which of their tenants a person asks."""
    return next((value.decode("latin-1").strip() for name, value in scope["headers"] if name == _TENANT_HEADER), None)


def _is_guarded(scope: Scope) -> bool:
    """Return whether requests to the path are authenticated and counted; of the sign-in, only what makes the server work is."""
    path = scope["path"]
    tried = (path == SIGN_IN and scope["method"] not in _SAFE) or is_under(path, BY_PROVIDER)
    return tried or _is_page(path) or is_under(path, *_GUARDED)


def _is_page(path: str) -> bool:
    return path == _START or is_under(path, *_PAGES)


def _session(scope: Scope) -> str | None:
    """Read the cookie where it counts: on pages, and for what they show and link to of the API, which changes nothing."""
    if not _is_page(scope["path"]) and not (is_under(scope["path"], _API) and scope["method"] in _SAFE):
        return None
    return Request(scope).cookies.get(cookie_name(secure=scope.get("scheme") == "https"))


def _sign_in_first(scope: Scope) -> str:
    """Return the address of the sign-in form, with the page to come back to in it."""
    query = scope.get("query_string", b"").decode("latin-1")
    wanted = quote(scope["path"]) + (f"?{query}" if query else "")
    return f"{SIGN_IN}?{urlencode({'next': wanted})}" if scope["method"] in _SAFE and wanted != _START else SIGN_IN
