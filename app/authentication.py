"""Authentication: the caller is known before anything else of a request is read, at every address of the API."""

from __future__ import annotations

from http import HTTPStatus
from urllib.parse import quote, urlencode

import structlog
from fastapi.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from app.db import OUTAGES
from app.errors import database_problem, problem_response
from app.keys.records import Caller
from app.keys.service import KeyService
from app.keys.sessions import COOKIE
from app.paths import is_under
from app.rates import RateLimiter

# Every path under these needs a key. The others (health, the OpenAPI document, the dashboard's own files) tell nothing about
# anybody's jobs.
_API, _HUB = "/v1", "/hub"
_GUARDED = (_API, _HUB)
# Pages for people: a browser's session replaces the key, and without a session the sign-in form is shown.
_PAGES = ("/jobs", "/submit", "/compare")
_START = "/"
SIGN_IN = "/sign-in"
_SAFE = frozenset({"GET", "HEAD"})
# The Hub's own headers: its clients then tell people that they may need a token.
_UNKNOWN_TO_STRANGERS = {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"}


class AuthenticationMiddleware:
    """Puts a `Caller` into the request's state, or answers 401; counts requests, or answers 429.

    Args:
        app: The guarded application.
        keys: The keys; None while authentication is off, and then everything belongs to one caller without a name.
        limiter: How often a key may ask.
    """

    def __init__(self, app: ASGIApp, keys: KeyService | None, limiter: RateLimiter) -> None:
        self._app = app
        self._keys = keys
        self._limiter = limiter

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        state = scope.setdefault("state", {})
        if self._keys is None:
            state["caller"] = Caller()
        elif _is_guarded(scope):
            try:
                caller = await self._caller(scope, self._keys)
            except OUTAGES as error:
                await database_problem(scope["path"], error)(scope, receive, send)
                return
            allowance = self._limiter.take(_name(caller, scope))
            state["headers"] = allowance.headers()
            if not allowance.granted:
                detail = f"{allowance.limit} requests a minute are as many as one key may make; slow down"
                headers = {"Retry-After": str(allowance.reset_s)}
                response = problem_response(scope["path"], 429, "rate_limited", detail, headers=headers)
                await response(scope, receive, send)
                return
            if caller is None:
                ask = self._app if scope["path"] == SIGN_IN else _unauthenticated(scope)
                await ask(scope, receive, send)
                return
            state["caller"] = caller
            with structlog.contextvars.bound_contextvars(tenant=caller.owner, key_id=caller.key_id):
                await self._app(scope, receive, send)
            return
        await self._app(scope, receive, send)

    async def _caller(self, scope: Scope, keys: KeyService) -> Caller | None:
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        session = None if given else _session(scope)
        if session is not None:
            key = await run_in_threadpool(keys.of_session, session)
            return None if key is None else Caller(key.owner, key.id, key.scopes)
        scheme, _space, text = given[0].decode("latin-1").partition(" ") if len(given) == 1 else ("", "", "")
        if scheme.lower() != "bearer":
            return None
        key = await run_in_threadpool(keys.recognise, text.strip())
        return None if key is None else Caller(key.owner, key.id, key.scopes)


def _unauthenticated(scope: Scope) -> Response:
    """Build the answer to a request without a key: a redirect to the sign-in form on pages, a 401 elsewhere."""
    if _is_page(scope["path"]):
        return RedirectResponse(_sign_in_first(scope), HTTPStatus.SEE_OTHER)
    detail = "show an API key: Authorization: Bearer cpk_..."
    headers = {"WWW-Authenticate": 'Bearer realm="coppice"'}
    if is_under(scope["path"], _HUB):
        headers |= _UNKNOWN_TO_STRANGERS
    return problem_response(scope["path"], HTTPStatus.UNAUTHORIZED, "unauthenticated", detail, headers=headers)


def _is_guarded(scope: Scope) -> bool:
    """Return whether requests to the path are authenticated and counted; of the sign-in form, only sent forms are."""
    path = scope["path"]
    tried = path == SIGN_IN and scope["method"] not in _SAFE
    return tried or _is_page(path) or is_under(path, *_GUARDED)


def _is_page(path: str) -> bool:
    return path == _START or is_under(path, *_PAGES)


def _session(scope: Scope) -> str | None:
    """Read the cookie where it counts: on pages, and for what they show and link to of the API, which changes nothing."""
    if not _is_page(scope["path"]) and not (is_under(scope["path"], _API) and scope["method"] in _SAFE):
        return None
    return Request(scope).cookies.get(COOKIE)


def _sign_in_first(scope: Scope) -> str:
    """Return the address of the sign-in form, with the page to come back to in it."""
    query = scope.get("query_string", b"").decode("latin-1")
    wanted = quote(scope["path"]) + (f"?{query}" if query else "")
    return f"{SIGN_IN}?{urlencode({'next': wanted})}" if scope["method"] in _SAFE and wanted != _START else SIGN_IN


def _name(caller: Caller | None, scope: Scope) -> str:
    """Name the bucket. Wrong keys are counted by address, apart from right ones: nobody can use up what is another's."""
    if caller is not None:
        return caller.key_id
    return f"address {scope['client'][0] if scope.get('client') else ''}"
