"""Load of many clients on a server of this host, and what is told of the times."""

from __future__ import annotations

import http.client
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar
from urllib.parse import urlsplit

CLIENTS = 32
T = TypeVar("T")


def load(url: str, method: str, path: str, body: Callable[[int], str] | None, seconds: float) -> list[float]:
    """Send requests from every client for some seconds, each client one at a time.

    Args:
        url: The server.
        method: Of the requests.
        path: Of the requests.
        body: Function that returns the body of the n-th request; None: they have none.
        seconds: How long.

    Returns:
        The milliseconds of each.
    """
    address = urlsplit(url)
    headers = {"Content-Type": "application/json"} if body else {}
    expected = 202 if method == "POST" else 200

    def client(connection: http.client.HTTPConnection, number: int) -> None:
        connection.request(method, path, None if body is None else body(number), headers)
        response = connection.getresponse()
        told = response.read()
        assert response.status == expected, (response.status, told[:500])

    def begin() -> http.client.HTTPConnection:
        return http.client.HTTPConnection(address.hostname or "", address.port, timeout=60)

    return at_once(begin, client, http.client.HTTPConnection.close, seconds)


def at_once(begin: Callable[[], T], act: Callable[[T, int], None], end: Callable[[T], None], seconds: float) -> list[float]:
    """Have every client do something over and over for some seconds. Return the milliseconds of each time."""
    until = time.monotonic() + seconds

    def client(index: int) -> list[float]:
        own, taken = begin(), []
        while time.monotonic() < until:
            began = time.perf_counter()
            act(own, index + CLIENTS * len(taken))
            taken.append(1000 * (time.perf_counter() - began))
        end(own)
        return taken

    with ThreadPoolExecutor(CLIENTS) as pool:
        return [ms for found in pool.map(client, range(CLIENTS)) for ms in found]


def p99(values: list[float]) -> float:
    """Return the 99th percentile."""
    return statistics.quantiles(values, n=100)[-1]


def timed(act: Callable[[], object]) -> float:
    """Return the milliseconds that something takes."""
    began = time.perf_counter()
    act()
    return 1000 * (time.perf_counter() - began)
