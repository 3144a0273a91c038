"""The fold of the event log: against real databases, and against late and repeated pages."""

from __future__ import annotations

from uuid import uuid4

import pytest

from app.db import Database
from app.jobs.leases import LeaseRepository
from app.jobs.records import EventType, JobError
from app.jobs.repository import JobRepository
from app.jobs.statistics import LoggedEvent, StatisticsRepository
from app.jobs.tally import Tally
from pruning_core.spec.prune import PruneSpec

SPEC = PruneSpec.model_validate({"model": "org/name", "task": "glue/sst2", "sparsity": 0.5})


def _event(event_id: int, kind: EventType, at: float, job: str = "a", reason: str = "") -> LoggedEvent:
    return LoggedEvent(event_id, job, kind, reason, at)


def test_waits_and_runs_are_those_of_each_attempt() -> None:
    tally = Tally()
    tally.add(
        [
            _event(1, EventType.QUEUED, 0),
            _event(2, EventType.STARTED, 4),
            _event(3, EventType.REQUEUED, 10, reason="lease_expired"),
            _event(4, EventType.STARTED, 11),
            _event(5, EventType.SUCCEEDED, 31),
        ],
        {"a": {"load": 2.0}},
    )
    assert (tally.attempts, tally.wait_s.sum_s, tally.run_s.sum_s) == (2, 5, 20)
    assert tally.requeues == {"lease_expired": 1}
    assert tally.finished == {"succeeded": 1}
    assert tally.stage_s["load"].sum_s == 2


def test_a_retried_job_ends_twice_and_one_cancelled_in_the_queue_never_ran() -> None:
    tally = Tally()
    kinds = [EventType.QUEUED, EventType.STARTED, EventType.FAILED, EventType.RETRIED, EventType.CANCELLED]
    tally.add([_event(place, kind, place, reason="oom") for place, kind in enumerate(kinds, 1)], {})
    assert tally.finished == {"failed": 1, "cancelled": 1}
    assert tally.failures == {"oom": 1}
    assert sum(tally.run_s.counts) == 1


def test_what_was_committed_late_is_counted_and_nothing_twice() -> None:
    tally = Tally()
    early = [_event(2, EventType.QUEUED, 100, "b"), _event(4, EventType.STARTED, 101, "b")]
    late = [_event(1, EventType.QUEUED, 100, "a"), _event(3, EventType.STARTED, 102, "a")]
    tally.add(early, {})
    tally.settle(103)
    assert tally.settled == 0, "younger than a transaction may live"
    tally.add(sorted([*early, *late], key=lambda event: event.id), {})
    assert tally.attempts == 2
    assert sum(tally.wait_s.counts) == 2
    tally.settle(200)
    assert tally.settled == 4


def test_a_clock_put_back_gives_no_negative_wait() -> None:
    tally = Tally()
    tally.add([_event(1, EventType.QUEUED, 50), _event(2, EventType.STARTED, 20)], {})
    assert tally.wait_s.sum_s == 0


@pytest.mark.parametrize("page", [1, 3, 1000])
def test_pages_of_any_size_give_the_same(database: Database, page: int) -> None:
    for _ in range(7):
        with database.write() as connection:
            JobRepository(connection).insert(f"job_{uuid4().hex}", owner="x", spec=SPEC, metadata={}, priority=0)
    for number in range(4):
        with database.write() as connection:
            leases = LeaseRepository(connection)
            claim = leases.claim(worker="w", lease_s=30)
            assert claim is not None
            if number % 2:
                leases.fail(claim.job_id, claim.fence, error=JobError("lost", "gone"))
            else:
                leases.release(claim.job_id, claim.fence)
    tally, after = Tally(), 0
    while True:
        with database.read() as connection:
            found = StatisticsRepository(connection).log(after=after, limit=page)
        tally.add(found, {})
        if not found:
            break
        after = found[-1].id
    assert (tally.attempts, dict(tally.failures), dict(tally.requeues)) == (4, {"lost": 2}, {"worker_shutdown": 2})
