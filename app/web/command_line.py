"""The page by which a person who is signed in logs a command line in (docs/decisions/0138)."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Annotated, cast

from fastapi import APIRouter, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import RedirectResponse

from app.api.deps import Reader
from app.authentication import SIGN_IN
from app.errors import Problem
from app.keys.sessions import cookie_name
from app.people.forms import is_challenge
from app.web.forms import read_form
from app.web.rendering import PageRoute, page

if TYPE_CHECKING:  # its libraries are there only where people sign in by a provider
    from app.people.service import PeopleService

router = APIRouter(route_class=PageRoute, include_in_schema=False)

_ADDRESS = "/command-line"
_GROUP = 5  # letters of a code that stand together
_HOUR_S = 3600


@router.get(_ADDRESS)
def ask(request: Request, _caller: Reader, challenge: Annotated[str, Query(max_length=100)] = "") -> Response:
    """Ask whether a command line is to act as this person."""
    return _page(request, challenge=challenge if is_challenge(challenge) else "", code="")


@router.post(_ADDRESS)
async def give_code(request: Request, caller: Reader) -> Response:
    """Log the command line in, and show the code for it."""
    challenge = (await read_form(request)).one("challenge")
    people = _people(request)
    if people is None or caller.person is None or not is_challenge(challenge):
        raise Problem(HTTPStatus.FORBIDDEN, "no_login", "a command line is logged in by who is signed in by the provider")
    value = request.cookies.get(cookie_name(secure=request.url.scheme == "https"), "")
    code = await run_in_threadpool(people.begin_login, value, challenge)
    if code is None:  # the session has ended, or this was not asked by a browser
        return RedirectResponse(SIGN_IN, HTTPStatus.SEE_OTHER)
    shown = "-".join(code[start : start + _GROUP] for start in range(0, len(code), _GROUP))
    return _page(request, challenge=challenge, code=shown)


def _page(request: Request, *, challenge: str, code: str) -> Response:
    people = _people(request)
    values = {
        "challenge": challenge,
        "code": code,
        "by_provider": people is not None,
        "hours": 0 if people is None else people.session_s / _HOUR_S,
    }
    return page(request, "command_line.html", values)


def _people(request: Request) -> PeopleService | None:
    return cast("PeopleService | None", request.app.state.people)
