"""Middleware of every request: a request id in logs and answers, and bounds on bodies."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Collection
from typing import Any
from uuid import uuid4

import structlog
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.errors import internal_problem, problem_response

_REQUEST_ID = re.compile(r"[\w.\-]{1,64}", re.ASCII)


class RequestIdMiddleware:
    """Binds a request id to the logs and gives it back; a client's own id is kept when it is harmless.

    Headers that others put into the state's ``headers`` are added to every answer, problems included.

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
        state: dict[str, Any] = scope.setdefault("state", {})

        async def tagged(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                own: dict[str, str] = {"x-request-id": request_id} | state.get("headers", {})
                added = [(name.lower().encode(), value.encode("latin-1")) for name, value in own.items()]
                message["headers"] = [*message["headers"], *added]
            await send(message)

        with structlog.contextvars.bound_contextvars(request_id=request_id):
            try:
                await self._app(scope, receive, tagged)
            except Exception as error:
                response = internal_problem(scope["path"], error)
                if started:
                    raise  # part of the answer was sent: the server must break the connection
                await response(scope, receive, tagged)


class BodyMiddleware:
    """Bounds bodies in size and in time.

    Too large ones are refused by their declared length at once, and otherwise as soon as too much has come; those that make no
    progress are ended, so that nobody can hold a connection by sending nothing.

    Args:
        app: What is guarded.
        limit: Bytes of a body.
        upload_limit: Bytes of a body that is sent to one of ``uploads``.
        uploads: Paths.
        patience_s: How long the next piece of a body may take.
    """

    def __init__(self, app: ASGIApp, *, limit: int, upload_limit: int, uploads: Collection[str], patience_s: float) -> None:
        self._app = app
        self._limit = limit
        self._upload_limit = upload_limit
        self._uploads = uploads
        self._patience_s = patience_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limit = self._upload_limit if scope["path"] in self._uploads else self._limit
        headers = dict(scope["headers"])
        declared = headers.get(b"content-length", b"0")
        if not declared.isdigit() or int(declared[:18]) > limit:
            await _too_large(scope["path"], limit)(scope, receive, send)
            return
        has_body = declared.strip(b"0") != b"" or b"transfer-encoding" in headers
        seen, complete, started = 0, False, False

        async def bounded() -> Message:
            nonlocal seen, complete
            if complete:  # from here on only the end of the connection is awaited, however long it takes
                return await receive()
            try:
                message = await asyncio.wait_for(receive(), self._patience_s)
            except TimeoutError:
                if complete:  # another reader got the body's end: an event stream waits for the disconnect twice
                    return await receive()
                raise _TooSlow from None
            seen += len(message.get("body", b""))
            complete = not message.get("more_body", False)
            if seen > limit:
                raise _TooLarge
            return message

        async def watched(message: Message) -> None:
            nonlocal started
            started = True
            if message["type"] == "http.response.start" and not complete and has_body:
                # An answer before the body's end is the last one here: nobody would read the rest.
                message["headers"] = [*message["headers"], (b"connection", b"close")]
            await send(message)

        try:
            await self._app(scope, bounded, watched)
        except (_TooLarge, _TooSlow) as refusal:
            if not started:
                path = scope["path"]
                response = _too_large(path, limit) if isinstance(refusal, _TooLarge) else _too_slow(path, self._patience_s)
                await response(scope, receive, send)


def _too_large(path: str, limit: int) -> JSONResponse:
    detail = f"the body is larger than the {limit} bytes that are taken here"
    return problem_response(path, 413, "body_too_large", detail, headers={"Connection": "close"})


def _too_slow(path: str, patience_s: float) -> JSONResponse:
    detail = f"nothing more of the body came for {patience_s:g} seconds"
    return problem_response(path, 408, "body_too_slow", detail, headers={"Connection": "close"})


class _TooLarge(BaseException):
    """Not an Exception, so that no handler below takes it for an error of its own."""


class _TooSlow(BaseException):
    """Not an Exception, for the same reason as `_TooLarge`."""
