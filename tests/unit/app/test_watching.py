"""Waits for jobs to change: one look for all, nothing missed, and an end with the process."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import sqlalchemy as sa

from app.db import Database
from app.ending import Ending
from app.jobs.leases import LeaseRepository
from app.jobs.removal import RemovalRepository
from app.jobs.repository import JobRepository
from app.jobs.watching import JobWatcher
from pruning_core.report.progress import Progress
from pruning_core.spec.prune import PruneSpec

SPEC = PruneSpec.model_validate({"model": "org/name", "task": "glue/sst2", "sparsity": 0.5})


def insert(database: Database, *job_ids: str) -> None:
    with database.write() as connection:
        for job_id in job_ids:
            JobRepository(connection).insert(job_id, owner="", spec=SPEC, metadata={}, priority=0)


@contextmanager
def queries(database: Database) -> Iterator[list[str]]:
    """Note the statements that select from the database."""
    seen: list[str] = []

    def note(_connection, _cursor, statement, *_more):
        if statement.startswith("SELECT"):
            seen.append(statement)

    sa.event.listen(database.engine, "before_cursor_execute", note)
    yield seen
    sa.event.remove(database.engine, "before_cursor_execute", note)


@pytest.fixture
def watcher(database: Database) -> Iterator[JobWatcher]:
    watcher = JobWatcher(database, Ending(1))
    yield watcher
    watcher.close()


def test_a_thousand_waits_for_hundreds_of_jobs_share_each_look(database, watcher):
    ids = [f"job_{index}" for index in range(300)]
    insert(database, *ids)

    async def wait() -> list[bool]:
        waits = [watcher.changed(ids[index % 300], 1, within_s=1.6) for index in range(1000)]
        return await asyncio.gather(*waits)

    with queries(database) as seen:
        woken = asyncio.run(wait())
    assert not any(woken)
    assert 1 <= len(seen) <= 10  # whoever waits, and however many


def test_a_change_wakes_those_who_wait_for_that_job_alone(database, watcher):
    insert(database, "job_a", "job_b")

    async def wait() -> tuple[bool, bool]:
        a = asyncio.create_task(watcher.changed("job_a", 1, within_s=10))
        b = asyncio.create_task(watcher.changed("job_b", 1, within_s=1.5))
        await asyncio.sleep(0.6)
        with database.write() as connection:
            JobRepository(connection).request_cancel("job_a")
        return await a, await b

    began = time.monotonic()
    assert asyncio.run(wait()) == (True, False)
    assert time.monotonic() - began < 8


def test_a_stage_of_a_running_job_wakes_and_is_there_to_read(database, watcher):
    insert(database, "job_a")
    with database.write() as connection:
        claim = LeaseRepository(connection).claim(worker="w", lease_s=60)

    async def follow() -> list[str]:
        before = await watcher.follow("job_a", after=0, limit=10)
        waiting = asyncio.create_task(watcher.changed("job_a", before.version, within_s=10))
        await asyncio.sleep(0.4)
        progress = Progress(stage="score", step=1, total=10)
        with database.write() as connection:  # as a heartbeat does
            leases = LeaseRepository(connection)
            leases.heartbeat("job_a", claim.fence, lease_s=60, progress=progress)
            leases.stage_begun("job_a", claim.fence, progress)
        assert await waiting
        after = await watcher.follow("job_a", after=before.events[-1].id, limit=10)
        assert not after.has_ended
        return [str(event.type) for event in after.events]

    assert asyncio.run(follow()) == ["job.stage"]


def test_a_change_before_the_wait_began_is_not_missed(database, watcher):
    insert(database, "job_a")

    async def wait() -> bool:
        known = await watcher.follow("job_a", after=0, limit=10)
        with database.write() as connection:
            JobRepository(connection).request_cancel("job_a")
        return await watcher.changed("job_a", known.version, within_s=10)

    assert asyncio.run(wait())


def test_a_deleted_job_wakes_and_has_no_version(database, watcher):
    insert(database, "job_a")
    with database.write() as connection:
        JobRepository(connection).request_cancel("job_a")

    async def wait() -> bool:
        waiting = asyncio.create_task(watcher.changed("job_a", 2, within_s=10))
        await asyncio.sleep(0.4)
        with database.write() as connection:
            RemovalRepository(connection).remove(["job_a"])
        woken = await waiting
        return woken and (await watcher.follow("job_a", after=0, limit=10)).version is None

    assert asyncio.run(wait())


@pytest.mark.parametrize("reason", ["the process ends", "the database is away"])
def test_nobody_waits_on_where_nobody_can_look(reason, database):
    insert(database, "job_a")
    ending = Ending(1)
    watcher = JobWatcher(database, ending)
    if reason == "the process ends":
        ending.begin()
    else:
        with database.write() as connection:
            connection.exec_driver_sql("ALTER TABLE jobs RENAME TO jobs_away")

    began = time.monotonic()
    assert asyncio.run(watcher.changed("job_a", 1, within_s=30))
    assert time.monotonic() - began < 10
    watcher.close()
