"""Word of changes: heard without a look at the database, lost with its connection, and heard again."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from app import changes
from app.db import Database
from app.ending import Ending
from app.jobs.leases import LeaseRepository
from app.jobs.models import jobs
from app.jobs.removal import RemovalRepository
from app.jobs.repository import JobRepository
from app.jobs.watching import JobWatcher
from pruning_core.report.progress import Progress
from pruning_core.spec.prune import PruneSpec
from tests import servers
from tests.servers import wait_until

SPEC = PruneSpec.model_validate({"model": "org/name", "task": "glue/sst2", "sparsity": 0.5})
LISTENER = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'LISTEN%'"


@pytest.fixture
def database(database: Database) -> Database:
    with database.write() as connection:
        connection.execute(jobs.delete())
        JobRepository(connection).insert("job_a", owner="", spec=SPEC, metadata={}, priority=0)
    return database


@pytest.fixture
def word(database: Database) -> Iterator[changes.Changes]:
    word = changes.changes_of(database)
    yield word
    word.close()


async def _hearing(word: changes.Changes) -> None:
    await asyncio.to_thread(wait_until, lambda: getattr(word, "hears", True), "a listener that hears", 20)


@pytest.fixture
def never_looks(monkeypatch) -> None:
    """No look without a word, so that only a word wakes."""
    monkeypatch.setattr(changes, "_GUARD_S", 1000.0)
    monkeypatch.setattr(changes._OfFile, "pause_s", 1000.0)


def _claim(connection):
    return LeaseRepository(connection).claim(worker="w", lease_s=60)


def _cancel(connection):
    JobRepository(connection).request_cancel("job_a")


def _progress(connection):
    claim = _claim(connection)
    LeaseRepository(connection).heartbeat("job_a", claim.fence, lease_s=60, progress=Progress(stage="score", step=1, total=9))


def _delete(connection):
    _cancel(connection)
    RemovalRepository(connection).remove(["job_a"])


@pytest.mark.usefixtures("never_looks")
@pytest.mark.parametrize("change", [_claim, _cancel, _progress, _delete], ids=lambda act: act.__name__)
def test_every_change_is_heard(database, word, change):
    watcher = JobWatcher(database, Ending(1), word)

    async def wait() -> bool:
        waiting = asyncio.create_task(watcher.changed("job_a", 1, within_s=20))
        await asyncio.sleep(0.6)  # the first look, which finds nothing
        await _hearing(word)
        other = Database(database.url.render_as_string(hide_password=False))  # as another process does
        with other.write() as connection:
            change(connection)
        other.close()
        return await waiting

    assert asyncio.run(wait())


@pytest.mark.usefixtures("never_looks")
@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
def test_what_is_rolled_back_is_not_heard(database, word):
    watcher = JobWatcher(database, Ending(1), word)

    async def wait() -> bool:
        waiting = asyncio.create_task(watcher.changed("job_a", 1, within_s=3))
        await asyncio.sleep(0.6)
        await _hearing(word)
        with contextlib.suppress(ZeroDivisionError), database.write() as connection:
            _claim(connection)
            raise ZeroDivisionError
        return await waiting

    assert not asyncio.run(wait())


def _listener(database: Database) -> int | None:
    with database.read() as connection:
        return connection.scalar(sa.text(LISTENER))


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
def test_a_killed_connection_is_made_again_and_nothing_is_missed_meanwhile(database, word):
    watcher = JobWatcher(database, Ending(1), word)

    async def wait() -> list[bool]:
        waiting = asyncio.create_task(watcher.changed("job_a", 1, within_s=30))
        await asyncio.sleep(0.6)
        await _hearing(word)
        first = _listener(database)
        with database.write() as connection:
            connection.execute(sa.select(sa.func.pg_terminate_backend(first)))
        await asyncio.to_thread(wait_until, lambda: not word.hears, "the listener to notice")
        assert word.pause_s == changes._POLL_S
        with database.write() as connection:
            _claim(connection)
        woken = [await waiting]
        waiting = asyncio.create_task(watcher.changed("job_a", 2, within_s=30))
        await _hearing(word)
        assert _listener(database) not in {None, first}
        assert word.pause_s == changes._GUARD_S
        with database.write() as connection:
            _cancel(connection)
        return [*woken, await waiting]

    assert asyncio.run(wait()) == [True, True]


@pytest.fixture
def pooled(database: Database, postgres_server: int) -> Iterator[Database]:
    """The same database through a PgBouncer in transaction mode: who notifies has the connection that listened, or another."""
    with servers.pgbouncer(postgres_server, connections=4) as pooler:
        through = Database(database.url.set(port=pooler.port).render_as_string(hide_password=False), pooler=True)
        yield through
        through.close()


@pytest.mark.parametrize(("database", "listens"), [("sqlite", False), ("postgresql", True)], indirect=["database"])
def test_who_may_listen(database, listens):
    url = database.url.render_as_string(hide_password=False)
    assert Database(url).can_listen == listens
    assert Database(url, connections=3).can_listen == listens
    assert not Database(url, connections=2).can_listen
    assert not Database(url, pooler=True).can_listen


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
def test_without_word_changes_are_looked_for(database):
    few = Database(database.url.render_as_string(hide_password=False), connections=2)
    watcher = JobWatcher(few, Ending(1))

    async def wait() -> bool:
        waiting = asyncio.create_task(watcher.changed("job_a", 1, within_s=20))
        await asyncio.sleep(0.5)
        with few.write() as connection:
            _claim(connection)
        return await waiting

    assert asyncio.run(wait())
    few.close()


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
def test_behind_pgbouncer_in_transaction_mode_jobs_are_looked_at_as_before(database, pooled, monkeypatch):
    monkeypatch.setattr(changes, "_PROBE_PATIENCE_S", 1.0)
    word = changes._OfNotifications(pooled)
    watcher = JobWatcher(pooled, Ending(1), word)
    found_deaf = []
    monkeypatch.setattr(changes._log, "warning", lambda event, **_more: found_deaf.append(event), raising=False)

    async def wait() -> float:
        waiting = asyncio.create_task(watcher.changed("job_a", 1, within_s=20))
        await asyncio.to_thread(wait_until, lambda: "changes.deaf" in found_deaf, "the listener to notice that it is deaf")
        with pooled.write() as connection:
            _claim(connection)
        began = time.monotonic()
        assert await waiting
        return time.monotonic() - began

    try:
        assert asyncio.run(wait()) < 5
        assert not word.hears
        assert word.pause_s == changes._POLL_S
    finally:
        word.close()
