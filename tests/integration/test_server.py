"""`coppice api` as a process: connections that cost too much are closed, and it ends in time whatever is open."""

from __future__ import annotations

import json
import signal
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass

import psutil
import pytest

from app.jobs.leases import LeaseRepository
from app.jobs.records import artifact_key
from app.jobs.repository import JobRepository
from app.storage import LocalArtifactStore, StoredArtifact
from pruning_core.report.report import Report
from pruning_core.spec import PruneSpec
from tests.integration.service import Backend, Service
from tests.servers import free_port, wait_until
from tests.unit.app.sample import REPORT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

SPEC = PruneSpec.model_validate({"model": "org/name", "task": "glue/sst2", "sparsity": 0.5})
HASTY = {"COPPICE_HEAD_PATIENCE_S": "1.2", "COPPICE_SEND_PATIENCE_S": "1.2", "COPPICE_BODY_PATIENCE_S": "1.2"}
LARGE = 48 * 2**20  # more than the system keeps for one connection
STREAM = b"GET /v1/jobs/waits/events HTTP/1.1\r\nHost: a\r\nAccept: text/event-stream\r\n\r\n"
POLL = b"GET /v1/jobs/waits HTTP/1.1\r\nHost: a\r\nPrefer: wait=60\r\n\r\n"
DOWNLOAD = b"GET /v1/jobs/done/artifacts/large.bin HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
UPLOAD = b"POST /v1/models HTTP/1.1\r\nHost: a\r\nContent-Type: application/x-tar\r\nContent-Length: 100000\r\n\r\nabc"


@dataclass(frozen=True)
class Running:
    """An API process and its port."""

    process: psutil.Process
    port: int
    stack: ExitStack

    def open(self, first: bytes = b"") -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=20)
        self.stack.callback(connection.close)
        connection.sendall(first)
        return connection

    def ask(self, request: bytes) -> bytes:
        """Send a request as it is; gives what comes back until the end."""
        with self.open(request) as connection:
            return rest(connection)

    def health_s(self) -> float:
        begun = time.perf_counter()
        assert self.ask(b"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").startswith(b"HTTP/1.1 200")
        return time.perf_counter() - begun


def rest(connection: socket.socket) -> bytes:
    """Read until the end, however it comes."""
    found = bytearray()
    with suppress(ConnectionResetError):
        while piece := connection.recv(65_536):
            found += piece
    return bytes(found)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Service:
    """A service with two jobs: one that waits for ever, and one with a large file."""
    folder = tmp_path_factory.mktemp("server")
    backend = Backend("local", folder / "data", "", "")
    made = Service(backend, folder)
    _fill(backend)
    return made


@pytest.fixture
def run(service: Service) -> Iterator[Callable[..., Running]]:
    """Start `coppice api`, or a bare uvicorn."""
    with ExitStack() as stack:

        def start(command: tuple[str, ...] = ("coppice.cli", "api"), **settings: str) -> Running:
            port = free_port()
            arguments = ("-m", *command, "--port", str(port))
            process = stack.enter_context(service.process("api", *arguments, changes=settings))
            running = Running(process, port, stack)
            wait_until(lambda: _answers(running), "the API to answer")
            return running

        yield start


def _fill(backend: Backend) -> None:
    database = backend.database()
    store = LocalArtifactStore(backend.data_dir / "artifacts")
    large = backend.data_dir / "large.bin"
    with large.open("wb") as file:
        file.truncate(LARGE)
    with database.write() as connection:
        JobRepository(connection).insert("done", owner="", spec=SPEC, metadata={}, priority=0)
        claim = LeaseRepository(connection).claim(worker="test", lease_s=60)
        assert claim is not None
        file_ = StoredArtifact("large.bin", *store.put(artifact_key(claim.job_id, claim.fence, "large.bin"), large))
        report = Report.model_validate(REPORT)
        assert LeaseRepository(connection).succeed(claim.job_id, claim.fence, report=report, artifacts=[file_], keep_s=None)
        JobRepository(connection).insert("waits", owner="", spec=SPEC, metadata={}, priority=0)
    database.close()


def _answers(running: Running) -> bool:
    try:
        running.health_s()
    except OSError:
        return False
    return True


def _seconds_until_closed(connections: list[socket.socket]) -> float:
    begun = time.monotonic()
    for connection in connections:
        rest(connection)
        connection.close()
    return time.monotonic() - begun


@pytest.mark.long
def test_heads_that_are_half_sent_are_closed_and_trickled_ones_too(run: Callable[..., Running]) -> None:
    api = run(**HASTY)
    halves = [api.open(head) for head in (b"", b"G", b"GET /healthz HTTP/1.1\r\nHost: a\r\nX-A: b") for _ in range(100)]
    answered = b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n"
    later = [api.open(answered + b"GET /hea") for _ in range(20)]  # the second request of a connection
    unread = b"POST /v1/jobs HTTP/1.1\r\nHost: a\r\nContent-Type: text/plain\r\nContent-Length: 500000\r\n\r\nabc"
    later += [api.open(unread) for _ in range(20)]  # the rest of a body whose request was refused
    with api.open(b"GET /healthz HTTP/1.1\r\n") as trickling:
        trickling.settimeout(0.2)
        begun, told = time.monotonic(), b""
        while not told:
            assert time.monotonic() - begun < 6, "a byte now and then is no progress of a head"
            try:
                trickling.sendall(b"x")
                told = trickling.recv(100)
            except TimeoutError:
                continue
            except ConnectionError:
                break
        assert not told or told.startswith(b"HTTP/1.1 408")
    assert api.health_s() < 1
    assert _seconds_until_closed(halves + later) < 6
    assert api.process.num_fds() < 60, "nothing is left"


@pytest.mark.long
def test_there_are_only_so_many_connections_and_who_leaves_makes_room(run: Callable[..., Running]) -> None:
    api = run(COPPICE_MAX_CONNECTIONS="40", COPPICE_MAX_CONNECTIONS_PER_ADDRESS="30", COPPICE_MAX_HEAD_BYTES="8192")
    streams = [api.open(STREAM) for _ in range(30)]
    for stream in streams:
        assert stream.recv(20).startswith(b"HTTP/1.1 200")
    refused = api.ask(b"")
    assert refused.startswith(b"HTTP/1.1 503"), refused
    assert b"retry-after: 5" in refused
    assert json.loads(refused.partition(b"\r\n\r\n")[2])["code"] == "too_many_connections"
    with socket.create_connection(("127.0.0.1", api.port), timeout=5, source_address=("127.0.0.2", 0)) as other:
        other.sendall(b"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        assert rest(other).startswith(b"HTTP/1.1 200"), "another address is none the worse"
    for stream in streams:
        stream.close()
    wait_until(lambda: _answers(api), "room again")
    halves = [api.open(b"GET /healthz HTTP/1.1\r\n") for _ in range(30)]
    for _ in range(10):
        halves.append(socket.create_connection(("127.0.0.1", api.port), timeout=5, source_address=("127.0.0.3", 0)))
        api.stack.callback(halves[-1].close)
    time.sleep(1)
    with socket.create_connection(("127.0.0.1", api.port), timeout=5, source_address=("127.0.0.4", 0)) as other:
        other.sendall(b"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        assert rest(other).startswith(b"HTTP/1.1 200"), "who does nothing makes room"


@pytest.mark.long
def test_bodies_in_crumbs_and_requests_sent_ahead_keep_nobody_waiting(run: Callable[..., Running]) -> None:
    api = run()
    before = api.process.memory_info().rss
    crumbs = b"1\r\nx\r\n" * 200_000
    ahead = b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n" * 300_000
    chunked = b"POST /v1/models HTTP/1.1\r\nHost: a\r\nContent-Type: application/x-tar\r\nTransfer-Encoding: chunked\r\n\r\n"
    refused = chunked.replace(b"/v1/models", b"/v1/nothing")

    def send(data: bytes) -> None:
        with suppress(OSError):
            connection = api.open()
            connection.settimeout(3)
            connection.sendall(data)

    with ThreadPoolExecutor(6) as pool:
        for data in (chunked + crumbs, refused + crumbs, ahead) * 2:
            pool.submit(send, data)
        time.sleep(0.3)
        assert max(api.health_s() for _ in range(10)) < 1
        assert api.process.memory_info().rss - before < 64 * 2**20
    answer = api.ask(chunked + crumbs[:20_000])
    assert not answer or b"pieces_too_small" in answer
    honest = api.ask(chunked.replace(b"Host: a", b"Host: a\r\nConnection: close") + b"40\r\n" + b"x" * 64 + b"\r\n0\r\n\r\n")
    assert honest.startswith(b"HTTP/1.1 422"), honest


@pytest.mark.long
def test_who_does_not_read_is_cut_off_and_who_reads_slowly_is_not(run: Callable[..., Running]) -> None:
    api = run(**HASTY)
    deaf = [api.open(DOWNLOAD) for _ in range(5)]
    pipelined = api.open(b"GET /openapi.json HTTP/1.1\r\nHost: a\r\n\r\n" * 200)  # answers that nobody takes
    with api.open(DOWNLOAD) as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**16)
        begun, read = time.monotonic(), 0
        while time.monotonic() - begun < 3.5:  # almost three times the patience
            read += len(slow.recv(2**15))
            time.sleep(0.1)
        assert len(rest(slow)) + read > LARGE, "all of it came"
    wait_until(lambda: len(api.process.net_connections()) <= 1, "the others to be cut off", timeout_s=10)
    for connection in [*deaf, pipelined]:
        assert len(rest(connection)) < LARGE
        connection.close()
    assert api.process.memory_info().rss < 2**30


@pytest.mark.parametrize("command", [("coppice.cli", "api"), ("uvicorn", "app.main:create_app", "--factory")])
@pytest.mark.long
def test_it_ends_in_time_with_everything_open(run: Callable[..., Running], command: tuple[str, ...]) -> None:
    api = run(command, COPPICE_END_PATIENCE_S="3")
    streams, polls = [api.open(STREAM) for _ in range(50)], [api.open(POLL) for _ in range(50)]
    half, upload, download = api.open(b"GET /healthz HTTP/1.1\r\nHo"), api.open(UPLOAD), api.open(DOWNLOAD)
    for stream in streams:
        assert stream.recv(20).startswith(b"HTTP/1.1 200")
    begun = time.monotonic()
    with ThreadPoolExecutor() as pool:
        api.process.send_signal(signal.SIGTERM)
        ended = pool.submit(api.process.wait, 20)
        wait_until(lambda: _refuses(api), "new connections to be refused", timeout_s=3)
        answers = [rest(poll) for poll in polls]
        assert all(answer.startswith(b"HTTP/1.1 200") and b'"status":"queued"' in answer for answer in answers)
        farewells = [rest(stream) for stream in streams]
        assert all(b"retry: 1000" in farewell and farewell.endswith(b"0\r\n\r\n") for farewell in farewells)
        assert time.monotonic() - begun < 4, "streams and polls end before the rest is cut off"
        assert rest(half) == b""
        told = rest(upload)
        assert told.startswith(b"HTTP/1.1 503"), told
        assert b"service_ends" in told
        ended.result()
    assert time.monotonic() - begun < 10
    download.close()


def _refuses(api: Running) -> bool:
    try:
        api.open().close()
    except ConnectionRefusedError:
        return True
    return False


@pytest.mark.long
def test_a_bare_uvicorn_believes_no_proxy_that_nobody_named(run: Callable[..., Running]) -> None:
    uvicorn = ("uvicorn", "app.main:create_app", "--factory")
    api = run(uvicorn, COPPICE_AUTH="true", COPPICE_REQUESTS_PER_MINUTE="3")
    guess = "GET /v1/jobs HTTP/1.1\r\nHost: a\r\nConnection: close\r\nX-Forwarded-For: 10.0.0.{}\r\n\r\n"
    statuses = [api.ask(guess.format(n).encode())[9:12] for n in range(5)]
    assert statuses == [b"401"] * 3 + [b"429"] * 2


FORMS = [
    (b"POST /v1/jobs HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nX", b"400"),
    (b"POST /v1/jobs HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n0\r\n\r\n", b"400"),
    (b"POST /v1/jobs HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", b"400"),
    (b"POST /v1/jobs HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello", b"400"),
    (b"POST /v1/jobs HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\nhello", b"400"),
    (b"POST /v1/jobs HTTP/1.1\r\nHost: a\r\nContent-Length : 5\r\n\r\nhello", b"400"),
    (b"GET /healthz HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", b"400"),
    (b"GET /healthz HTTP/1.1\r\n\r\n", b"400"),
    (b"GET /healthz HTTP/1.1\r\nHost: a\r\nX-A: b\0c\r\n\r\n", b"400"),
    (b"GET /healthz HTTP/1.1\r\nHost: a\r\nX A: b\r\n\r\n", b"400"),
    (b"GET /healthz HTTP/9.9\r\nHost: a\r\n\r\n", b"505"),
    (b"\x16\x03\x01\x02\x00\x01\x00\x01", b"400"),
    (b"GET /healthz HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 200_000 + b"\r\n\r\n", b"431"),
    (b"GET /healthz HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 10_000_000, b"431"),
    (b"GET /healthz HTTP/1.1\r\nHost: a\r\n" + b"a:b\r\n" * 5000 + b"\r\n", b"431"),
    (b"GET /healthz HTTP/1.1\r\nHost: a\r\n" + b"a:b\r\n" * 1_000_000, b"431"),
    (b"GET /" + b"p" * 9000 + b" HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", b"414"),
    (b"GET /v1/jobs?" + b"q" * 9000 + b" HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", b"414"),
    (b"GET /v1/jobs?" + b"a&" * 3000 + b" HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", b"414"),
]


@pytest.mark.long
def test_what_two_servers_could_read_in_two_ways_and_floods_in_heads_are_refused(run: Callable[..., Running]) -> None:
    api = run()
    before = sum(api.process.cpu_times()[:2])
    for request, status in FORMS:
        with api.open() as connection:
            with suppress(ConnectionError):  # it may be refused before all of it is sent
                connection.sendall(request)
            answer = rest(connection)
        # What was not read makes the system reset the connection, and take the answer along.
        assert answer.startswith(b"HTTP/1.1 " + status) or (not answer and len(request) > 65_536), (request[:80], answer[:200])
        assert answer.count(b"HTTP/1.1 ") <= 1, "it is one request, or none"
        assert b"Traceback" not in answer
    assert sum(api.process.cpu_times()[:2]) - before < 3
    assert api.health_s() < 1
