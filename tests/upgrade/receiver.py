"""A receiver of webhook messages on this host."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from standardwebhooks import Webhook as Verifier


@dataclass
class Receiver:
    """What was sent to an address: headers and bodies."""

    url: str = ""
    received: list[tuple[dict[str, str], bytes]] = field(default_factory=list)

    def has_heard_of(self, job_id: str) -> bool:
        """Whether a message about a job has come."""
        return any(json.loads(body)["data"]["id"] == job_id for _headers, body in list(self.received))

    def check(self, webhook: dict[str, Any]) -> None:
        """Verify every message by the secret that was given when the webhook was made; those that waited have come too."""
        for headers, body in self.received:
            Verifier(webhook["secret"]).verify(body, headers)
        assert {headers["webhook-id"] for headers, _body in self.received} >= set(webhook["messages"])
        assert webhook["messages"]


@contextmanager
def receiving() -> Iterator[Receiver]:
    """Listen, and keep what comes."""
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            receiver.received.append((dict(self.headers.items()), body))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        receiver.url = f"http://127.0.0.1:{server.server_port}/hook"
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield receiver
        finally:
            server.shutdown()
            thread.join()
