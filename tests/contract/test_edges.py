"""Doors of the application: proxies, wrong keys, heads that are too much, bodies that trickle."""

from __future__ import annotations

import ipaddress
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from starlette.testclient import TestClient

from app.keys.records import Caller, Scope
from app.main import create_app
from app.patience import Patience
from app.proxies import ProxyMiddleware, party_of
from app.rates import RateLimiter
from app.server import create_server
from app.settings import Settings, SettingsInvalid, get_settings
from tests.contract.conftest import Api
from tests.contract.problems import assert_problem
from tests.servers import wait_until

PROXIES = tuple(map(ipaddress.ip_network, ("10.0.0.0/8", "fd00::/8")))
BOTH = frozenset({Scope.JOBS_READ, Scope.JOBS_WRITE})


def key_of(api: Api) -> dict[str, str]:
    _key, text = api.client.app.state.keys.create(owner="acme", name="", scopes=BOTH, lives_s=None, caller=Caller())
    return {"Authorization": f"Bearer {text}"}


def from_address(api: Api, address: str) -> TestClient:
    return TestClient(api.client.app, client=(address, 50_000), raise_server_exceptions=False)


@pytest.mark.parametrize(
    ("peer", "told", "schemes", "client", "scheme"),
    [
        ("10.0.0.1", ["1.1.1.1"], ["https"], "1.1.1.1", "https"),
        ("10.0.0.1", ["6.6.6.6, 1.1.1.1"], ["https"], "1.1.1.1", "https"),  # the client said the first itself
        ("10.0.0.1", ["6.6.6.6", "1.1.1.1"], [], "1.1.1.1", "http"),
        ("10.0.0.1", ["1.1.1.1, 10.9.9.9"], ["https, http"], "1.1.1.1", "https"),  # two proxies, in step
        ("10.0.0.1", ["1.1.1.1:4711"], ["HTTPS"], "1.1.1.1", "https"),
        ("10.0.0.1", ["[2001:db8::1]:4711"], ["https"], "2001:db8::1", "https"),
        ("::ffff:10.0.0.1", ["::ffff:1.1.1.1"], ["https"], "1.1.1.1", "https"),
        ("fd00::1", ["1.1.1.1"], ["https"], "1.1.1.1", "https"),
        ("10.0.0.1", ["10.0.0.2, 10.0.0.3"], ["https"], "10.0.0.2", "https"),
        ("10.0.0.1", ["1.1.1.1, unknown"], ["javascript"], "10.0.0.1", "http"),
        ("10.0.0.1", [", ,"], [""], "10.0.0.1", "http"),
        ("10.0.0.1", ["x" * 10_000], [], "10.0.0.1", "http"),
        ("10.0.0.1", [", ".join(["10.0.0.2"] * 5000)], [], "10.0.0.2", "http"),
        ("127.0.0.1", ["1.1.1.1"], ["https"], "127.0.0.1", "http"),  # nobody named it
        ("11.0.0.1", ["1.1.1.1"], ["https"], "11.0.0.1", "http"),
        ("testclient", ["1.1.1.1"], ["https"], "testclient", "http"),
    ],
)
def test_who_a_trusted_proxy_speaks_for(peer: str, told: list[str], schemes: list[str], client: str, scheme: str) -> None:
    import asyncio

    headers = [(b"x-forwarded-for", value.encode()) for value in told]
    headers += [(b"x-forwarded-proto", value.encode()) for value in schemes]
    headers += [(b"x-forwarded-host", b"evil.example"), (b"forwarded", b"for=6.6.6.6;proto=https")]
    scope: dict[str, Any] = {"type": "http", "client": (peer, 1), "scheme": "http", "headers": headers}

    async def application(seen: Any, _receive: Any, _send: Any) -> None:
        assert (seen["client"][0], seen["scheme"]) == (client, scheme)
        assert seen["headers"] == headers

    asyncio.run(ProxyMiddleware(application, PROXIES)(scope, None, None))  # pyright: ignore[reportArgumentType]


def test_behind_a_trusted_proxy_cookies_are_secure_and_addresses_are_the_clients(make_api: Callable[..., Api]) -> None:
    api = make_api("", auth=True, secret="s" * 40, requests_per_minute=3, trusted_proxies=PROXIES)
    _key, text = api.client.app.state.keys.create(owner="a", name="", scopes=BOTH, lives_s=None, caller=Caller())
    https = {"X-Forwarded-Proto": "https", "X-Forwarded-For": "1.1.1.1"}
    for peer, expected in (("10.0.0.1", "__Host-coppice_session="), ("127.0.0.1", "coppice_session=")):
        proxy = from_address(api, peer)
        answer = proxy.post("/sign-in", data={"key": text}, headers=https, follow_redirects=False)
        assert answer.headers["set-cookie"].startswith(expected)
        assert ("; secure" in answer.headers["set-cookie"].lower()) == (peer == "10.0.0.1")
        assert answer.headers["location"] == "/"
    proxy = from_address(api, "10.0.0.1")
    moved = proxy.get(
        "/v1/jobs/", headers=https | {"Host": "prune.example"} | {"Authorization": f"Bearer {text}"}, follow_redirects=False
    )
    assert (moved.status_code, moved.headers["location"]) == (307, "https://prune.example/v1/jobs")
    guesses = [proxy.get("/v1/jobs", headers={"X-Forwarded-For": f"6.6.6.{n}, 2.2.2.2"}).status_code for n in range(5)]
    assert guesses == [401] * 3 + [429] * 2
    assert proxy.get("/v1/jobs", headers={"X-Forwarded-For": "3.3.3.3"}).status_code == 401, "another client is another"
    liar = from_address(api, "127.0.0.9")
    guesses = [liar.get("/v1/jobs", headers={"X-Forwarded-For": f"7.7.7.{n}"}).status_code for n in range(5)]
    assert guesses == [401] * 3 + [429] * 2


def test_wrong_keys_are_counted_by_address_and_by_what_is_guessed_at(make_api: Callable[..., Api]) -> None:
    api = make_api("", auth=True, secret="s" * 40, requests_per_minute=4)
    right = key_of(api)

    def guess(address: str, text: str) -> int:
        return from_address(api, address).get("/v1/jobs", headers={"Authorization": f"Bearer {text}"}).status_code

    site = [guess(f"2001:db8:0:1::{n}", f"cpk_{n:043}") for n in range(1, 7)]
    assert site == [401] * 4 + [429] * 2, "an IPv6 network of one party is one address"
    assert guess("2001:db8:0:2::1", f"cpk_{'x' * 43}") == 401
    text = right["Authorization"].removeprefix("Bearer ")
    tails = [guess(f"10.1.0.{n}", text[:-4] + f"{n:04}") for n in range(6)]
    assert tails == [401] * 4 + [429] * 2, "many addresses guess at one key"
    cookies = {"Cookie": f"coppice_session=cps_{'y' * 43}"}
    pages = [from_address(api, f"10.2.0.{n}").get("/v1/jobs", headers=cookies).status_code for n in range(6)]
    assert pages == [401] * 4 + [429] * 2, "or at one session"
    form = [
        from_address(api, f"10.3.0.{n}").post("/sign-in", data={"key": f"cpk_wrongish{n:035}"}).status_code for n in range(6)
    ]
    assert form == [401] * 4 + [429] * 2, "by the form too"
    for address in ("10.1.0.1", "2001:db8:0:1::1"):
        answer = from_address(api, address).get("/v1/jobs/none", headers=right)
        assert answer.status_code == 404, "the right key opens, from the same address too"
    assert_problem(from_address(api, "2001:db8:0:1::1").get("/v1/jobs"), 429, "rate_limited")


def test_a_flood_of_names_takes_no_memory_and_resets_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("app.rates.time", SimpleNamespace(monotonic=lambda: clock[0]))
    limiter = RateLimiter(6, most=1000)
    assert [limiter.take("mine").granted for _ in range(7)] == [True] * 6 + [False]
    begun = time.perf_counter()
    for n in range(30_000):
        clock[0] += 1e-4
        limiter.take(f"flood {n}")
    assert time.perf_counter() - begun < 5, "it does not look at all of them each time"
    assert len(limiter._buckets) <= 1001
    assert not limiter.take("mine").granted
    assert not limiter.take("yet another").granted, "newcomers share what is left"
    clock[0] += 61
    assert limiter.take("yet another").granted
    assert len(limiter._buckets) < 10, "and the rest is forgotten"


@pytest.mark.parametrize(
    ("address", "party"),
    [
        ("1.2.3.4", "1.2.3.4"),
        ("::ffff:1.2.3.4", "1.2.3.4"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
    ],
)
def test_whose_an_address_is(address: str, party: str) -> None:
    assert party_of(address) == party


HEADS = [
    ("/v1/jobs?" + "q" * 9000, {}, 414, "address_too_long"),
    ("/" + "p" * 9000, {}, 414, "address_too_long"),
    ("/v1/jobs?" + "a&" * 300, {}, 414, "too_many_parameters"),
    ("/v1/jobs", {f"x-{n}": "y" for n in range(200)}, 431, "head_too_large"),
    ("/v1/jobs", {"x": "y" * 40_000}, 431, "head_too_large"),
    ("/v1/jobs", {"transfer-encoding": "chunked", "content-length": "0"}, 400, "malformed_request"),
]


@pytest.mark.parametrize(("address", "headers", "status", "code"), HEADS)
def test_heads_that_no_honest_client_sends_are_refused(
    api_on_sqlite: Api, address: str, headers: dict[str, str], status: int, code: str
) -> None:
    answer = api_on_sqlite.client.get(address, headers=headers)
    assert_problem(answer, status, code)
    assert answer.headers["connection"] == "close"
    assert len(answer.content) < 10_000


def test_patience_is_used_up_by_a_trickle_and_not_by_a_slow_link() -> None:
    trickle, slow, bursts = (Patience(30, 1024) for _ in range(3))
    for _ in range(2):
        trickle.waited(29, 1)
    assert trickle.left_s < 0
    for _ in range(10_000):  # hours
        slow.waited(10, 11_000)
        bursts.waited(29, 100_000)
    assert (slow.left_s, bursts.left_s) == (30, 30)
    bursts.waited(29, 1)
    bursts.waited(2, 1)
    assert bursts.left_s < 0, "what was fast before is no credit for standing still"


@contextmanager
def listening(settings: Settings) -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = create_server(create_app(settings), settings)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        wait_until(lambda: server.started, "the server to start")
        yield listener.getsockname()[1]
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive()


@pytest.mark.long
def test_a_body_that_trickles_is_ended_and_a_steady_one_is_not(api_on_sqlite: Api) -> None:
    changes = {"body_patience_s": 1.0, "slowest_bytes_per_s": 100.0}
    settings = api_on_sqlite.client.app.state.settings.model_copy(update=changes)
    with listening(settings) as port:
        for step, pause_s, ends in ((b"x", 0.1, b"HTTP/1.1 408"), (b"x" * 40, 0.1, b"")):
            with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
                connection.sendall(
                    b"POST /v1/models HTTP/1.1\r\nHost: a\r\nContent-Type: application/x-tar\r\nContent-Length: 9999\r\n\r\n"
                )
                told, begun = b"", time.monotonic()
                connection.settimeout(pause_s)
                while not told and time.monotonic() - begun < 3:
                    connection.sendall(step)
                    try:
                        told = connection.recv(12)
                    except TimeoutError:
                        continue
                assert told == ends
    assert list((settings.resolved_uploads_dir / ".incoming").iterdir()) == []


def test_settings_of_the_edges_are_read_and_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value, says in (
        ("COPPICE_TRUSTED_PROXIES", "my-proxy", "COPPICE_TRUSTED_PROXIES"),
        ("COPPICE_SECRET_OLD", f"{'a' * 40},short", "at least 32 characters"),
    ):
        get_settings.cache_clear()
        with monkeypatch.context() as patch:
            patch.setenv(name, value)
            with pytest.raises(SettingsInvalid, match=says) as error:
                get_settings()
            assert "short" not in str(error.value)
    get_settings.cache_clear()
    monkeypatch.setenv("COPPICE_TRUSTED_PROXIES", "10.0.0.0/8, fd00::/8")
    monkeypatch.setenv("COPPICE_SECRET_OLD", f"{'a' * 40}, {'b' * 40}")
    settings = Settings()
    assert settings.trusted_proxies == PROXIES
    assert [secret.get_secret_value()[0] for secret in settings.secret_old] == ["a", "b"]
    assert "aaaa" not in repr(settings)
