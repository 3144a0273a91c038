"""Requests as attackers send them: byte by byte over sockets, with bodies that never were in memory, and answers read early."""

from __future__ import annotations

import http.client
import json
import select
import socket
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

CLOSED = 0  # in place of a status: the connection was closed without an answer
SILENT = -1  # no answer came in time
_LARGEST_ANSWER = 4 * 2**20


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back.

    Attributes:
        status: The status, or CLOSED, or SILENT.
        headers: Headers in small letters.
        body: The body, cut at some megabytes.
        seconds: From the first byte sent to the end of the answer.
        sent: Bytes of the body that were taken.
    """

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    seconds: float = 0.0
    sent: int = 0

    @property
    def document(self) -> dict[str, Any]:
        """The JSON object of the body; empty where it is none."""
        try:
            found = json.loads(self.body)
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}

    @property
    def code(self) -> str:
        """The code of a problem; empty where the answer is none."""
        is_problem = self.headers.get("content-type", "") == "application/problem+json"
        return str(self.document.get("code", "")) if is_problem else ""


def head(method: str, path: str, headers: Mapping[str, str]) -> bytes:
    """Write the head of a request."""
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join(lines).encode("utf-8", "surrogateescape") + b"\r\n\r\n"


def connect(port: int, timeout_s: float = 10) -> socket.socket:
    """Open a connection to the service."""
    return socket.create_connection(("127.0.0.1", port), timeout=timeout_s)


def ask(
    port: int,
    method: str,
    path: str,
    headers: Mapping[str, str] | None = None,
    body: bytes | Iterable[bytes] = b"",
    *,
    timeout_s: float = 30,
) -> Answer:
    """Send a request and read its answer, even if it comes before the body has gone. Bodies of unknown length go in chunks."""
    given = {"Host": f"127.0.0.1:{port}", "Connection": "close", **(headers or {})}
    names = {name.lower() for name in given}
    chunked = not isinstance(body, bytes) and "content-length" not in names
    if chunked:
        given["Transfer-Encoding"] = "chunked"
    elif isinstance(body, bytes) and not names & {"content-length", "transfer-encoding"}:
        given["Content-Length"] = str(len(body))
    pieces = _split(body) if isinstance(body, bytes) else body
    return send(port, head(method, path, given), _chunks(pieces) if chunked else pieces, method=method, timeout_s=timeout_s)


def send(port: int, start: bytes, pieces: Iterable[bytes] = (), *, method: str = "GET", timeout_s: float = 30) -> Answer:
    """Send raw bytes, and read one answer."""
    began, sent = time.monotonic(), 0
    deadline = began + timeout_s
    with connect(port) as wire:
        try:
            wire.settimeout(timeout_s)
            wire.sendall(start)
            for piece in pieces:
                if time.monotonic() > deadline or select.select([wire], [], [], 0)[0]:
                    break
                wire.sendall(piece)
                sent += len(piece)
        except TimeoutError:
            return Answer(SILENT, seconds=time.monotonic() - began, sent=sent)
        except OSError:
            pass  # it does not want more; what it answered is read all the same
        return read_answer(wire, method=method, began=began, deadline=deadline, sent=sent)


def read_answer(wire: socket.socket, *, method: str, began: float, deadline: float, sent: int = 0) -> Answer:
    """Read one answer from a connection."""
    response = http.client.HTTPResponse(wire, method=method)
    try:
        wire.settimeout(max(0.1, deadline - time.monotonic()))
        response.begin()
        body = response.read(_LARGEST_ANSWER)
    except TimeoutError:
        return Answer(SILENT, seconds=time.monotonic() - began, sent=sent)
    except (OSError, http.client.HTTPException, ValueError):
        return Answer(CLOSED, seconds=time.monotonic() - began, sent=sent)
    finally:
        with suppress(OSError):
            response.close()
    headers = {name.lower(): value for name, value in response.getheaders()}
    return Answer(response.status, headers, body, time.monotonic() - began, sent)


def _split(body: bytes, size: int = 1 << 16) -> Iterator[bytes]:
    view = memoryview(body)
    for start in range(0, len(view), size):
        yield bytes(view[start : start + size])


def _chunks(pieces: Iterable[bytes]) -> Iterator[bytes]:
    for piece in pieces:
        if piece:
            yield f"{len(piece):x}\r\n".encode() + piece + b"\r\n"
    yield b"0\r\n\r\n"
