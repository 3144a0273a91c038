"""Routes where a person shows a key once, and gets a session for it."""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import RedirectResponse

from app.api.deps import Keys
from app.authentication import SIGN_IN, guess_name
from app.errors import Problem
from app.keys.service import KeyService, is_key
from app.keys.sessions import LIFETIME_S, cookie_name
from app.rates import RateLimiter
from app.web.forms import read_form
from app.web.rendering import PageRoute, page

router = APIRouter(route_class=PageRoute, include_in_schema=False)

_OWN_PATH = re.compile(r"/(?![/\\])[\w\-./?=&%+,\[\]~:]*", re.ASCII)
_LONGEST = 2000

Next = Annotated[str, Query(alias="next", max_length=_LONGEST)]


@router.get(SIGN_IN)
def show_sign_in(request: Request, wanted: Next = "/") -> Response:
    """Ask for a key, where keys are on."""
    if not request.app.state.settings.auth:
        return RedirectResponse("/", HTTPStatus.SEE_OTHER)
    return page(request, "sign_in.html", {"wanted": _own(wanted), "refused": ""})


@router.post(SIGN_IN)
async def sign_in(request: Request, keys: Keys) -> Response:
    """Begin a session."""
    form = await read_form(request)
    wanted = _own(form.one("next"))
    text = form.one("key").strip()
    key = await run_in_threadpool(keys.recognise, text)
    if key is None:
        strangers: RateLimiter = request.app.state.strangers
        if not (allowance := strangers.take(guess_name(text))).granted:
            detail = f"{allowance.limit} wrong tries a minute are as many as there may be; slow down"
            raise Problem(HTTPStatus.TOO_MANY_REQUESTS, "rate_limited", detail, headers={"Retry-After": str(allowance.reset_s)})
        refused = await run_in_threadpool(_why, text, keys)
        return page(request, "sign_in.html", {"wanted": wanted, "refused": refused}, status=HTTPStatus.UNAUTHORIZED)
    await _end_session(request, keys)
    value = await run_in_threadpool(keys.begin_session, key)
    response = RedirectResponse(wanted, HTTPStatus.SEE_OTHER)
    secure = request.url.scheme == "https"
    response.set_cookie(cookie_name(secure=secure), value, max_age=LIFETIME_S, secure=secure, httponly=True, samesite="strict")
    return response


@router.post("/sign-out")
async def sign_out(request: Request, keys: Keys) -> Response:
    """End the session of this browser, here and on the server."""
    await _end_session(request, keys)
    response = RedirectResponse(SIGN_IN, HTTPStatus.SEE_OTHER)
    secure = request.url.scheme == "https"
    response.delete_cookie(cookie_name(secure=secure), secure=secure, httponly=True, samesite="strict")
    return response


async def _end_session(request: Request, keys: KeyService) -> None:
    value = request.cookies.get(cookie_name(secure=request.url.scheme == "https"))
    if value is not None:
        await run_in_threadpool(keys.end_session, value)


def _why(text: str, keys: KeyService) -> str:
    if not text:
        return "Fill in an API key; one begins with cpk_."
    if not is_key(text):
        return "That is no whole API key: one is cpk_ and 43 letters, digits, - and _. Was it cut off, or quoted?"
    return "This key has expired." if keys.expired(text) else "There is no such key here, or it was revoked."


def _own(wanted: str) -> str:
    """Keep people here: a link to the form must not lead them elsewhere."""
    return wanted if _OWN_PATH.fullmatch(wanted) and len(wanted) <= _LONGEST else "/"
