"""What every request passes through: a request id in logs and answers, and a bound on bodies."""

from __future__ import annotations

import re
from uuid import uuid4

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.errors import internal_problem, problem_response

_REQUEST_ID = re.compile(r"[\w.\-]{1,64}", re.ASCII)


class RequestIdMiddleware:
    """Binds a request id to the logs and gives it back; a client's own id is kept when it is harmless.

    Errors that no handler knows end here rather than in Starlette's outermost layer, where neither the log nor the answer
    would carry the id.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = dict(scope["headers"]).get(b"x-request-id", b"").decode("latin-1")
        request_id = given if _REQUEST_ID.fullmatch(given) else uuid4().hex
        started = False

        async def tagged(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                message["headers"] = [*message["headers"], (b"x-request-id", request_id.encode())]
            await send(message)

        with structlog.contextvars.bound_contextvars(request_id=request_id):
            try:
                await self._app(scope, receive, tagged)
            except Exception as error:
                response = internal_problem(scope["path"], error)
                if started:
                    raise  # half an answer is out: the server must break the connection
                await response(scope, receive, tagged)


class BodyLimitMiddleware:
    """Refuses bodies over a size: by their declared length at once, and otherwise as soon as too much has come."""

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self._app = app
        self._limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if not declared.isdigit() or int(declared[:18]) > self._limit:
            await self._refuse(scope, receive, send)
            return
        seen, started = 0, False

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > self._limit:
                raise _TooLarge
            return message

        async def watched(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(scope, counted, watched)
        except _TooLarge:
            if not started:
                await self._refuse(scope, receive, send)

    async def _refuse(self, scope: Scope, receive: Receive, send: Send) -> None:
        detail = f"the body is larger than {self._limit} bytes; data and models are named by id or path, not sent here"
        response = problem_response(scope["path"], 413, "body_too_large", detail, headers={"Connection": "close"})
        await response(scope, receive, send)


class _TooLarge(BaseException):
    """Not an Exception, so that no handler below takes it for an error of its own."""
