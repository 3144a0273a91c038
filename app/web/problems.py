"""Problems that arise before a page's own route is reached, as pages: people see no JSON."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.paths import is_under
from app.web.rendering import FENCE, problem_page

_KIND = b"application/problem+json"
_FOR_PROGRAMS = ("/v1", "/hub", "/metrics", "/healthz", "/readyz", "/openapi.json")


class ProblemPageMiddleware:
    """Turns problems into pages for who asks for HTML: what limits, keys and unknown addresses answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if scope["type"] != "http" or not _is_for_people(scope):
            await self._app(scope, receive, send)
            return
        begun: Message | None = None
        body = b""

        async def shown(message: Message) -> None:
            nonlocal begun, body
            if message["type"] == "http.response.start" and dict(message["headers"]).get(b"content-type") == _KIND:
                begun = message
                return
            if begun is None or message["type"] != "http.response.body":
                await send(message)
                return
            body += message.get("body", b"")
            if not message.get("more_body", False):
                headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in begun["headers"]}
                page = problem_page(Request(scope), Response(body, begun["status"], headers))
                page.headers.update(FENCE)
                await page(scope, receive, send)

        await self._app(scope, receive, shown)


def _is_for_people(scope: Scope) -> bool:
    return not is_under(scope["path"], *_FOR_PROGRAMS) and "text/html" in Request(scope).headers.get("accept", "")
