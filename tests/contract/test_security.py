"""Limits, hostile requests, and what must never be said."""

from __future__ import annotations

import contextlib
import json
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import uvicorn

from app.keys.records import Caller, Scope
from app.logs import configure_logging
from app.main import create_app
from app.rates import RateLimiter
from app.settings import Settings, SettingsInvalid, get_settings
from tests.contract.archives import contents, packed
from tests.contract.conftest import FILES, Api
from tests.contract.problems import assert_problem
from tests.servers import free_port, wait_until

BOTH = frozenset({Scope.JOBS_READ, Scope.JOBS_WRITE})


def key_of(api: Api, tenant: str = "acme") -> dict[str, str]:
    _key, text = api.client.app.state.keys.create(owner=tenant, name="", scopes=BOTH, lives_s=None, caller=Caller())
    return {"Authorization": f"Bearer {text}"}


def test_a_key_may_ask_only_so_often(make_api: Callable[..., Api]) -> None:
    api = make_api("", auth=True, requests_per_minute=5)
    first, second = key_of(api), key_of(api)
    answers = [api.client.get("/v1/jobs", headers=first) for _ in range(6)]
    assert [answer.status_code for answer in answers] == [200] * 5 + [429]
    assert_problem(answers[-1], 429, "rate_limited")
    assert 0 < int(answers[-1].headers["retry-after"]) <= 12
    assert answers[0].headers["ratelimit-policy"] == '"requests";q=5;w=60'
    assert answers[0].headers["ratelimit"].startswith('"requests";r=4;t=')
    assert answers[-1].headers["ratelimit"].startswith('"requests";r=0;t=')
    assert api.client.get("/v1/jobs/none", headers=second).headers["ratelimit"].startswith('"requests";r=4'), (
        "problems say it too"
    )
    guesses = [api.client.get("/v1/jobs", headers={"Authorization": f"Bearer cpk_{n:043}"}).status_code for n in range(7)]
    assert guesses == [401] * 5 + [429] * 2
    assert api.client.get("/v1/jobs", headers=second).status_code == 200, "whoever guesses locks nobody out"
    assert api.client.get("/healthz").status_code == 200


def test_requests_come_back_with_time(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("app.rates.time.monotonic", lambda: clock[0])
    limiter = RateLimiter(60)
    assert [limiter.take("a").granted for _ in range(61)] == [True] * 60 + [False]
    assert limiter.take("b").granted
    clock[0] = 2.0
    assert [limiter.take("a").granted for _ in range(3)] == [True, True, False]
    clock[0] = 1000.0
    assert limiter.take("a").remaining == 59


def test_the_queue_of_one_tenant_has_an_end_and_others_do_not_notice(make_api: Callable[..., Api]) -> None:
    api = make_api("", auth=True, max_queued_jobs=2)
    first, second = key_of(api), key_of(api, "rival")
    answers = [api.client.post("/v1/jobs", json=api.body, headers=first) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [202, 202, 429]
    assert_problem(answers[-1], 429, "quota_exceeded")
    assert answers[-1].headers["retry-after"]
    assert api.client.post("/v1/jobs", json=api.body, headers=second).status_code == 202


# Dots between slashes are resolved by every client before they are sent; encoded ones are not.
TRAVERSALS = (
    "..%2f..%2fetc%2fpasswd",
    "%2e%2e%2f%2e%2e%2fetc%2fpasswd",
    "..\\..\\etc",
    "%2fetc%2fpasswd",
    "%00",
    "a%00b",
    "a%0d%0ab",
)


@pytest.mark.parametrize("path", TRAVERSALS)
def test_no_path_parameter_leads_anywhere(api_on_sqlite: Api, path: str) -> None:
    api = api_on_sqlite
    job_id = api.submit()
    api.succeed()
    templates = [template for template in api.client.get("/openapi.json").json()["paths"] if "{" in template]
    assert len(templates) > 10
    for template in templates:
        for method in ("GET", "DELETE", "POST", "PUT", "PATCH"):
            places = ("job_id", "calibration_id", "webhook_id", "key_id", "upload_id", "path", "revision", "tenant", "queue")
            names = dict.fromkeys(places, path)
            if "{path}" in template:
                names["job_id"] = job_id
            response = api.client.request(method, template.format(**names), json=api.body)
            refused = {307, 400, 404, 405, 415, 422} | ({401} if template.startswith("/hub") else set[int]())  # as the Hub does
            assert response.status_code in refused or response.json().get("object") == "list", (
                method,
                template,
                response.text,
            )
            assert "root:" not in response.text
            assert str(api.scratch) not in response.text


@pytest.mark.parametrize("value", ["a\r\nSet-Cookie: x=1", "a\nX-Evil: 1", "a\0b", "<script>", "é", "x" * 5000])
def test_what_comes_in_headers_and_names_does_not_come_out_as_headers(api_on_sqlite: Api, value: str) -> None:
    api = api_on_sqlite
    raw = value.encode("utf-8")
    for headers in (
        {b"X-Request-Id": raw},
        {b"Idempotency-Key": raw},
        {b"If-None-Match": raw},
        {b"Prefer": raw},
        {b"Range": raw},
    ):
        response = api.client.post("/v1/jobs", json=api.body, headers=headers)
        assert response.status_code in {202, 422}
        assert "set-cookie" not in response.headers
        assert "x-evil" not in response.headers
        assert value not in response.text
    chosen = api.client.get("/v1/jobs", params={"after": value})
    assert (chosen.status_code, value in chosen.text) == (422, False)


def test_pages_cannot_be_made_of_what_workers_wrote(api_on_sqlite: Api) -> None:
    job_id = api_on_sqlite.submit()
    api_on_sqlite.succeed()
    for path in FILES:
        response = api_on_sqlite.client.get(f"/v1/jobs/{job_id}/artifacts/{path}")
        assert response.headers["content-disposition"].startswith("attachment")
        assert response.headers["x-content-type-options"] == "nosniff"
    archive = api_on_sqlite.client.get(f"/v1/jobs/{job_id}/download")
    assert archive.headers["content-disposition"].startswith("attachment")


@contextmanager
def listening(settings: Settings) -> Iterator[int]:
    server = uvicorn.Server(uvicorn.Config(create_app(settings), port=free_port(), log_config=None))
    thread = threading.Thread(target=server.run)
    thread.start()
    wait_until(lambda: server.started, "the server to start")
    yield server.config.port
    server.should_exit = True
    thread.join(30)
    assert not thread.is_alive()


def raw(port: int, *pieces: bytes, pause_s: float = 0) -> bytes:
    """Send pieces of a request as they are; gives what comes back until the end."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        for piece in pieces:
            connection.sendall(piece)
            time.sleep(pause_s)
        answer = b""
        # What the server did not read makes the system reset the connection.
        with contextlib.suppress(ConnectionResetError):
            while chunk := connection.recv(65_536):
                answer += chunk
        return answer


def head(path: str, length: int, kind: str = "application/json") -> bytes:
    return f"POST {path} HTTP/1.1\r\nHost: a\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n".encode()


def test_bodies_that_do_not_come_are_ended(api_on_sqlite: Api) -> None:
    settings = api_on_sqlite.client.app.state.settings.model_copy(update={"body_patience_s": 0.3})
    with listening(settings) as port:
        for path, kind in (("/v1/jobs", "application/json"), ("/v1/models", "application/x-tar")):
            answer = raw(port, head(path, 1000, kind), b'{"model":')
            assert answer.startswith(b"HTTP/1.1 408"), answer
            assert b"body_too_slow" in answer
            assert b"connection: close" in answer.lower()
        steady = json.dumps(api_on_sqlite.body).encode()
        pieces = [steady[at : at + 40] for at in range(0, len(steady), 40)]
        begin = head("/v1/jobs", len(steady)).replace(b"Host: a", b"Host: a\r\nConnection: close")
        assert raw(port, begin, *pieces, pause_s=0.05).startswith(b"HTTP/1.1 202"), "slow is not still"
    incoming = settings.resolved_uploads_dir / ".incoming"
    assert list(incoming.iterdir()) == []


def test_a_stream_of_events_outlives_the_patience_with_bodies(api_on_sqlite: Api) -> None:
    job = api_on_sqlite.submit()
    settings = api_on_sqlite.client.app.state.settings.model_copy(update={"body_patience_s": 0.3})
    with listening(settings) as port, socket.create_connection(("127.0.0.1", port), timeout=2) as connection:
        connection.sendall(f"GET /v1/jobs/{job}/events HTTP/1.1\r\nHost: t\r\nAccept: text/event-stream\r\n\r\n".encode())
        told = b""
        while b"event: job.queued" not in told:
            told += connection.recv(65536)
        with pytest.raises(TimeoutError):  # the job waits, and so does the stream: nothing comes, not even its end
            connection.recv(65536)


def test_a_client_that_leaves_in_the_middle_leaves_nothing(api_on_sqlite: Api, tiny_bert: Path) -> None:
    settings = api_on_sqlite.client.app.state.settings
    archive = packed(contents(tiny_bert))
    with listening(settings) as port:
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(head("/v1/models", len(archive), "application/x-tar") + archive[:2000])
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(head("/v1/jobs", 1000) + b'{"model":')
        incoming = settings.resolved_uploads_dir / ".incoming"
        wait_until(lambda: incoming.is_dir() and not list(incoming.iterdir()), "the draft to be deleted")
    assert api_on_sqlite.client.get("/v1/models").json()["data"] == []
    assert api_on_sqlite.client.get("/v1/jobs").json()["data"] == []


@pytest.mark.parametrize(
    "request_",
    [
        b"POST /v1/jobs HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /v1/jobs HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        b"POST /v1/jobs HTTP/1.1\r\nHost: a\r\nContent-Length: -5\r\n\r\n",
        b"POST /v1/jobs HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\n",
        b"GET /v1/jobs HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 200_000 + b"\r\n\r\n",
        b"GET /v1/jobs HTTP/1.1\r\nHost: a\r\nX-A: b\0c\r\n\r\n",
    ],
)
def test_requests_that_are_no_http_are_refused(api_on_sqlite: Api, request_: bytes) -> None:
    with listening(api_on_sqlite.client.app.state.settings) as port:
        answer = raw(port, request_.replace(b"Host: a", b"Host: a\r\nConnection: close"))
        refusals = (b"HTTP/1.1 400", b"HTTP/1.1 413", b"HTTP/1.1 415", b"HTTP/1.1 431")
        assert not answer or answer.startswith(refusals), answer[:200]
        assert b"Traceback" not in answer
        assert raw(port, b"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").startswith(b"HTTP/1.1 200")


@pytest.fixture
def fresh_logging() -> Iterator[None]:
    root = logging.getLogger()
    kept, level = root.handlers, root.level
    yield
    root.handlers = kept
    root.setLevel(level)
    import structlog

    structlog.reset_defaults()


@pytest.mark.parametrize("as_json", [True, False])
def test_secrets_are_in_no_log_and_in_no_answer(
    make_api: Callable[..., Api],
    capsys: pytest.CaptureFixture[str],
    fresh_logging: None,
    monkeypatch: pytest.MonkeyPatch,
    as_json: bool,
) -> None:
    secret = "the-server-secret-" * 3
    api = make_api("", auth=True, secret=secret)
    configure_logging(as_json=as_json)
    headers = key_of(api)
    text = headers["Authorization"].removeprefix("Bearer ")
    hook = api.client.post("/v1/webhooks", json={"url": "https://example.org/hook"}, headers=headers).json()
    seen = [api.client.get(f"/v1/webhooks/{hook['id']}", headers=headers).text]
    seen.append(api.client.post("/v1/jobs", json=api.body, headers=headers).text)

    def broken(*_arguments: object) -> None:
        raise RuntimeError("broken while a key was looked at")

    monkeypatch.setattr("app.keys.repository.KeyRepository.valid", broken)
    failed = api.client.get("/v1/jobs", headers=headers)
    assert_problem(failed, 500, "internal")
    seen.append(failed.text)
    told = capsys.readouterr()
    said = "".join(seen) + told.out + told.err
    assert "broken while a key" in said, "the log tells what went wrong"
    for hidden in (text, text[4:], secret, hook["secret"], hook["secret"][6:]):
        assert hidden not in said


def test_settings_show_no_secret_and_ask_for_a_good_one(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "hidden" not in repr(Settings(secret="hidden" * 10))
    for environment, says in (
        ({"COPPICE_SECRET": "short"}, "at least 32 characters"),
        ({"COPPICE_AUTH": "true", "COPPICE_DATABASE_URL": "postgresql://a:b@c/d"}, "COPPICE_SECRET is needed"),
        ({"COPPICE_WEBHOOK_NETWORKS": "everything"}, "COPPICE_WEBHOOK_NETWORKS"),
    ):
        get_settings.cache_clear()
        with monkeypatch.context() as patch:
            for name, value in environment.items():
                patch.setenv(name, value)
            with pytest.raises(SettingsInvalid, match=says):
                get_settings()
    get_settings.cache_clear()


def test_the_secret_of_the_local_profile_is_made_once_and_for_its_owner_alone(tmp_path: Path) -> None:
    from app.secret import ServerSecret

    settings = Settings(data_dir=tmp_path / "data")
    digests: set[bytes] = set()
    threads = [threading.Thread(target=lambda: digests.add(ServerSecret(settings).digest("a", "b"))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(digests) == 1
    (file,) = (tmp_path / "data").iterdir()
    assert file.stat().st_mode & 0o777 == 0o600
    assert ServerSecret(settings).digest("other", "b") not in digests


def test_uploads_do_not_wait_for_each_other_in_the_event_loop(api_on_sqlite: Api, tiny_bert: Path) -> None:
    """While one body is still coming, others are served."""
    archive = packed(contents(tiny_bert))
    settings = api_on_sqlite.client.app.state.settings
    with listening(settings) as port, socket.create_connection(("127.0.0.1", port), timeout=20) as slow:
        slow.sendall(head("/v1/models", len(archive), "application/x-tar") + archive[:1000])
        quick = head("/v1/models", len(archive), "application/x-tar").replace(b"Host: a", b"Host: a\r\nConnection: close")
        assert raw(port, quick + archive).startswith(b"HTTP/1.1 201")
        slow.sendall(archive[1000:])
        assert slow.recv(1000).startswith(b"HTTP/1.1 200")
