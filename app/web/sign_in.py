"""Routes where a person shows a key once, or is sent to the provider, and gets a session for it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Annotated, cast

from fastapi import APIRouter, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import RedirectResponse

from app.api.deps import Keys
from app.authentication import BY_PROVIDER, SIGN_IN, guess_name
from app.errors import Problem
from app.keys.service import KeyService, is_key
from app.keys.sessions import LIFETIME_S, cookie_name
from app.people.forms import browser_cookie, browser_of, is_person_session
from app.people.problems import (
    NoRole,
    ProviderAway,
    SignInDenied,
    SignInLost,
    SignInProblem,
    TenantUnclear,
    TokenRefused,
)
from app.rates import RateLimiter
from app.web.forms import read_form
from app.web.rendering import PageRoute, page

if TYPE_CHECKING:
    from app.people.service import PeopleService

router = APIRouter(route_class=PageRoute, include_in_schema=False)

_OWN_PATH = re.compile(r"/(?![/\\])[\w\-./?=&%+,\[\]~:]*", re.ASCII)
_LONGEST = 2000
_LONGEST_ANSWER = 4096  # of a code, a state
_BROWSER_S = 600
_STATUSES: Mapping[type[SignInProblem], HTTPStatus] = {
    SignInLost: HTTPStatus.BAD_REQUEST,
    SignInDenied: HTTPStatus.FORBIDDEN,
    NoRole: HTTPStatus.FORBIDDEN,
    TokenRefused: HTTPStatus.FORBIDDEN,
    ProviderAway: HTTPStatus.SERVICE_UNAVAILABLE,
}

Next = Annotated[str, Query(alias="next", max_length=_LONGEST)]


@router.get(SIGN_IN)
def show_sign_in(request: Request, wanted: Next = "/") -> Response:
    """Ask for a key or a sign-in by the provider, where keys are on."""
    if not request.app.state.settings.auth:
        return RedirectResponse("/", HTTPStatus.SEE_OTHER)
    return _form(request, wanted)


@router.post(SIGN_IN)
async def sign_in(request: Request, keys: Keys) -> Response:
    """Begin a session by a key."""
    form = await read_form(request)
    wanted = form.one("next")
    text = form.one("key").strip()
    key = await run_in_threadpool(keys.recognise, text)
    if key is None:
        strangers: RateLimiter = request.app.state.strangers
        if not (allowance := strangers.take(guess_name(text))).granted:
            detail = f"{allowance.limit} wrong tries a minute are as many as there may be; slow down"
            raise Problem(HTTPStatus.TOO_MANY_REQUESTS, "rate_limited", detail, headers={"Retry-After": str(allowance.reset_s)})
        refused = await run_in_threadpool(_why, text, keys)
        return _form(request, wanted, refused=refused, status=HTTPStatus.UNAUTHORIZED)
    await run_in_threadpool(_end_session, request, keys)
    value = await run_in_threadpool(keys.begin_session, key)
    response = RedirectResponse(_own(wanted), HTTPStatus.SEE_OTHER)
    _set_session(request, response, value, LIFETIME_S)
    return response


@router.get(BY_PROVIDER)
def begin_at_provider(request: Request, wanted: Next = "/") -> Response:
    """Send the browser to the provider."""
    people = _people(request)
    if people is None:
        return RedirectResponse(SIGN_IN, HTTPStatus.SEE_OTHER)
    browser = browser_of(request.cookies.get(browser_cookie(secure=_is_secure(request))))
    try:
        address = people.begin(browser, _own(wanted), _address(request, f"{BY_PROVIDER}/callback"))
    except SignInProblem as problem:
        return _failed(request, problem, wanted)
    response = RedirectResponse(address, HTTPStatus.SEE_OTHER)
    # Lax: the provider sends the browser back here from its own site.
    _set_cookie(request, response, browser_cookie(secure=_is_secure(request)), browser, _BROWSER_S, samesite="lax")
    return response


@router.get(f"{BY_PROVIDER}/callback")
def come_back(request: Request, keys: Keys) -> Response:
    """Take the provider's answer, which the browser brings, and begin a session."""
    people = _people(request)
    if people is None:
        return RedirectResponse(SIGN_IN, HTTPStatus.SEE_OTHER)
    given = request.query_params
    answer = {name: given[name][:_LONGEST_ANSWER] for name in ("state", "code", "iss", "error") if name in given}
    browser = request.cookies.get(browser_cookie(secure=_is_secure(request)), "")
    try:
        value, wanted = people.finish(answer, browser, _address(request, f"{BY_PROVIDER}/callback"))
    except SignInProblem as problem:
        return _failed(request, problem)
    _end_session(request, keys)
    # No redirect: browsers send the session's cookie, which is Strict, only to where a page of ours leads.
    response = page(request, "moving_on.html", {"to": _own(wanted), "said": "You are signed in."})
    _set_session(request, response, value, int(people.session_s))
    return response


@router.post(f"{SIGN_IN}/tenant")
async def choose_tenant(request: Request) -> Response:
    """Have the pages show another of the person's tenants."""
    people, value = _people(request), request.cookies.get(cookie_name(secure=_is_secure(request)), "")
    caller = None if people is None else await run_in_threadpool(people.of_session, value)
    if people is None or caller is None:
        return RedirectResponse(SIGN_IN, HTTPStatus.SEE_OTHER)
    try:
        await run_in_threadpool(people.choose_tenant, value, caller, (await read_form(request)).one("tenant"))
    except TenantUnclear as problem:
        raise Problem(HTTPStatus.FORBIDDEN, "tenant_unclear", str(problem)) from None
    return RedirectResponse("/", HTTPStatus.SEE_OTHER)


@router.post("/sign-out")
async def sign_out(request: Request, keys: Keys) -> Response:
    """End the session of this browser, here and on the server, and lead to the end of the one at the provider."""
    was_person = await run_in_threadpool(_end_session, request, keys)
    address = await run_in_threadpool(_end_at_provider, request) if was_person else None
    response = RedirectResponse(SIGN_IN, HTTPStatus.SEE_OTHER)
    if address is not None:
        # No redirect: the pages' fence lets their forms lead nowhere else.
        response = page(request, "moving_on.html", {"to": address, "said": "You are signed out here."})
    secure = _is_secure(request)
    response.delete_cookie(cookie_name(secure=secure), secure=secure, httponly=True, samesite="strict")
    return response


def _people(request: Request) -> PeopleService | None:
    return cast("PeopleService | None", request.app.state.people)


def _form(request: Request, wanted: str, *, refused: str = "", status: HTTPStatus = HTTPStatus.OK) -> Response:
    people = _people(request)
    values = {"wanted": _own(wanted), "refused": refused, "provider": None if people is None else people.provider_name}
    return page(request, "sign_in.html", values, status=status)


def _failed(request: Request, problem: SignInProblem, wanted: str = "/") -> Response:
    """Show the form again, with what went wrong; whom the provider knows and we do not may sign out there."""
    status = _STATUSES[type(problem)]
    if not isinstance(problem, NoRole):
        said = str(problem)
        return _form(request, wanted, refused=f"{said[0].upper()}{said[1:]}.", status=status)
    return page(request, "no_role.html", {"said": str(problem), "elsewhere": _end_at_provider(request)}, status=status)


def _end_at_provider(request: Request) -> str | None:
    people = _people(request)
    try:
        return None if people is None else people.sign_out_address(_address(request, SIGN_IN))
    except ProviderAway:
        return None


def _end_session(request: Request, keys: KeyService) -> bool:
    """End the session of this browser, if it has one. Return whether it was a person's."""
    value, people = request.cookies.get(cookie_name(secure=_is_secure(request))), _people(request)
    if value is None:
        return False
    if is_person_session(value):
        return people is not None and people.end_session(value)
    keys.end_session(value)
    return False


def _set_session(request: Request, response: Response, value: str, lives_s: int) -> None:
    _set_cookie(request, response, cookie_name(secure=_is_secure(request)), value, lives_s, samesite="strict")


def _set_cookie(request: Request, response: Response, name: str, value: str, lives_s: int, *, samesite: str) -> None:
    kind = "lax" if samesite == "lax" else "strict"
    response.set_cookie(name, value, max_age=lives_s, secure=_is_secure(request), httponly=True, samesite=kind)


def _is_secure(request: Request) -> bool:
    return request.url.scheme == "https"


def _address(request: Request, path: str) -> str:
    """Return an address of this service as browsers know it."""
    own: str = request.app.state.settings.public_url or str(request.base_url)
    return own.rstrip("/") + path


def _why(text: str, keys: KeyService) -> str:
    if not text:
        return "Fill in an API key; one begins with cpk_."
    if not is_key(text):
        return "That is no whole API key: one is cpk_ and 43 letters, digits, - and _. Was it cut off, or quoted?"
    return "This key has expired." if keys.expired(text) else "There is no such key here, or it was revoked."


def _own(wanted: str) -> str:
    """Keep people here: a link to the form must not lead them elsewhere."""
    return wanted if _OWN_PATH.fullmatch(wanted) and len(wanted) <= _LONGEST else "/"
