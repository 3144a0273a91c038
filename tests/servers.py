"""A real Redis and a real PostgreSQL, started by the tests on free ports of this host and ended with them."""

from __future__ import annotations

import http.client
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode
from uuid import uuid4

import pytest

from tests.guides import block

_START_S = 60
_ACCOUNTS = ("postgres", "nobody")


class Server:
    """A server process that can be stopped, killed and started again on its port."""

    def __init__(self, command: list[str], log: Path, end: signal.Signals, port: int, answers: Callable[[], bool]) -> None:
        self.port = port
        self._command = command
        self._log = log
        self._end = end
        self._answers = answers
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it answers."""
        with self._log.open("ab") as output:
            process = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=self._log.parent
            )
        self._process = process
        wait_until(lambda: process.poll() is not None or self._answers(), f"{self._command[0]} to answer")
        assert process.poll() is None, self._log.read_text()

    def stop(self) -> None:
        """End it as its operator would."""
        if self._process is not None:
            self._process.send_signal(self._end)
            self._process.wait(30)
            self._process = None

    def restart(self) -> None:
        """Stop it and start it."""
        self.stop()
        self.start()


@contextmanager
def redis() -> Iterator[Server]:
    """Run a Redis that keeps nothing on disk."""
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("redis-server is not installed: tests/install_servers.sh installs it")
    with _folder("redis") as folder:
        port = free_port()
        command = [program, "--bind", "127.0.0.1", "--port", str(port), "--dir", str(folder)]
        command += ["--save", "", "--appendonly", "no"]
        with _running(Server(command, folder / "log", signal.SIGTERM, port, lambda: _redis_answers(port))) as server:
            yield server


@dataclass(frozen=True)
class GuardedRedis:
    """A Redis that asks for a user's password, by TLS."""

    server: Server
    ca: Path
    other_ca: Path
    password: str

    def url(self, password: str | None = None, **options: str) -> str:
        """Give its URL, with a wrong password if one is given; options stand for those of TLS."""
        query = urlencode({"ssl_ca_certs": str(self.ca)} | options, safe="/")
        return f"rediss://coppice:{password or self.password}@127.0.0.1:{self.server.port}/0?{query}"


@contextmanager
def guarded_redis() -> Iterator[GuardedRedis]:
    """Run a Redis as the guide describes: no port without TLS, and one user, who may not administer it."""
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("redis-server is not installed: tests/install_servers.sh installs it")
    with _folder("redis") as folder:
        port, password = free_port(), uuid4().hex
        write_certificates(folder)
        (folder / "other").mkdir()
        write_certificates(folder / "other")
        configuration = f"""
            bind 127.0.0.1
            port 0
            tls-port {port}
            tls-cert-file {folder}/redis.crt
            tls-key-file {folder}/redis.key
            tls-ca-cert-file {folder}/ca.crt
            tls-auth-clients no
            dir {folder}
            save ""
            appendonly no
            user default off
            user coppice on >{password} ~* &* +@all -@admin -@dangerous
        """
        (folder / "redis.conf").write_text(configuration)
        command = [program, str(folder / "redis.conf")]
        with _running(Server(command, folder / "log", signal.SIGTERM, port, lambda: _listens(port))) as server:
            yield GuardedRedis(server, folder / "ca.crt", folder / "other" / "ca.crt", password)


def write_certificates(folder: Path) -> None:
    """Make an authority, and a certificate of it for this host, by the commands of the guide."""
    done = subprocess.run(
        ["sh", "-e", "-c", block("tls.md", "sh", "certificates")], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@contextmanager
def postgres(*, durable: bool = False) -> Iterator[Server]:
    """Run a PostgreSQL that trusts the user ``coppice``. It waits for the disk at a commit where it is to be ``durable``."""
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]))
    found = str(programs[-1]) if programs else shutil.which("postgres")
    if found is None:
        pytest.skip("postgresql is not installed: tests/install_servers.sh installs it")
    with _folder("postgres") as folder:
        data, port, account = folder / "data", free_port(), _account(folder)
        initdb = [str(Path(found).with_name("initdb")), "-D", str(data), "-U", "coppice", "-A", "trust", "-E", "UTF8"]
        made = subprocess.run([*account, *initdb, "--locale=C", "--no-sync"], capture_output=True, text=True, check=False)
        assert made.returncode == 0, made.stderr
        command = [found, "-D", str(data), "-h", "127.0.0.1", "-p", str(port), "-k", str(folder)]
        command += [] if durable else ["-c", "fsync=off"]
        server = Server([*account, *command], folder / "log", signal.SIGINT, port, lambda: _postgres_answers(port))
        with _running(server):
            yield server


@contextmanager
def pgbouncer(postgres_port: int, *, connections: int) -> Iterator[Server]:
    """Run a PgBouncer in transaction mode before a PostgreSQL, to which it opens so many connections at most."""
    program = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin:/usr/local/sbin")
    if program is None:
        pytest.skip("pgbouncer is not installed: tests/install_servers.sh installs it")
    with _folder("pgbouncer") as folder:
        port, account = free_port(), _account(folder)
        settings = folder / "pgbouncer.ini"
        settings.write_text(
            f"[databases]\n* = host=127.0.0.1 port={postgres_port} user=coppice\n"
            f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = any\n"
            f"pool_mode = transaction\nmax_client_conn = 1000\ndefault_pool_size = {connections}\n"
            f"max_db_connections = {connections}\nserver_reset_query =\n"
        )
        settings.chmod(0o644)
        server = Server([*account, program, str(settings)], folder / "log", signal.SIGINT, port, lambda: _listens(port))
        with _running(server):
            yield server


def _listens(port: int) -> bool:
    with socket.socket() as found:
        return found.connect_ex(("127.0.0.1", port)) == 0


def new_database(port: int, folder: Path | None = None) -> str:
    """Create an empty database, its tables in a folder if one is given, and give its URL."""
    import psycopg

    name = f"test_{uuid4().hex}"
    with psycopg.connect(_postgres(port, "postgres"), autocommit=True) as connection:
        where = ""
        if folder is not None:
            connection.execute(f"CREATE TABLESPACE \"{name}\" LOCATION '{folder}'".encode())
            where = f' TABLESPACE "{name}"'
        connection.execute(f'CREATE DATABASE "{name}"{where}'.encode())
    return f"postgresql+psycopg://coppice@127.0.0.1:{port}/{name}"


@contextmanager
def s3() -> Iterator[Server]:
    """Run moto's S3, which keeps its buckets in memory."""
    with _folder("s3") as folder:
        port = free_port()
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
        with _running(Server(command, folder / "log", signal.SIGTERM, port, lambda: _s3_answers(port))) as server:
            yield server


def s3_environment(port: int) -> dict[str, str]:
    """Give the variables by which AWS clients find a server of ours."""
    return {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }


def new_bucket(port: int) -> str:
    """Create an empty bucket, and give its name."""
    name = f"test-{uuid4().hex}"
    put_bucket(port, name)
    return name


def put_bucket(port: int, name: str) -> None:
    """Create a bucket."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("PUT", f"/{name}")
    assert connection.getresponse().status == 200
    connection.close()


@pytest.fixture(scope="session")
def s3_server() -> Iterator[int]:
    """Port of an S3-compatible server."""
    with s3() as server:
        yield server.port


@pytest.fixture
def s3_bucket(s3_server: int, monkeypatch: pytest.MonkeyPatch) -> str:
    """Name of an empty bucket; this process's environment leads to it."""
    for name, value in s3_environment(s3_server).items():
        monkeypatch.setenv(name, value)
    return new_bucket(s3_server)


@pytest.fixture(scope="session")
def redis_server() -> Iterator[str]:
    """URL of a Redis, without a database number."""
    with redis() as server:
        yield f"redis://127.0.0.1:{server.port}"


@pytest.fixture
def redis_url(redis_server: str) -> str:
    """URL of an empty Redis database."""
    from redis import Redis

    with Redis.from_url(f"{redis_server}/0") as connection:
        connection.flushall()
    return f"{redis_server}/0"


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[int]:
    """Port of a PostgreSQL that trusts the user ``coppice``."""
    with postgres() as server:
        yield server.port


@pytest.fixture
def postgres_url(postgres_server: int) -> str:
    """URL of an empty PostgreSQL database."""
    return new_database(postgres_server)


def free_port() -> int:
    """Find a port that nothing listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def wait_until(condition: Callable[[], bool], what: str, timeout_s: float = _START_S) -> None:
    """Poll until a condition holds; fail with ``what`` when it does not in time."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"waited {timeout_s:g} s in vain: {what}"
        time.sleep(0.05)


@contextmanager
def _folder(name: str) -> Iterator[Path]:
    # Not pytest's own: those may be entered by their owner alone, and PostgreSQL runs as somebody else.
    folder = Path(tempfile.mkdtemp(prefix=f"coppice-{name}-", dir="/tmp"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _account(folder: Path) -> list[str]:
    """Give the words before a command that refuses to run as root.

    A user namespace first: there the account has our own rights, so that nothing depends on how far it may reach otherwise (a
    sandbox whose /dev/null is root's alone, folders of 0700). Where namespaces are forbidden, the account itself.
    """
    if os.geteuid() != 0:
        return []
    import pwd

    known = {entry.pw_name: entry for entry in pwd.getpwall()}
    entry = next((known[name] for name in _ACCOUNTS if name in known), None)
    if entry is None:
        pytest.skip("PostgreSQL refuses to run as root, and there is no account to run it as")
    namespace = ["unshare", "--user", f"--map-user={entry.pw_uid}", f"--map-group={entry.pw_gid}"]
    if _works([*namespace, "true"]):
        return namespace
    account = ["setpriv", f"--reuid={entry.pw_uid}", f"--regid={entry.pw_gid}", "--clear-groups"]
    if _works([*account, "sh", "-c", "true > /dev/null"]):
        os.chown(folder, entry.pw_uid, entry.pw_gid)
        return account
    pytest.skip("PostgreSQL refuses to run as root, and neither unshare nor setpriv works here")


def _works(command: list[str]) -> bool:
    return shutil.which(command[0]) is not None and subprocess.run(command, capture_output=True, check=False).returncode == 0


@contextmanager
def _running(server: Server) -> Iterator[Server]:
    server.start()
    try:
        yield server
    finally:
        server.stop()


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def _redis_answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(16).startswith(b"+PONG")
    except OSError:
        return False


def _s3_answers(port: int) -> bool:
    try:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
        connection.request("GET", "/")
        connection.getresponse().read()
        connection.close()
    except OSError:
        return False
    return True


def _postgres(port: int, name: str) -> str:
    return f"host=127.0.0.1 port={port} user=coppice dbname={name} connect_timeout=2"


def _postgres_answers(port: int) -> bool:
    import psycopg

    try:
        psycopg.connect(_postgres(port, "postgres")).close()
    except psycopg.OperationalError:
        return False
    return True
