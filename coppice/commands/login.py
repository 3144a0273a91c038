"""``coppice login`` and ``coppice logout``, for people who sign in to a service by a provider."""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
import sys
import webbrowser
from typing import Annotated

import typer

from coppice import console
from coppice.client import Client
from coppice.connection import DEFAULT_URL, address_of, is_outside
from coppice.console import ExitCode, explained, fail
from coppice.errors import ApiError
from coppice.logins import forget_login, keep_login, login_for
from coppice.types import Session

Url = Annotated[str, typer.Argument(envvar="COPPICE_URL", show_envvar=True, help="Address of the service.")]

_CODE = re.compile(r"[A-Z2-7]{20}", re.ASCII)
_UNAUTHENTICATED = 401
_TRIES = 3


def login(
    url: Url = DEFAULT_URL,
    browser: Annotated[bool, typer.Option(help="Open the page in a browser of this host.")] = True,
) -> None:
    """Log in to a service as the person that you are at its provider: open its page, and paste the code that it shows.

    What is kept is in logins.json in your folder of settings, which nobody else can read, and ends by itself. All commands that
    talk to the service use it where neither --api-key nor COPPICE_API_KEY is given.
    """
    with explained():
        address = address_of(url)
        verifier = secrets.token_urlsafe(32)
        if not _asks_for_a_key(address, verifier):
            console.out.print(
                f"{address} asks for no key: nothing is to be done", highlight=False, markup=False, soft_wrap=True
            )
            return
        if address.startswith("http://") and is_outside(address):
            console.note("the address begins with http://: whoever is on the way can read the login")
        challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
        page = f"{address}/command-line?challenge={challenge}"
        console.err.print(
            f"Open this page, in any browser, and paste the code that it shows:\n\n  {page}\n",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )
        if browser and sys.stdin.isatty():
            webbrowser.open(page)
        found = _logged_in(address, verifier)
    as_ = f" as {found.role}" if found.role else ""
    console.out.print(f"logged in: {found.name}, for the tenant {found.tenant}{as_}", highlight=False, markup=False)


def logout(url: Url = DEFAULT_URL) -> None:
    """End the login to a service, there and here."""
    with explained():
        address = address_of(url)
        kept = login_for(address)
        if not kept:
            console.out.print(f"you are not logged in to {address}", highlight=False, markup=False, soft_wrap=True)
            return
        try:
            with Client(address, api_key=kept) as client:
                client.end_session()
        except ApiError as error:
            if error.status != _UNAUTHENTICATED:  # it had ended by itself
                raise
        forget_login(address)
    console.out.print(f"logged out of {address}", highlight=False, markup=False, soft_wrap=True)


def _asks_for_a_key(address: str, verifier: str) -> bool:
    """Return whether a service knows nobody by what no page has given."""
    given_to_nobody = base64.b32encode(secrets.token_bytes(13)).decode()[:20]
    with Client(address, api_key=f"cpl_{given_to_nobody}{verifier}") as client:
        try:
            client.session()
        except ApiError as error:
            if error.status != _UNAUTHENTICATED:
                raise
            return True
    return False


def _logged_in(address: str, verifier: str) -> Session:
    """Ask for the code until it is right, and keep the login."""
    for left in reversed(range(_TRIES)):
        code = re.sub(r"[\s\-]", "", typer.prompt("Code", err=True)).upper()
        if _CODE.fullmatch(code) is None:
            console.note("a code is four times five letters and digits, such as ABCDE-23456-FGHIJ-KLMNO")
            continue
        login = f"cpl_{code}{verifier}"
        try:
            with Client(address, api_key=login) as client:
                found = client.session()
        except ApiError as error:
            if error.status != _UNAUTHENTICATED:
                raise
            again = "; copy it from the page whose address stands above" if left else ""
            console.note(f"this is not the code for this terminal{again}")
            continue
        keep_login(address, login)
        return found
    fail("no right code was given; begin again: coppice login", ExitCode.BAD_INPUT)
    raise AssertionError("unreachable: that ends the command")
