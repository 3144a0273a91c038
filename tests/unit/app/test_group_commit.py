"""Submits that wait together are written together; each has its own answer, and limits hold to the last of them."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError, OperationalError

from app.audit.models import audit_events
from app.db import Database
from app.jobs.arrivals import KeyUse, NewJob
from app.jobs.intake import Arrival, Intake, Queued
from app.jobs.models import idempotency_keys, job_events, jobs
from app.jobs.needs import MOST_QUEUES, Needs
from app.jobs.places import PlaceRepository
from app.jobs.repository import JobRepository
from app.refusals import Conflict, QuotaExceeded
from app.settings import Settings
from app.tenants.models import tenant_deletions
from app.tenants.repository import TenantRepository
from pruning_core.spec.prune import PruneSpec

SPEC = PruneSpec.model_validate({"model": "org/näme", "task": "glue/sst2", "sparsity": 0.5})
TABLES = (jobs, job_events, audit_events, idempotency_keys, tenant_deletions)


class Woken:
    """Notes whom a submit wakes."""

    def __init__(self) -> None:
        self.ids: list[str] = []

    def announce(self, job_id: str, pool: str | None = None) -> None:
        self.ids.append(job_id)


@pytest.fixture
def database(database: Database) -> Database:
    with database.write() as connection:
        for table in TABLES:
            connection.execute(table.delete())
    return database


@pytest.fixture
def commits(database: Database) -> Iterator[Counter[str]]:
    """Counts the transactions that have inserted jobs."""
    found: Counter[str] = Counter()
    inserting = []

    def note(connection, _cursor, statement, *_more):
        if statement.startswith("INSERT INTO jobs "):
            inserting.append(connection)

    def count(connection):
        found["commits"] += connection in inserting

    sa.event.listen(database.engine, "before_cursor_execute", note)
    sa.event.listen(database.engine, "commit", count)
    yield found
    sa.event.remove(database.engine, "before_cursor_execute", note)
    sa.event.remove(database.engine, "commit", count)


def arrival(number: int, owner: str = "me", *, key: str | None = None, **changes: object) -> Arrival:
    new = NewJob(f"job_{number:04d}", owner, SPEC, {"run": str(number)}, 0, **changes)
    return Arrival(new, "key_a", None if key is None else KeyUse("key_a", key, "0" * 64, new.id))


def queue_all(database: Database, arrivals: list[Arrival], **settings: object) -> tuple[list[object], Woken]:
    """Submit at the same moment; gives each one's outcome."""
    woken = Woken()

    async def submit() -> list[object]:
        intake = Intake(Settings(**settings), database, woken)
        return await asyncio.gather(*(intake.queue(own) for own in arrivals), return_exceptions=True)

    return asyncio.run(submit()), woken


def ids(database: Database) -> list[str]:
    with database.read() as connection:
        return sorted(connection.scalars(sa.select(jobs.c.id)))


def test_those_that_wait_together_share_transactions_and_each_is_whole(database, commits):
    arrivals = [arrival(number) for number in range(100)]
    found, woken = queue_all(database, arrivals)
    assert commits["commits"] <= 3
    assert sorted(woken.ids) == ids(database) == [own.new.id for own in arrivals]
    with database.read() as connection:
        for own, queued in zip(arrivals, found, strict=True):
            assert isinstance(queued, Queued)
            assert JobRepository(connection).get(own.new.id, owner="me") == queued.job
            assert [str(event.type) for event in JobRepository(connection).events(own.new.id, after=0, limit=9)] == [
                "job.queued"
            ]
        audited = connection.scalars(sa.select(audit_events.c.subject))
        assert sorted(audited) == woken.ids
        # In the order in which they came, and with the places that a look at each gives.
        in_order = list(connection.scalars(sa.select(jobs.c.id).order_by(jobs.c.created_at)))
        assert in_order == [own.new.id for own in arrivals]
        places = [PlaceRepository(connection).place(queued.job, seen_within_s=30) for queued in found]
        assert [place.before for place in places] == list(range(100))
        assert [queued.place.before for queued in found] == list(range(100))


def test_the_quota_holds_to_the_last_of_them(database):
    found, _woken = queue_all(database, [arrival(number) for number in range(40)], max_queued_jobs=25)
    assert [isinstance(one, Queued) for one in found] == [True] * 25 + [False] * 15
    assert all(isinstance(one, QuotaExceeded) for one in found[25:])
    assert len(ids(database)) == 25


def test_one_tenants_full_queue_leaves_others_alone(database):
    mixed = [arrival(number, "me" if number % 2 else "other") for number in range(20)]
    queue_all(database, [arrival(100 + number) for number in range(5)])
    found, _woken = queue_all(database, mixed, max_queued_jobs=8)
    accepted = Counter(own.new.owner for own, one in zip(mixed, found, strict=True) if isinstance(one, Queued))
    assert accepted == {"me": 3, "other": 8}


def test_the_limit_of_queues_counts_those_of_the_same_moment(database):
    asking = [arrival(number, needs=Needs(tags=(f"t{number}",))) for number in range(MOST_QUEUES + 5)]
    found, _woken = queue_all(database, asking)
    assert sum(isinstance(one, Queued) for one in found) == MOST_QUEUES
    assert {type(one) for one in found} == {Queued, QuotaExceeded}


def test_a_name_that_is_taken_fails_alone(database):
    queue_all(database, [arrival(900, key="old"), arrival(901, client_id="mine")])
    asked = [arrival(number) for number in range(10)]
    asked += [arrival(10, key="old"), arrival(11, client_id="mine"), arrival(12, key="new"), arrival(13, key="new")]
    found, _woken = queue_all(database, asked)
    assert [isinstance(one, Queued) for one in found] == [True] * 10 + [False, False, True, False]
    assert all(isinstance(found[place], IntegrityError) for place in (10, 11, 13))
    assert len(ids(database)) == 13
    with database.read() as connection:
        assert connection.scalar(sa.select(idempotency_keys.c.job_id).where(idempotency_keys.c.key == "new")) == "job_0012"


def test_what_the_database_cannot_hold_fails_alone(database):
    bad = arrival(5)
    bad.new.metadata["run"] = "\ud800"  # half a letter, which no request can hold
    found, _woken = queue_all(database, [*(arrival(number) for number in range(5)), bad, arrival(6)])
    assert [isinstance(one, Queued) for one in found] == [True] * 5 + [False, True]
    assert len(ids(database)) == 6


def test_a_tenant_that_is_being_deleted_is_refused_alone(database):
    with database.write() as connection:
        TenantRepository(connection).begin("going", with_audit=False)
    found, _woken = queue_all(database, [arrival(number, "going" if number % 2 else "me") for number in range(6)])
    assert [type(one) for one in found] == [Queued, Conflict] * 3


def test_an_outage_is_everybodys_and_nobody_waits_on(database):
    def fail(_connection):
        raise OperationalError("COMMIT", None, Exception("gone"))

    sa.event.listen(database.engine, "commit", fail)
    found, woken = queue_all(database, [arrival(number) for number in range(6)])
    sa.event.remove(database.engine, "commit", fail)
    assert {type(one) for one in found} == {OperationalError}
    assert woken.ids == ids(database) == []
    assert isinstance(queue_all(database, [arrival(7)])[0][0], Queued)


def test_who_has_gone_keeps_nobody_waiting(database):
    async def submit() -> list[object]:
        intake = Intake(Settings(), database, Woken())
        tasks = [asyncio.create_task(intake.queue(arrival(number))) for number in range(6)]
        await asyncio.sleep(0)
        tasks[2].cancel()
        return await asyncio.gather(*tasks, return_exceptions=True)

    found = asyncio.run(submit())
    assert [type(one) for one in found] == [Queued, Queued, asyncio.CancelledError, Queued, Queued, Queued]


def test_places_that_cannot_be_read_take_back_no_job(database, monkeypatch):
    def fail(*_given, **_options):
        raise OperationalError("SELECT", None, Exception("gone"))

    monkeypatch.setattr(PlaceRepository, "places", fail)
    found, _woken = queue_all(database, [arrival(number) for number in range(3)])
    assert [one.place for one in found] == [None] * 3
    assert len(ids(database)) == 3


def test_jobs_from_several_processes_keep_the_quota_on_postgresql(database):
    """Two intakes, as two API processes have them."""

    async def submit() -> list[object]:
        intakes = [Intake(Settings(max_queued_jobs=30), database, Woken()) for _ in range(2)]
        asked = [intakes[number % 2].queue(arrival(number)) for number in range(60)]
        return await asyncio.gather(*asked, return_exceptions=True)

    found = asyncio.run(submit())
    assert sum(isinstance(one, Queued) for one in found) == len(ids(database)) == 30
