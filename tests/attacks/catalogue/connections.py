"""Connections: half-sent heads, slow bodies, slow readers, floods, smuggling, headers without an end."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from functools import partial

from tests.attacks import wire
from tests.attacks.attack import Attack, Expected, refused
from tests.attacks.target import Target
from tests.attacks.wire import CLOSED, SILENT, Answer

_PATIENCE_S = 20  # by when the service must have ended what makes no progress; its settings here say 3 s
HEAD = Expected(
    frozenset({CLOSED, 400, 408, 411, 413, 414, 422, 431, 501, 505}),
    frozenset({"invalid_request", "malformed_request", "head_too_large"}),
    frozenset({400, 408, 411, 413, 414, 431, 501, 505}),
)
ENDED = Expected(
    frozenset({CLOSED, 408, 503}), frozenset({"body_too_slow", "head_too_slow", "too_many_connections"}), frozenset({408, 503})
)
KEYS = refused("unauthenticated", statuses=(401,))


def _half_heads(target: Target, _made: None) -> list[Answer]:
    """M11: heads that are never finished. Each connection must end in time, and honest ones be served meanwhile."""
    with ExitStack() as stack:
        wires = [stack.enter_context(wire.connect(target.port)) for _ in range(200)]
        for one in wires:
            one.sendall(b"GET /v1/jobs HTTP/1.1\r\nHost: x\r\nX-A: ")
        assert target.ask("GET", "/v1/jobs").status == 200
        began = time.monotonic()
        return [wire.read_answer(one, method="GET", began=began, deadline=began + _PATIENCE_S) for one in wires]


def _dripping_heads(target: Target, _made: None) -> list[Answer]:
    """M11: heads of which a byte comes every half second."""
    with ExitStack() as stack:
        wires = [stack.enter_context(wire.connect(target.port)) for _ in range(50)]
        began = time.monotonic()
        while time.monotonic() < began + _PATIENCE_S:
            for one in list(wires):
                try:
                    one.sendall(b"G")
                except OSError:
                    wires.remove(one)
            if not wires:
                break
            time.sleep(0.5)
        return [Answer(SILENT) for _ in wires] or [Answer(CLOSED)]


def _slow_body(target: Target, _made: None) -> Answer:
    """A body that stops in its middle."""
    head = target.headers(extra={"Host": "x", "Content-Type": "application/json", "Content-Length": "1000"})
    with wire.connect(target.port) as one:
        one.sendall(wire.head("POST", "/v1/jobs", head) + b'{"model":')
        began = time.monotonic()
        return wire.read_answer(one, method="POST", began=began, deadline=began + _PATIENCE_S)


def _slow_upload(target: Target, _made: None) -> Answer:
    head = target.headers(extra={"Host": "x", "Content-Type": "application/x-tar", "Content-Length": "1000000"})
    with wire.connect(target.port) as one:
        one.sendall(wire.head("POST", "/v1/models", head) + b"\0" * 512)
        began = time.monotonic()
        return wire.read_answer(one, method="POST", began=began, deadline=began + _PATIENCE_S)


def _slow_readers(target: Target, _made: None) -> Answer:
    """Many who ask for the largest answer there is and take nothing of it; the honest are served."""
    with ExitStack() as stack:
        for _ in range(100):
            one = stack.enter_context(wire.connect(target.port))
            one.setsockopt(wire.socket.SOL_SOCKET, wire.socket.SO_RCVBUF, 1024)
            one.sendall(wire.head("GET", "/openapi.json", {"Host": "x"}) * 8)
        time.sleep(2)
        assert target.ask("GET", "/v1/jobs").status == 200
    return target.ask("GET", "/v1/jobs")


def _idle(target: Target, _made: None) -> Answer:
    """Connections that never send a byte."""
    with ExitStack() as stack:
        for _ in range(900):
            stack.enter_context(wire.connect(target.port))
        assert target.ask("GET", "/v1/jobs").status == 200
        time.sleep(1)
    return target.ask("GET", "/v1/jobs")


def _polls(target: Target, _made: None) -> Answer:
    """Long polls and streams in numbers, on a job that does not change."""
    job = target.ask("POST", "/v1/jobs", target.spec()).document["id"]
    target.ask("POST", f"/v1/jobs/{job}/cancel")
    with ExitStack() as stack:
        for index in range(100):
            one = stack.enter_context(wire.connect(target.port))
            head = {"Host": "x", "Prefer": "wait=30", "Accept": "text/event-stream"}
            path = f"/v1/jobs/{job}/events" if index % 2 else f"/v1/jobs/{job}"
            one.sendall(wire.head("GET", path, target.headers(extra=head)))
        time.sleep(2)
        assert target.ask("GET", f"/v1/jobs/{job}").status == 200
    return target.ask("GET", f"/v1/jobs/{job}")


def _wrong_keys(target: Target, _made: None) -> list[Answer]:
    """L12: guesses of keys from one address that names another one each time."""
    found: list[Answer] = []
    for index in range(400):
        head = {"Authorization": f"Bearer cpk_{index:032d}", "X-Forwarded-For": f"10.0.{index % 250}.{index // 250}"}
        found.append(wire.ask(target.port, "GET", "/v1/jobs", head))
    assert target.ask("GET", "/v1/jobs").status == 200, "the honest are kept out"
    return found


def _raw(target: Target, _made: None, start: Callable[[Target], bytes]) -> Answer:
    return wire.send(target.port, start(target), timeout_s=_PATIENCE_S)


def raw(name: str, start: Callable[[Target], bytes], *, expected: Expected = HEAD, short: bool = False) -> Attack:
    """Make the attack that sends bytes."""
    return Attack(f"wire: {name}", partial(_raw, start=start), expected, short=short)


def _head(path: str = "/v1/jobs", method: str = "POST", **headers: str) -> Callable[[Target], bytes]:
    return lambda target: wire.head(
        method, path, target.headers(extra={"Host": "x", **{name.replace("_", "-"): value for name, value in headers.items()}})
    )


def _smuggled(target: Target, _made: None, start: Callable[[Target], bytes]) -> Answer:
    """A request in the body of another: the second is never answered as one of its own."""
    with wire.connect(target.port) as one:
        one.sendall(start(target))
        began = time.monotonic()
        first = wire.read_answer(one, method="POST", began=began, deadline=began + _PATIENCE_S)
        one.settimeout(2)
        rest = b""
        with suppress(OSError):
            rest = one.recv(65536)
        assert b'"status":"ok"' not in rest, "the smuggled request was answered"
        return first


_INNER = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"


def _both_lengths(target: Target) -> bytes:
    given = {
        "Host": "x",
        "Content-Type": "application/json",
        "Content-Length": str(5 + len(_INNER)),
        "Transfer-Encoding": "chunked",
    }
    return wire.head("POST", "/v1/jobs", target.headers(extra=given)) + b"0\r\n\r\n" + _INNER


def _two_lengths(target: Target) -> bytes:
    start = wire.head(
        "POST", "/v1/jobs", target.headers(extra={"Host": "x", "Content-Type": "application/json", "Content-Length": "2"})
    )
    return start[:-2] + f"Content-Length: {2 + len(_INNER)}\r\n\r\n".encode() + b"{}" + _INNER


ANY = Expected(
    HEAD.statuses | {401, 404, 405, 415, 429},
    HEAD.codes
    | {
        "unauthenticated",
        "not_found",
        "method_not_allowed",
        "invalid_json",
        "malformed_request",
        "invalid_request",
        "unsupported_media_type",
    },
    HEAD.bare | {405},
)
ATTACKS = [
    Attack("half-sent heads", _half_heads, ENDED, row="M11", limit_s=60),
    Attack("dripping heads", _dripping_heads, ENDED, row="M11", limit_s=60),
    Attack("a body that stops", _slow_body, ENDED, row="M11", short=True),
    Attack("an upload that stops", _slow_upload, ENDED, row="M11"),
    Attack("slow readers", _slow_readers, Expected(frozenset({200})), row="M11"),
    Attack("nine hundred idle connections", _idle, Expected(frozenset({200})), row="M11", limit_s=60),
    Attack("a hundred polls and streams", _polls, Expected(frozenset({200})), row="M11"),
    Attack("wrong keys under forged addresses", _wrong_keys, KEYS, row="L12", limit_s=60),
    raw("a header of 16 MiB", _head(X_A="a" * 2**24), short=True),
    raw("a hundred thousand headers", lambda target: _head()(target)[:-2] + b"X-A: b\r\n" * 100_000 + b"\r\n"),
    raw("a line of a megabyte", _head("/" + "a" * 2**20, "GET")),
    raw("a method that is none", _head(method="G\x01T"), short=True),
    raw("a header with a line break", _head(X_A="a\nb: c"), expected=ANY),
    raw("a header name with a space", lambda target: _head()(target)[:-2] + b"X A: b\r\n\r\n"),
    raw("no UTF-8 in the path", lambda target: b"GET /v1/\xff\xfe HTTP/1.1\r\nHost: x\r\n\r\n", expected=ANY),
    raw(
        "a version that is none",
        lambda _target: b"GET / HTTP/9.9\r\n\r\n",
        expected=Expected(ANY.statuses | {303}, ANY.codes, ANY.bare),
    ),
    raw("TLS to a plain port", lambda _target: b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 64, short=True),
    raw("a negative length", _head(Content_Length="-1", Content_Type="application/json"), expected=ANY),
    raw(
        "a length of many digits",
        _head(Content_Length="9" * 4000, Content_Type="application/json"),
        expected=Expected(ANY.statuses, ANY.codes | {"body_too_large", "too_large"}, ANY.bare),
    ),
    raw(
        "a chunk of 2^64",
        lambda target: (
            _head(Transfer_Encoding="chunked", Content_Type="application/json")(target) + b"F" * 16 + b"\r\n" + b"a" * 64
        ),
        expected=Expected(ANY.statuses, ANY.codes | {"body_too_large", "too_large"} | ENDED.codes, ANY.bare),
    ),
    raw(
        "a chunk size of megabytes",
        lambda target: _head(Transfer_Encoding="chunked", Content_Type="application/json")(target) + b"0" * 2**22,
        expected=Expected(ANY.statuses, ANY.codes | ENDED.codes, ANY.bare),
    ),
    Attack("wire: two lengths", partial(_smuggled, start=_two_lengths), ANY, short=True),
    Attack(
        "wire: a length and chunks",
        partial(_smuggled, start=_both_lengths),
        Expected(ANY.statuses, ANY.codes, ANY.bare),
        short=True,
    ),
]
