"""Middleware of every request: a request id in logs and answers, and bounds on heads and bodies."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Collection, Mapping
from typing import Any
from uuid import uuid4

import structlog
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.ending import Ending
from app.errors import internal_problem, problem_response
from app.paths import is_under
from app.patience import Patience

_REQUEST_ID = re.compile(r"[\w.\-]{1,64}", re.ASCII)
_LOOK_S = 0.5  # how often a request that waits for its body looks whether the process is to end
_MOST_HEADERS = 128
_LONGEST_TARGET = 2**13  # of path and query together, as sent
_MOST_PARAMETERS = 256
# Of lists, objects and what stands in them: parsing a megabyte of them holds the event loop for longer than a megabyte of text.
# Sound bodies have some hundreds, and may have some thousands of these letters in their texts.
_MOST_MARKS = 2**15
_MARKS = (b",", b"[", b"{")
_VERSIONS = frozenset({"1.0", "1.1", "2", "2.0", "3"})
_ANSWERED_TO_ONE = ("/v1", "/hub")


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


class HeadMiddleware:
    """Refuses heads that no honest client sends, and says for every answer how it may be taken.

    Args:
        app: What is guarded.
        limit: Bytes of the names and values of all headers.
    """

    def __init__(self, app: ASGIApp, *, limit: int) -> None:
        self._app = app
        self._limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        # No browser is to guess what an answer is, and no cache on the way to give one caller's to another.
        own = [(b"x-content-type-options", b"nosniff")]
        if is_under(scope["path"], *_ANSWERED_TO_ONE):
            own.append((b"cache-control", b"private, no-cache"))

        async def fenced(message: Message) -> None:
            if message["type"] == "http.response.start":
                given = {name.lower() for name, _value in message["headers"]}
                message["headers"] = [*message["headers"], *(header for header in own if header[0] not in given)]
            await send(message)

        refusal = _refused_head(scope, self._limit)
        await (self._app if refusal is None else refusal)(scope, receive, fenced)


def _refused_head(scope: Scope, limit: int) -> JSONResponse | None:
    names = [name for name, _value in scope["headers"]]
    length = sum(len(name) + len(value) for name, value in scope["headers"])
    target = len(scope.get("raw_path") or b"") + len(scope["query_string"])
    path = scope["path"][:_LONGEST_TARGET]
    if target > _LONGEST_TARGET:
        detail = f"the address is longer than the {_LONGEST_TARGET} bytes that are taken here"
        return _closing(path, 414, "address_too_long", detail)
    if scope["query_string"].count(b"&") >= _MOST_PARAMETERS:
        return _closing(path, 414, "too_many_parameters", f"an address may have {_MOST_PARAMETERS} parameters at most")
    if len(names) > _MOST_HEADERS or length > limit:
        detail = f"a request may have {_MOST_HEADERS} headers of {limit} bytes in all at most"
        return _closing(path, 431, "head_too_large", detail)
    if scope["http_version"] not in _VERSIONS:
        return _closing(path, 505, "unknown_version", "there is no such version of HTTP; send HTTP/1.1")
    # h11 would take the former and forget the latter; a proxy in front that does otherwise sees other requests than we.
    if b"transfer-encoding" in names and b"content-length" in names:
        detail = "a request has Content-Length or Transfer-Encoding, never both"
        return _closing(path, 400, "malformed_request", detail)
    return None


class BodyMiddleware:
    """Bounds bodies in size and in time.

    Too large ones are refused by their declared length at once, and otherwise as soon as too much has come; those that make no
    progress, or hardly any, are ended, so that nobody can hold a connection by sending nothing. Bodies that are no uploads are
    refused, too, where they have far more values than any sound one.

    Args:
        app: What is guarded.
        limit: Bytes of a body.
        upload_limit: Bytes of a body that is sent to one of ``uploads``.
        uploads: Paths.
        patience_s: How long the next piece of a body may take.
        bytes_per_s: A body that comes more slowly uses that time up in the end.
        ending: When bodies must be there because the process ends.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        limit: int,
        upload_limit: int,
        uploads: Collection[str],
        patience_s: float,
        bytes_per_s: float,
        ending: Ending,
    ) -> None:
        self._app = app
        self._limit = limit
        self._upload_limit = upload_limit
        self._uploads = uploads
        self._patience_s = patience_s
        self._bytes_per_s = bytes_per_s
        self._ending = ending

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
        patience = Patience(self._patience_s, self._bytes_per_s)
        has_body = declared.strip(b"0") != b"" or b"transfer-encoding" in headers
        is_upload = scope["path"] in self._uploads
        seen, marks, complete, started = 0, 0, False, False

        async def bounded() -> Message:
            nonlocal seen, marks, complete
            began = time.monotonic()
            while not complete:
                left_s = patience.left_s - (time.monotonic() - began)
                if self._ending.is_over:
                    raise _Ends
                try:
                    async with asyncio.timeout(min(left_s, _LOOK_S)):  # unlike wait_for, it takes no task
                        message = await receive()
                except TimeoutError:
                    # Where another reader got the body's end (an event stream waits for the disconnect twice), it is complete.
                    if left_s <= _LOOK_S and not complete:
                        raise _TooSlow from None
                    continue
                body = message.get("body", b"")
                count = len(body)
                seen += count
                marks += 0 if is_upload else sum(map(body.count, _MARKS))
                complete = not message.get("more_body", False)
                patience.waited(time.monotonic() - began, count)
                if seen > limit:
                    raise _TooLarge
                if marks > _MOST_MARKS:
                    raise _TooWide
                return message
            return await receive()  # from here on only the end of the connection is awaited, however long it takes

        async def watched(message: Message) -> None:
            nonlocal started
            started = True
            if message["type"] == "http.response.start" and not complete and has_body:
                # An answer before the body's end is the last one here: nobody would read the rest.
                message["headers"] = [*message["headers"], (b"connection", b"close")]
            await send(message)

        try:
            await self._app(scope, bounded, watched)
        except ClientDisconnect:  # in the middle of its body: there is nobody to answer
            return
        except (_TooLarge, _TooWide, _TooSlow, _Ends) as refusal:
            if not started:
                await self._refusal(refusal, scope["path"], limit)(scope, receive, send)

    def _refusal(self, why: _TooLarge | _TooWide | _TooSlow | _Ends, path: str, limit: int) -> JSONResponse:
        match why:
            case _TooLarge():
                return _too_large(path, limit)
            case _TooWide():
                detail = "the body has far more values than any that is taken here"
                return _closing(path, 400, "malformed_request", detail)
            case _TooSlow():
                detail = (
                    f"nothing more of the body came for {self._patience_s:g} seconds, or less than {self._bytes_per_s:g} "
                    "bytes a second for long"
                )
                return _closing(path, 408, "body_too_slow", detail)
            case _Ends():
                detail = "the service is ending before the body was there; send it again in a moment"
                return _closing(path, 503, "service_ends", detail, {"Retry-After": "2"})


def _too_large(path: str, limit: int) -> JSONResponse:
    return _closing(path, 413, "body_too_large", f"the body is larger than the {limit} bytes that are taken here")


def _closing(path: str, status: int, code: str, detail: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    return problem_response(path, status, code, detail, headers={"Connection": "close", **(headers or {})})


class _TooLarge(BaseException):
    """Not an Exception, so that no handler below takes it for an error of its own."""


class _TooWide(BaseException):
    """Not an Exception, for the same reason as `_TooLarge`."""


class _TooSlow(BaseException):
    """Not an Exception, for the same reason as `_TooLarge`."""


class _Ends(BaseException):
    """Not an Exception, for the same reason as `_TooLarge`."""
