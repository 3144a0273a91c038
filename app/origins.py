"""Origins of requests, as browsers tell them. Other sites' pages must not use a service that their visitor can reach."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection
from http import HTTPStatus
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from app.errors import problem_response

_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_OWN = frozenset({"same-origin", "none"})  # `none`: typed, or a bookmark


class OriginMiddleware:
    """Answers 403 to what another site's page sends in its visitor's name, and 421 to names that are not this service's.

    Browsers say in ``Sec-Fetch-Site`` whose page sends a request, older ones its ``Origin``; no script of a page can forge
    either. Who sends neither is no browser.

    Args:
        app: What is guarded.
        names: Names that clients may call the service by, beside addresses and names without a dot, which no other site can
            have; None: any. Without keys the service stands open to whoever can reach it, and a site whose name is made to
            point at this machine (DNS rebinding) would make its visitors' browsers reach it.
    """

    def __init__(self, app: ASGIApp, names: Collection[str] | None) -> None:
        self._app = app
        self._names = None if names is None else frozenset(name.lower() for name in names)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if scope["type"] == "http":
            headers, path = Headers(scope=scope), scope["path"]
            host = headers.get("host", "")
            if self._names is not None and not _is_own_name(host, self._names):
                detail = "the service is not known by this name; its operator can add the name to COPPICE_ALLOWED_HOSTS"
                await problem_response(path, HTTPStatus.MISDIRECTED_REQUEST, "unknown_host", detail)(scope, receive, send)
                return
            if scope["method"] not in _SAFE and not _is_own_site(headers, host):
                detail = "this was sent by another site's page; open the page here, and send it"
                await problem_response(path, HTTPStatus.FORBIDDEN, "cross_site", detail)(scope, receive, send)
                return
        await self._app(scope, receive, send)


def _is_own_site(headers: Headers, host: str) -> bool:
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    return site in _OWN if site is not None else origin is None or urlsplit(origin).netloc == host


def _is_own_name(host: str, names: Collection[str]) -> bool:
    try:
        name = (urlsplit(f"//{host}").hostname or "").removesuffix(".")
    except ValueError:
        return False
    return "." not in name or name.endswith(".localhost") or name in names or _is_address(name)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
