"""PostgreSQL's connections: a process takes its part and waits beyond it, and PgBouncer in transaction mode will do."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa

from app.db import Database
from app.settings import Settings
from coppice import Client
from tests.integration.service import Backend, Service
from tests.servers import new_database, pgbouncer, postgres, wait_until
from tests.tiny import tiny_spec

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

_POOL = 4


@contextmanager
def _most_sessions(url: str) -> Iterator[list[int]]:
    """Count the sessions of a database while something goes on, without those that count."""
    engine, found, over = sa.create_engine(url, poolclass=sa.NullPool), [0], threading.Event()
    name = engine.url.database

    def count() -> None:
        others = "datname = :name AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
        query = sa.text(f"SELECT count(*) FROM pg_stat_activity WHERE {others}")
        with engine.connect() as connection:
            while not over.wait(0.02):
                found.append(connection.scalar(query, {"name": name}) or 0)
                connection.rollback()

    watcher = threading.Thread(target=count)
    watcher.start()
    try:
        yield found
    finally:
        over.set()
        watcher.join()


def _hammer(service: Service, body: dict[str, object]) -> None:
    def submit(_number: int) -> None:
        with Client(service.url) as client:
            client.submit(body)
            client.list()

    with ThreadPoolExecutor(24) as threads:
        list(threads.map(submit, range(72)))


@pytest.mark.long
def test_a_process_takes_its_part_of_the_connections(
    postgres_url: str, tmp_path: Path, tiny_bert: Path, tiny_sst2: Path
) -> None:
    settings = {"COPPICE_DATABASE_CONNECTIONS": "9", "COPPICE_DATABASE_PROCESSES": "3"}
    service = Service(Backend("pg", tmp_path / "data", postgres_url, ""), tmp_path, tiny_bert, tiny_sst2, settings=settings)
    with service.api(), _most_sessions(postgres_url) as sessions:
        _hammer(service, tiny_spec(tiny_bert, tiny_sst2).model_dump(mode="json"))
    assert 1 < max(sessions) <= 3


@pytest.mark.long
def test_jobs_run_through_a_pooler_in_transaction_mode(tmp_path: Path, tiny_bert: Path, tiny_sst2: Path) -> None:
    with postgres() as server, pgbouncer(server.port, connections=_POOL) as pooler:
        direct = new_database(server.port)
        through = direct.replace(f":{server.port}/", f":{pooler.port}/")
        settings = {"COPPICE_DATABASE_POOLER": "true", "COPPICE_DATABASE_CONNECTIONS": "60", "COPPICE_DATABASE_PROCESSES": "3"}
        backend = Backend("pooled", tmp_path / "data", through, "")
        service = Service(backend, tmp_path, tiny_bert, tiny_sst2, settings=settings)  # it migrates, through the pooler
        body = tiny_spec(tiny_bert, tiny_sst2).model_dump(mode="json")
        with _most_sessions(direct) as sessions, service.api() as client:
            _hammer(service, body)
            client.cancel_all(all=True)
            job = client.submit(body)
            with service.worker():
                done = client.wait(job.id)
            assert done.status == "succeeded"
            events = [event.type for event in client.events(job.id)]
            assert events[0] == "job.queued"
            assert client.delete(job.id) is None
        assert 1 < max(sessions) <= _POOL


def test_without_the_setting_a_pooler_says_what_it_lacks(tmp_path: Path) -> None:
    """The options of a session are refused by PgBouncer: nothing runs half."""
    with postgres() as server, pgbouncer(server.port, connections=_POOL) as pooler:
        url = new_database(server.port).replace(f":{server.port}/", f":{pooler.port}/")
        database = Database(url)
        with pytest.raises(sa.exc.OperationalError, match="unsupported startup parameter"):
            database.check()
        database.close()
        pooled = Database(url, pooler=True)
        pooled.check()
        pooled.close()


@pytest.mark.long
def test_an_api_that_may_want_more_than_there_are_says_so_in_its_log(
    postgres_url: str, tmp_path: Path, tiny_bert: Path, tiny_sst2: Path
) -> None:
    settings = {"COPPICE_DATABASE_CONNECTIONS": "5000", "COPPICE_DATABASE_PROCESSES": "100"}
    service = Service(Backend("pg", tmp_path / "data", postgres_url, ""), tmp_path, tiny_bert, tiny_sst2, settings=settings)
    with service.api():
        (log,) = tmp_path.glob("api*.log")
        wait_until(lambda: "start.connections" in log.read_text(), "the line")
        assert "the service may want 5000 connections" in log.read_text()


def test_more_connections_than_there_are_are_told(postgres_url: str) -> None:
    database = Database(postgres_url)
    assert database.room_for(10) is None
    told = database.room_for(100_000)
    assert told is not None
    assert "the service may want 100000 connections, and PostgreSQL gives" in told
    database.close()
    with pytest.raises(ValueError, match=r"leaves each of COPPICE_DATABASE_PROCESSES=40 less than 2 connections; allow 80"):
        Settings(database_url=postgres_url, database_connections=50, database_processes=40)
    own = Database.of(Settings(database_url=postgres_url, database_connections=50, database_processes=5))
    assert own.engine.pool.size() == 9, "one listens for changes"
    own.close()
