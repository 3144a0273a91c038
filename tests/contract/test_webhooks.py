"""Webhooks: from the end of a job to a signed message, and to nowhere that is not allowed."""

from __future__ import annotations

import ipaddress
import json
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

import httpcore2
import pytest
from standardwebhooks import Webhook as Verifier
from standardwebhooks import WebhookVerificationError

from app.jobs.records import JobError
from app.webhooks.delivery import DELAYS_S, Deliverer
from app.webhooks.guard import AddressRefused, GuardedBackend, is_allowed
from app.webhooks.models import webhook_deliveries
from app.webhooks.repository import WebhookRepository
from app.webhooks.service import WebhookSecrets
from tests.contract.conftest import Api
from tests.contract.problems import assert_problem
from tests.servers import wait_until

LOOPBACK = (ipaddress.ip_network("127.0.0.0/8"),)


class Receiver(BaseHTTPRequestHandler):
    """Keeps what it is sent, and answers as it is told to."""

    received: ClassVar[list[tuple[str, dict[str, str], bytes]]]
    answers: ClassVar[list[int]]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.received.append((self.path, dict(self.headers.items()), body))
        status = self.answers.pop(0) if self.answers else 204
        self.send_response(status)
        if 300 <= status < 400:
            self.send_header("location", f"http://127.0.0.1:{self.server.server_port}/elsewhere")
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_arguments: object) -> None:
        pass


@pytest.fixture
def receiver() -> Iterator[str]:
    Receiver.received, Receiver.answers = [], []
    with ThreadingHTTPServer(("127.0.0.1", 0), Receiver) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/hook"
        server.shutdown()
        thread.join()


@pytest.fixture(params=["sqlite", "postgresql"])
def api(request: pytest.FixtureRequest, make_api: Callable[..., Api]) -> Api:
    url = "" if request.param == "sqlite" else request.getfixturevalue("postgres_url")
    # The thread that delivers rests: the tests deliver.
    return make_api(url, webhook_networks=LOOPBACK, webhook_poll_s=3600)


@pytest.fixture
def deliver(api: Api) -> Callable[[], int]:
    state = api.client.app.state
    return Deliverer(state.settings, api.database, WebhookSecrets(state.secret)).deliver_due


def create(api: Api, url: str, **changes: Any) -> dict[str, Any]:
    response = api.client.post("/v1/webhooks", json={"url": url} | changes)
    assert response.status_code == 201, response.text
    return response.json()


def due_now(api: Api) -> None:
    with api.database.write() as connection:
        connection.execute(webhook_deliveries.update().where(webhook_deliveries.c.due_at.is_not(None)).values(due_at=0))


def deliveries(api: Api, webhook: dict[str, Any]) -> list[dict[str, Any]]:
    return api.client.get(f"/v1/webhooks/{webhook['id']}/deliveries").json()["data"]


def test_the_end_of_a_job_is_sent_once_and_signed(api: Api, receiver: str, deliver: Callable[[], int]) -> None:
    webhook = create(api, receiver)
    api.client.put("/v1/jobs/mine", json=api.body | {"metadata": {"run": "7"}})
    assert deliver() == 0, "a job that has not ended is no news"
    api.succeed()
    assert (deliver(), deliver()) == (1, 0)
    ((path, headers, body),) = Receiver.received
    assert path == "/hook"
    message = Verifier(webhook["secret"]).verify(body, headers)
    assert message["type"] == "job.succeeded"
    assert message["timestamp"].endswith("Z")
    assert message["data"]["id"] == "mine"
    assert message["data"]["metadata"] == {"run": "7"}
    assert message["data"]["result"]["target"]["achieved"] == 0.501
    with pytest.raises(WebhookVerificationError):
        Verifier(webhook["secret"]).verify(body + b" ", headers)
    (state,) = deliveries(api, webhook)
    assert (state["id"], state["attempts"], state["last_outcome"]) == (headers["webhook-id"], 1, "answered 204")
    assert state["delivered_at"] is not None


def test_while_the_server_s_secret_is_replaced_both_signatures_are_sent(make_api: Callable[..., Api], receiver: str) -> None:
    common = {"webhook_networks": LOOPBACK, "webhook_poll_s": 3600}
    webhook = create(make_api("", secret="a" * 40, **common), receiver)

    def sent(**secrets: Any) -> tuple[Api, dict[str, str], bytes]:
        api = make_api("", **secrets, **common)
        assert api.client.post(f"/v1/webhooks/{webhook['id']}/test").status_code == 202
        state = api.client.app.state
        assert Deliverer(state.settings, api.database, WebhookSecrets(state.secret)).deliver_due() == 1
        return api, Receiver.received[-1][1], Receiver.received[-1][2]

    api, headers, body = sent(secret="b" * 40, secret_old=("a" * 40,))
    Verifier(webhook["secret"]).verify(body, headers)
    shown = api.client.post(f"/v1/webhooks/{webhook['id']}/secret").json()
    assert shown["id"] == webhook["id"]
    assert shown["secret"] != webhook["secret"]
    Verifier(shown["secret"]).verify(body, headers)
    _api, headers, body = sent(secret="b" * 40)
    Verifier(shown["secret"]).verify(body, headers)
    with pytest.raises(WebhookVerificationError):
        Verifier(webhook["secret"]).verify(body, headers)
    assert_problem(api.client.post("/v1/webhooks/none/secret"), 404, "webhook_not_found")


def test_every_end_is_told_to_those_who_asked_for_it(api: Api, receiver: str, deliver: Callable[[], int]) -> None:
    create(api, f"{receiver}/all")
    create(api, f"{receiver}/failures", events=["job.failed"])
    api.submit()
    api.fail(JobError("oom", "too large", "calibration"))
    api.client.post(f"/v1/jobs/{api.submit()}/cancel")
    deliver()
    told = sorted(
        (path, json.loads(body)["type"], json.loads(body)["data"]["status"]) for path, _headers, body in Receiver.received
    )
    assert told == [
        ("/hook/all", "job.cancelled", "cancelled"),
        ("/hook/all", "job.failed", "failed"),
        ("/hook/failures", "job.failed", "failed"),
    ]


def test_a_receiver_that_fails_is_tried_again_with_the_same_message(
    api: Api, receiver: str, deliver: Callable[[], int]
) -> None:
    webhook = create(api, receiver)
    api.client.post(f"/v1/webhooks/{webhook['id']}/test")
    Receiver.answers = [500, 302, 404]
    for attempt in range(1, 4):
        assert deliver() == 1
        (state,) = deliveries(api, webhook)
        assert (state["attempts"], state["delivered_at"]) == (attempt, None)
        assert state["next_attempt_at"] is not None
        assert deliver() == 0, "not before its time"
        due_now(api)
    assert deliver() == 1
    assert len({headers["webhook-id"] for _path, headers, _body in Receiver.received}) == 1
    assert len({body for _path, _headers, body in Receiver.received}) == 1
    assert {path for path, _headers, _body in Receiver.received} == {"/hook"}, "redirects are not followed"
    assert deliveries(api, webhook)[0]["last_outcome"] == "answered 204"


def test_delays_grow_for_a_day_and_then_it_is_given_up(api: Api, receiver: str, deliver: Callable[[], int]) -> None:
    assert list(DELAYS_S) == sorted(DELAYS_S)
    assert 20 * 3600 < sum(DELAYS_S) < 30 * 3600
    webhook = create(api, receiver)
    api.client.post(f"/v1/webhooks/{webhook['id']}/test")
    Receiver.answers = [503] * 100
    for _attempt in DELAYS_S:
        assert deliver() == 1
        due_now(api)
    assert deliver() == 1
    assert deliver() == 0
    (state,) = deliveries(api, webhook)
    assert (state["next_attempt_at"], state["delivered_at"], state["attempts"]) == (None, None, len(DELAYS_S) + 1)


def test_a_receiver_that_is_gone_is_left_alone(api: Api, receiver: str, deliver: Callable[[], int]) -> None:
    webhook = create(api, receiver)
    for _ in range(2):
        api.client.post(f"/v1/jobs/{api.submit()}/cancel")
    Receiver.answers = [410, 410]
    deliver()
    shown = api.client.get(f"/v1/webhooks/{webhook['id']}").json()
    assert (shown["disabled_why"], shown["disabled_at"] is not None) == ("gone", True)
    api.client.post(f"/v1/jobs/{api.submit()}/cancel")
    due_now(api)
    assert deliver() == 0


@pytest.mark.long
def test_the_outbox_is_written_with_the_job_or_not_at_all(api: Api, receiver: str, monkeypatch: pytest.MonkeyPatch) -> None:
    create(api, receiver)
    job_id = api.submit()

    def fail(*_arguments: object) -> None:
        raise RuntimeError("the process dies here")

    with monkeypatch.context() as patch:
        patch.setattr(WebhookRepository, "send", fail)
        assert api.client.post(f"/v1/jobs/{job_id}/cancel").status_code == 500
    assert api.client.get(f"/v1/jobs/{job_id}").json()["status"] == "queued"
    assert api.client.post(f"/v1/jobs/{job_id}/cancel").status_code == 202


def test_a_message_whose_sender_died_is_sent_by_another(api: Api, receiver: str, deliver: Callable[[], int]) -> None:
    webhook = create(api, receiver)
    api.client.post(f"/v1/webhooks/{webhook['id']}/test")
    with api.database.write() as connection:
        assert len(WebhookRepository(connection).claim(lease_s=60)) == 1
    assert deliver() == 0, "somebody is at it"
    due_now(api)
    assert deliver() == 1


def test_a_webhook_can_be_deleted_with_what_waits(api: Api, receiver: str, deliver: Callable[[], int]) -> None:
    webhook = create(api, receiver)
    api.client.post(f"/v1/webhooks/{webhook['id']}/test")
    assert api.client.delete(f"/v1/webhooks/{webhook['id']}").status_code == 204
    assert deliver() == 0
    assert api.client.get("/v1/webhooks").json()["data"] == []
    assert_problem(api.client.delete(f"/v1/webhooks/{webhook['id']}"), 404, "webhook_not_found")


def test_the_service_delivers_by_itself(make_api: Callable[..., Api], receiver: str) -> None:
    api = make_api("", webhook_networks=LOOPBACK, webhook_poll_s=0.05)
    create(api, receiver)
    api.client.post(f"/v1/jobs/{api.submit()}/cancel")
    wait_until(lambda: bool(Receiver.received), "the message")


def test_there_are_only_so_many(api: Api) -> None:
    for _ in range(20):
        create(api, "https://example.org/hook")
    assert_problem(api.client.post("/v1/webhooks", json={"url": "https://example.org"}), 429, "quota_exceeded")


@pytest.mark.parametrize(
    "url",
    [
        "ftp://example.org/",
        "file:///etc/passwd",
        "gopher://example.org/",
        "javascript:alert(1)",
        "//example.org",
        "https://",
        "https://user:password@example.org/",
        "http://127.0.0.1/",
        "http://2130706433/",
        "http://0x7f000001/",
        "http://0177.0.0.1/",
        "http://127.1/",
        "http://0.0.0.0/",
        "http://169.254.169.254/latest/meta-data/",
        "http://10.0.0.1/",
        "http://172.16.0.1/",
        "http://192.168.1.1/",
        "http://100.64.0.1/",
        "http://224.0.0.1/",
        "http://255.255.255.255/",
        "http://[::1]/",
        "http://[::]/",
        "http://[::ffff:127.0.0.1]/",
        "http://[::ffff:a9fe:a9fe]/",
        "http://[fe80::1]/",
        "http://[fd00::1]/",
        "http://[64:ff9b::7f00:1]/",
        "http://[2002:7f00:1::]/",
        "http://[2001:0:7f00:1::]/",
        "http://[ff02::1]/",
        "https://example.org/" + "x" * 2000,
    ],
)
def test_addresses_that_are_written_out_are_judged_at_once(api_on_sqlite: Api, url: str) -> None:
    response = api_on_sqlite.client.post("/v1/webhooks", json={"url": url})
    assert response.status_code == 422, response.text
    assert [error["pointer"] for error in response.json()["errors"]] == ["/url"]


@pytest.mark.parametrize(
    ("address", "allowed"),
    [("93.184.216.34", True), ("2606:2800:220:1::1", True), ("127.0.0.1", False), ("10.1.2.3", True), ("10.2.0.1", False)],
)
def test_networks_can_be_allowed(address: str, allowed: bool) -> None:
    assert is_allowed(ipaddress.ip_address(address), (ipaddress.ip_network("10.1.0.0/16"),)) == allowed


class Names:
    """A name server that gives one answer after the other."""

    def __init__(self, *answers: list[str]) -> None:
        self._answers = list(answers)

    def __call__(self, _host: str, port: int, **_options: object) -> list[tuple[Any, ...]]:
        found = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        families = {4: socket.AF_INET, 6: socket.AF_INET6}
        return [
            (families[ipaddress.ip_address(address).version], socket.SOCK_STREAM, 6, "", (address, port)) for address in found
        ]


@pytest.mark.parametrize("addresses", [["127.0.0.1"], ["::1"], ["93.184.216.34", "127.0.0.1"], ["169.254.169.254"]])
def test_names_are_judged_by_what_they_stand_for(
    api: Api, receiver: str, deliver: Callable[[], int], monkeypatch: pytest.MonkeyPatch, addresses: list[str]
) -> None:
    state = api.client.app.state
    strict = Deliverer(state.settings.model_copy(update={"webhook_networks": ()}), api.database, WebhookSecrets(state.secret))
    webhook = create(api, receiver.replace("127.0.0.1", "innocent.example"))
    api.client.post(f"/v1/webhooks/{webhook['id']}/test")
    monkeypatch.setattr("app.webhooks.guard.socket.getaddrinfo", Names(addresses))
    assert strict.deliver_due() == 1
    assert deliveries(api, webhook)[0]["last_outcome"] == "the address is not allowed"
    assert Receiver.received == []


def test_a_name_that_changes_its_meaning_is_connected_to_as_it_was_judged(
    monkeypatch: pytest.MonkeyPatch, receiver: str
) -> None:
    # First harmless, then loopback: whoever resolved twice would judge the one and connect to the other.
    monkeypatch.setattr("app.webhooks.guard.socket.getaddrinfo", Names(["93.184.216.34"], ["127.0.0.1"]))
    connected: list[str] = []
    sockets = httpcore2.SyncBackend()
    monkeypatch.setattr(sockets, "connect_tcp", lambda host, *_rest: connected.append(host))
    backend = GuardedBackend((), 5, sockets)
    backend.connect_tcp("innocent.example", int(receiver.split(":")[2].split("/", maxsplit=1)[0]))
    assert connected == ["93.184.216.34"]
    with pytest.raises(AddressRefused):
        backend.connect_tcp("innocent.example", 80)


def test_a_receiver_that_drips_is_left(api: Api, deliver: Callable[[], int]) -> None:
    state = api.client.app.state
    impatient = Deliverer(state.settings, api.database, WebhookSecrets(state.secret), lifetime_s=0.5)
    stop = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def drip() -> None:
            connection, _peer = listener.accept()
            with connection:
                connection.sendall(b"HTTP/1.1 200 OK\r\n")
                while not stop.wait(0.05):
                    try:
                        connection.sendall(b"X-A: b\r\n")
                    except OSError:
                        return

        thread = threading.Thread(target=drip)
        thread.start()
        webhook = create(api, f"http://127.0.0.1:{listener.getsockname()[1]}/")
        api.client.post(f"/v1/webhooks/{webhook['id']}/test")
        impatient.deliver_due()
        stop.set()
        thread.join()
    assert deliveries(api, webhook)[0]["last_outcome"] == "failed: ReadTimeout"
