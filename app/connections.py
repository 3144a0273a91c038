"""Limits of connections, which only the server sees: heads that do not come, clients that do not read, too many at once."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import struct
import termios
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, cast

import h11
import structlog
from uvicorn.config import Config
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from app.patience import Patience
from app.proxies import Network, is_within, party_of
from app.settings import Settings

_log = structlog.get_logger(__name__)

_RETRY_AFTER_S = 5
# Pieces of a body that may be tiny, and the least mean size beyond: each costs the same to parse, and one byte may be a piece.
_TINY_PIECES = 500
_MEAN_PIECE = 32


@dataclass(frozen=True, slots=True)
class Limits:
    """What a connection may cost."""

    head_patience_s: float
    send_patience_s: float
    keep_alive_s: float
    bytes_per_s: float
    head_bytes: int
    connections: int
    connections_per_address: int
    trusted: Sequence[Network]

    @classmethod
    def of(cls, settings: Settings) -> Limits:
        """Read the settings."""
        return cls(
            head_patience_s=settings.head_patience_s,
            send_patience_s=settings.send_patience_s,
            keep_alive_s=settings.keep_alive_s,
            bytes_per_s=settings.slowest_bytes_per_s,
            head_bytes=settings.max_head_bytes,
            connections=settings.max_connections,
            connections_per_address=settings.max_connections_per_address,
            trusted=settings.trusted_proxies,
        )


class Census:
    """The open connections, in all and by whose they are.

    Where there are too many in all, one gives way that does nothing, the longest first: heads that are half sent, from however
    many addresses, keep nobody out.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._of: Counter[str] = Counter()
        self._idle: list[Connection] = []
        self.count = 0

    def look(self, connections: Sequence[Connection], passed_s: float) -> None:
        """Look after all connections, and note which of them do nothing."""
        for connection in connections:
            try:
                connection.look(passed_s)
            except Exception:  # one connection must not end the server, which calls this
                _log.exception("connection.failed")
                connection.transport.abort()
        self._idle = sorted((one for one in connections if one.idle_s > 0), key=lambda one: one.idle_s)

    def _make_room(self) -> bool:
        while self._idle:
            connection = self._idle.pop()
            if connection.idle_s > 0 and not connection.transport.is_closing():
                connection.transport.abort()
                return True
        return False

    def enter(self, address: str) -> str | None:
        """Count a connection, and return under which name; None: there are too many."""
        # A trusted proxy speaks for many. Whoever is counted under no name of their own counts in all.
        party = "" if is_within(address, self._limits.trusted) else party_of(address)
        if party and self._of[party] >= self._limits.connections_per_address:
            return None
        if self.count >= self._limits.connections and not self._make_room():
            return None
        self._of[party] += 1
        self.count += 1
        return party

    def leave(self, party: str) -> None:
        """Count one connection less."""
        self.count -= 1
        self._of[party] -= 1
        if not self._of[party]:
            del self._of[party]


class Connection(H11Protocol):
    """uvicorn's own connection with limits. `look` is called every now and then, and closes it where it must be.

    h11 parses it: slower than llhttp, in memory-safe code, and strict about what two servers could read in two ways.
    """

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        limits: Limits,
        census: Census,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._limits = limits
        self._census = census
        self._party: str | None = None
        self._reader = Patience(limits.send_patience_s, limits.bytes_per_s)
        self._taken = 0
        # The request after whose answer the next head is waited for; None: the first head.
        self._answered: object = None
        self._waiting_s = 0.0
        self.conn = _Parser(h11.SERVER, limits.head_bytes)

    @property
    def idle_s(self) -> float:
        """Seconds for which the next request has been waited for, as far as `look` has seen; 0 while one is answered."""
        cycle = self.cycle
        return self._waiting_s if cycle is self._answered else 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin, or refuse to."""
        counted = _CountingTransport(cast("asyncio.Transport", transport))
        peer = transport.get_extra_info("peername")
        self._party = self._census.enter(str(peer[0]) if isinstance(peer, tuple) else "")
        if self._party is None:
            detail = "too many connections are open; close some, or come again in a moment"
            self.transport = cast("asyncio.Transport", counted)
            self._close_with(HTTPStatus.SERVICE_UNAVAILABLE, "too_many_connections", detail)
            return
        super().connection_made(cast("asyncio.Transport", counted))
        self.flow = _Flow(self.transport, self.conn, self._limits.head_bytes)

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        if self._party is None:
            return
        self._census.leave(self._party)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what came. Of a head no more than its longest is looked at, however much came in one piece."""
        longest = self._limits.head_bytes + 1
        if self.conn.their_state is h11.IDLE and len(data) > longest:
            super().data_received(data[:longest])
            data = data[longest:]
        if not self.transport.is_closing():
            super().data_received(data)

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - uvicorn's words
        """Answer what is no HTTP as all errors are answered."""
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            self.transport.close()  # an answer has begun: there is no room for another
        elif len(self.conn.trailing_data[0]) > self._limits.head_bytes:
            detail = f"the head of the request is longer than the {self._limits.head_bytes} bytes that are taken here"
            self._close_with(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "head_too_large", detail)
        elif self.conn.has_crumbs:
            detail = f"the body comes in pieces that are too small; send at least {_MEAN_PIECE} bytes in each"
            self._close_with(HTTPStatus.BAD_REQUEST, "pieces_too_small", detail)
        else:
            detail = "this is no request of HTTP/1.1; nothing of it was done"
            self._close_with(HTTPStatus.BAD_REQUEST, "malformed_request", detail)

    def look(self, passed_s: float) -> None:
        """Close the connection if its client has had its time: for a head, for the rest of a body, for taking an answer."""
        self._look_at_reader(passed_s)
        if self.transport.is_closing():
            return
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete:  # pyright: ignore[reportUnnecessaryComparison] - it begins as None
            self._answered, self._waiting_s = self, 0.0
        elif cycle is not self._answered:
            self._answered, self._waiting_s = cycle, 0.0
        else:
            self._waiting_s += passed_s
            self._look_at_sender()

    def _look_at_sender(self) -> None:
        """Look whether the next head is late, or the rest of a body whose request has had its answer."""
        has_begun = self.conn.their_state is h11.IDLE and bool(self.conn.trailing_data[0])
        idles = self.cycle is not None and self.conn.their_state is h11.IDLE and not has_begun  # pyright: ignore[reportUnnecessaryComparison]
        patience_s = max(self._limits.head_patience_s, self._limits.keep_alive_s) if idles else self._limits.head_patience_s
        if self._waiting_s < patience_s:
            return
        if has_begun and self.conn.our_state is h11.IDLE:
            detail = f"the head of the request was not complete after {patience_s:g} seconds"
            self._close_with(HTTPStatus.REQUEST_TIMEOUT, "head_too_slow", detail)
        else:
            self.transport.close()

    def _look_at_reader(self, passed_s: float) -> None:
        written = cast("_CountingTransport", self.transport).written
        if written == self._taken:
            self._reader.renew()
            return
        taken = written - self.transport.get_write_buffer_size() - _sent_and_not_taken(self.transport)
        progress, self._taken = taken - self._taken, taken
        if taken == written:
            self._reader.renew()
            return
        self._reader.waited(passed_s, progress)
        if self._reader.left_s <= 0:
            _log.info("connection.not_read", client=self.client and self.client[0], bytes_left=written - taken)
            self.transport.abort()

    def _close_with(self, status: HTTPStatus, code: str, detail: str) -> None:
        body = json.dumps(
            {
                "type": "about:blank",
                "title": status.phrase,
                "status": status,
                "detail": detail,
                "instance": "",
                "code": code,
                "errors": [],
            }
        ).encode()
        lines = [f"HTTP/1.1 {status.value} {status.phrase}", "content-type: application/problem+json"]
        lines += [f"content-length: {len(body)}", "connection: close"]
        if status is HTTPStatus.SERVICE_UNAVAILABLE:
            lines.append(f"retry-after: {_RETRY_AFTER_S}")
        self.transport.write("\r\n".join([*lines, "", ""]).encode() + body)
        self.transport.close()


class _Parser(h11.Connection):
    """h11's parser, which refuses bodies in tiny pieces: a few megabytes of them would keep the process busy for seconds."""

    def __init__(self, role: type[h11.SERVER], longest: int) -> None:
        super().__init__(role, longest)
        self._pieces = self._bytes = 0
        self.has_crumbs = False

    def next_event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        """Parse the next event of what was received."""
        event = super().next_event()
        if isinstance(event, h11.Data):
            self._pieces += 1
            self._bytes += len(event.data)
            if self._pieces > _TINY_PIECES + self._bytes / _MEAN_PIECE:
                self.has_crumbs = True
                raise h11.RemoteProtocolError("the body comes in pieces that are too small")
        elif isinstance(event, h11.Request):
            self._pieces = self._bytes = 0
        return event


class _Flow(FlowControl):
    """uvicorn's flow control, which reads no more while requests wait that were sent ahead: it would keep all of them."""

    def __init__(self, transport: asyncio.Transport, parser: h11.Connection, most: int) -> None:
        super().__init__(transport)
        self._parser = parser
        self._most = most

    def resume_reading(self) -> None:
        """Read on, if there is room. uvicorn asks for it with every answer, so none that waits is forgotten."""
        if len(self._parser.trailing_data[0]) <= self._most:
            super().resume_reading()


class _CountingTransport:
    """A transport that counts what is written to it."""

    def __init__(self, inner: asyncio.Transport) -> None:
        self._inner = inner
        self.written = 0

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Write."""
        self.written += len(data)
        self._inner.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


def _sent_and_not_taken(transport: asyncio.Transport) -> int:
    """Count the bytes that the system holds because the peer has not acknowledged them. Where it cannot tell: none."""
    # The system holds megabytes, and tells that there is room again only when a third is free: on a slow link that takes
    # minutes, in which the transport's own buffer stands still.
    with contextlib.suppress(OSError, ValueError, AttributeError):
        found = fcntl.ioctl(transport.get_extra_info("socket").fileno(), termios.TIOCOUTQ, bytes(4))
        return struct.unpack("i", found)[0]
    return 0
