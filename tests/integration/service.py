"""The service as operators run it: real processes, started and ended by the tests."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import redis
import sqlalchemy as sa

from app.db import Database
from app.queue import QUEUE_NAME
from coppice import Client
from coppice.errors import ServiceUnreachable
from tests.servers import free_port, wait_until

# Faults are to be noticed in a test's patience, yet a busy machine must not look like one.
FAST = {
    "COPPICE_LEASE_S": "8",
    "COPPICE_HEARTBEAT_S": "0.5",
    "COPPICE_REAPER_TICK_S": "0.5",
    "COPPICE_REPUBLISH_AFTER_S": "1",
    "COPPICE_KILL_GRACE_S": "3",
    "COPPICE_CRASH_PAUSE_S": "0.2",
    "COPPICE_THREADS": "1",
    "COPPICE_LOG_JSON": "false",
}
STOP_S = 40


@dataclass(frozen=True)
class Backend:
    """Where a profile keeps its state."""

    name: str
    data_dir: Path
    database_url: str
    broker_url: str

    def environment(self, *roots: Path) -> dict[str, str]:
        """Give the environment of the service's processes."""
        ours = {
            "COPPICE_DATA_DIR": str(self.data_dir),
            "COPPICE_DATABASE_URL": self.database_url,
            "COPPICE_BROKER_URL": self.broker_url,
            "COPPICE_ALLOWED_ROOTS": os.pathsep.join(map(str, roots)),
        }
        return {name: value for name, value in os.environ.items() if not name.startswith("COPPICE_")} | FAST | ours

    def database(self) -> Database:
        """Open the database that the service uses."""
        return Database(self.database_url or f"sqlite+pysqlite:///{self.data_dir / 'coppice.db'}")

    def messages(self) -> int:
        """Count the messages that wait in the broker."""
        if self.broker_url:
            with redis.Redis.from_url(self.broker_url) as connection:
                return int(connection.llen(QUEUE_NAME))
        return len(list((self.data_dir / "broker" / "messages").glob("*.msg")))

    def empty_the_broker(self) -> None:
        """Lose the messages, once there are any."""
        wait_until(lambda: self.messages() > 0, "a message")
        if self.broker_url:
            with redis.Redis.from_url(self.broker_url) as connection:
                connection.flushall()
        else:
            messages = self.data_dir / "broker" / "messages"
            shutil.rmtree(messages)
            messages.mkdir()

    def row(self, job_id: str) -> sa.RowMapping:
        """Read the columns of a job that the API does not show."""
        database = self.database()
        try:
            with database.read() as connection:
                query = sa.text("SELECT status, fence, attempt, crashes, losses FROM jobs WHERE id = :id")
                return connection.execute(query, {"id": job_id}).mappings().one()
        finally:
            database.close()


class Service:
    """API and worker of one backend, each a process of its own, as in production."""

    def __init__(self, backend: Backend, log_folder: Path, *roots: Path, settings: Mapping[str, str] | None = None) -> None:
        self.backend = backend
        self.url = f"http://127.0.0.1:{free_port()}"
        self._environment = backend.environment(*roots) | dict(settings or {})
        self.log_folder = log_folder
        self._prefix: list[str] = []
        self._count = 0
        subprocess.run([sys.executable, "-m", "coppice.cli", "migrate"], env=self._environment, check=True)

    @contextmanager
    def api(self) -> Iterator[Client]:
        """Run the API; the value is a client of it."""
        port = self.url.rpartition(":")[2]
        with (
            self.process("api", "-m", "coppice.cli", "api", "--port", port),
            Client(self.url) as client,
        ):
            with Client(self.url, retry_for_s=0) as impatient:
                wait_until(lambda: answers(impatient), "the API to answer")
            yield client

    @contextmanager
    def worker(self) -> Iterator[psutil.Process]:
        """Run a worker; the value is its main process."""
        with self.process("worker", "-m", "coppice.cli", "worker") as process:
            yield process

    @contextmanager
    def running(self) -> Iterator[Client]:
        """Run both."""
        with ExitStack() as stack:
            client = stack.enter_context(self.api())
            stack.enter_context(self.worker())
            yield client

    @contextmanager
    def process(self, name: str, *arguments: str, changes: Mapping[str, str] | None = None) -> Iterator[psutil.Process]:
        self._count += 1
        log = self.log_folder / f"{name}{self._count}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [*self._prefix, sys.executable, *arguments],
                env=self._environment | dict(changes or {}),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        watched = psutil.Process(process.pid)
        try:
            yield watched
        except Exception as error:
            error.add_note(f"--- {log.name}\n{log.read_text(errors='replace')[-6000:]}")
            raise
        finally:
            family = [watched, *watched.children(recursive=True)] if process.poll() is None else []
            for member in family:
                with suppress(psutil.NoSuchProcess):
                    member.send_signal(signal.SIGCONT)  # a test may have stopped it
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(STOP_S)
            finally:
                # Helpers of Python's own (its resource tracker) notice a moment later that nobody needs them.
                left = [one for one in psutil.wait_procs(family, timeout=3)[1] if one.status() != psutil.STATUS_ZOMBIE]
                for member in left:
                    member.kill()
                process.wait()
        assert not left, f"{name} left processes behind: {left}"


def child_of(worker: psutil.Process, job_id: str) -> psutil.Process:
    """Wait for the process that runs a job, and give it: the outermost, where a sandbox puts others around it."""
    found: list[psutil.Process] = []

    def names_it(process: psutil.Process) -> bool:
        try:
            return any(job_id in word for word in process.cmdline())
        except (psutil.NoSuchProcess, psutil.ZombieProcess):
            return False

    def look() -> bool:
        with suppress(psutil.NoSuchProcess):
            family = [worker, *worker.children(recursive=True)]
            naming = {one.pid for one in family if names_it(one)}
            parents = {one.pid for one in family} - naming
            found.extend(one for one in family if one.pid in naming and one.ppid() in parents)
        return bool(found)

    wait_until(look, f"a process for {job_id}")
    return found[0]


def sha256(path: Path) -> str:
    """Hash a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def answers(client: Client) -> bool:
    """Whether the API answers."""
    try:
        client.list()
    except ServiceUnreachable:
        return False
    return True
