"""A registry of containers for the tests, on loopback: the distribution API of OCI, by token, by password, or open."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Literal
from urllib.parse import parse_qs, urlsplit

from tests.loopback import loopback

USER, PASSWORD = "me", "a password of the tests"
_TOKEN = "token-of-the-registry"


@dataclass
class OciRegistry:
    """A running registry.

    Attributes:
        host: Its host and port.
        guarded: How credentials are asked for.
        reads_only: Whether it refuses what is written.
        sent: The digest of each blob that was sent, in order.
        breaks_after: Number of blobs after which it is out of order; None: never.
        hangs: Whether it is silent then, instead of saying so; `hanging` is set when it is.
    """

    host: str
    guarded: Literal["token", "basic"] | None = None
    reads_only: bool = False
    blobs: dict[str, bytes] = field(default_factory=dict)
    manifests: dict[str, bytes] = field(default_factory=dict)
    sent: list[str] = field(default_factory=list)
    breaks_after: int | None = None
    hangs: bool = False
    hanging: threading.Event = field(default_factory=threading.Event)
    goes_on: threading.Event = field(default_factory=threading.Event)


@contextmanager
def oci_registry() -> Iterator[OciRegistry]:
    """Run an empty registry."""
    with loopback(_Handler) as server:
        server.registry = OciRegistry(f"127.0.0.1:{server.server_port}")
        yield server.registry


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    @property
    def registry(self) -> OciRegistry:
        return self.server.registry

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        if path == "/token":
            known = self.headers.get("Authorization") == _basic()
            self._send(200 if known else 401, json.dumps({"token": _TOKEN}).encode() if known else b"{}")
            return
        if not self._is_let_in():
            return
        content = self._found(path)
        if path == "/v2/":
            self._send(200, b"{}")
        elif content is None:
            self._send(404, b"{}")
        else:
            self._send(200, content, {"Docker-Content-Digest": _digest(content)})

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self._is_let_in() and self._takes_writing():
            self._send(202, b"", {"Location": f"{urlsplit(self.path).path}one?state=x"})

    def do_PUT(self) -> None:
        content = self.rfile.read(int(self.headers["Content-Length"]))
        if not (self._is_let_in() and self._takes_writing()):
            return
        parts = urlsplit(self.path)
        if "/manifests/" in parts.path:
            self.registry.manifests[parts.path] = content
            self._send(201, b"", {"Docker-Content-Digest": _digest(content)})
            return
        (wanted,) = parse_qs(parts.query)["digest"]
        if _digest(content) != wanted:
            self._send(400, b'{"errors": [{"code": "DIGEST_INVALID"}]}')
            return
        self.registry.blobs[wanted] = content
        self.registry.sent.append(wanted)
        self._send(201, b"")

    def _found(self, path: str) -> bytes | None:
        blob = re.search(r"/blobs/(sha256:[0-9a-f]{64})$", path)
        return self.registry.blobs.get(blob[1]) if blob else self.registry.manifests.get(path)

    def _takes_writing(self) -> bool:
        own = self.registry
        if own.reads_only:
            self._send(403, b'{"errors": [{"code": "DENIED"}]}')
            return False
        if own.breaks_after is not None and len(own.sent) >= own.breaks_after:
            if own.hangs:
                own.hanging.set()
                own.goes_on.wait(30)
            self._send(503, b"{}")
            return False
        return True

    def _is_let_in(self) -> bool:
        shown = self.headers.get("Authorization")
        match self.registry.guarded:
            case None:
                return True
            case "token":
                wanted, asks = f"Bearer {_TOKEN}", f'Bearer realm="http://{self.registry.host}/token",service="tests"'
            case "basic":
                wanted, asks = _basic(), 'Basic realm="Registry Realm"'
        if shown == wanted:
            return True
        self._send(401, b"{}", {"Www-Authenticate": asks})
        return False

    def _send(self, status: int, content: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, text in {"Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(name, text)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *_arguments: object) -> None:
        """Stay quiet."""


def _basic() -> str:
    return f"Basic {base64.b64encode(f'{USER}:{PASSWORD}'.encode()).decode()}"


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"
