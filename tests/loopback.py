"""HTTP servers of tests, on the loopback address."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@contextmanager
def loopback(handler: type[BaseHTTPRequestHandler]) -> Iterator[ThreadingHTTPServer]:
    """Listen on a free port, and answer as soon as the caller has set what the handler reads of the server."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    # What comes before the thread runs waits in the socket's queue.
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
