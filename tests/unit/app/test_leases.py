"""The job protocol on real databases: compare-and-set claims, fences, and what happens when they are stale."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import pytest
import sqlalchemy as sa

from app.db import now
from app.jobs.leases import LeaseRepository
from app.jobs.models import artifacts, job_events, jobs
from app.jobs.records import JobError
from app.jobs.repository import JobRepository
from app.jobs.upkeep import UpkeepRepository
from app.storage import StoredArtifact
from pruning_core.report.progress import Progress
from pruning_core.report.report import Report
from pruning_core.spec.prune import PruneSpec
from tests.unit.app.sample import REPORT

SPEC = PruneSpec.model_validate({"model": "org/name", "task": "glue/sst2", "sparsity": 0.5})
ERROR = JobError("crashed", "it crashed")


@pytest.fixture
def lease(database):
    """Run one call of the lease repository in a transaction of its own."""

    def call(name, *args, **kwargs):
        with database.write() as connection:
            kind = LeaseRepository if hasattr(LeaseRepository, name) else UpkeepRepository
            return getattr(kind(connection), name)(*args, **kwargs)

    with database.write() as connection:  # the PostgreSQL server is shared between tests
        connection.execute(jobs.delete())
    return call


def _insert(database, priority=0):
    time.sleep(0.003)  # SQLite's clock counts milliseconds; jobs of one millisecond have no order among them
    job_id = f"job_{uuid4().hex}"
    with database.write() as connection:
        JobRepository(connection).insert(job_id, owner="", spec=SPEC, metadata={}, priority=priority)
    return job_id


def _row(database, job_id):
    with database.read() as connection:
        return connection.execute(sa.select(jobs).where(jobs.c.id == job_id)).one()


def _events(database, job_id):
    with database.read() as connection:
        return [event.type for event in JobRepository(connection).events(job_id, after=0, limit=100)]


def _claim(lease, lease_s=30.0):
    return lease("claim", worker="w", lease_s=lease_s)


def _reap(lease):
    return [taken.job_id for taken in lease("reap", max_attempts=3) if taken.status == "queued"]


def _expire(database, job_id):
    with database.write() as connection:
        connection.execute(jobs.update().where(jobs.c.id == job_id).values(lease_until=now() - 1))


def test_claim_takes_priority_then_age(database, lease):
    low, old, new = _insert(database), _insert(database, 5), _insert(database, 5)
    assert [_claim(lease).job_id for _ in range(3)] == [old, new, low]
    assert _claim(lease) is None


def test_a_spec_of_another_version_fails_alone_and_blocks_nobody(database, lease):
    strange, good = _insert(database, 5), _insert(database)
    with database.write() as connection:
        connection.execute(jobs.update().where(jobs.c.id == strange).values(spec={"version": 99}))
    assert _claim(lease).job_id == good
    row = _row(database, strange)
    assert (row.status, row.error["code"]) == ("failed", "spec_unreadable")


def test_many_claimers_never_share_a_job(database, lease):
    expected = {_insert(database) for _ in range(20)}
    with ThreadPoolExecutor(8) as pool:
        claims = list(pool.map(lambda _i: _claim(lease), range(30)))
    claimed = [claim.job_id for claim in claims if claim is not None]
    # With SKIP LOCKED a claimer may find nothing while others hold what is left; the rest is there for the next ones.
    while (claim := _claim(lease)) is not None:
        claimed.append(claim.job_id)
    assert sorted(claimed) == sorted(expected)


def test_read_then_write_loses_no_update(database, lease):
    job_id = _insert(database)

    def increment():
        for _ in range(100):
            with database.write() as connection:
                value = connection.scalar(sa.select(jobs.c.priority).where(jobs.c.id == job_id).with_for_update())
                connection.execute(jobs.update().where(jobs.c.id == job_id).values(priority=value + 1))

    threads = [threading.Thread(target=increment) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert _row(database, job_id).priority == 800


def test_a_stale_fence_affects_nothing(database, lease):
    job_id = _insert(database)
    stale = _claim(lease)
    _expire(database, job_id)
    assert _reap(lease) == [job_id]
    fresh = _claim(lease)
    assert fresh.fence == stale.fence + 1
    report = Report.model_validate(REPORT)
    assert lease("heartbeat", job_id, stale.fence, lease_s=30, progress=None) is None
    assert not lease("succeed", job_id, stale.fence, report=report, artifacts=[StoredArtifact("a", 1, "0" * 64)])
    assert not lease("fail", job_id, stale.fence, error=ERROR)
    assert not lease("confirm_cancelled", job_id, stale.fence)
    assert not lease("release", job_id, stale.fence)
    assert not lease("crashed", job_id, stale.fence, error=ERROR, max_attempts=3)
    assert _row(database, job_id).status == "running"
    with database.read() as connection:
        assert connection.scalar(sa.select(sa.func.count()).select_from(artifacts).where(artifacts.c.job_id == job_id)) == 0
    assert lease("heartbeat", job_id, fresh.fence, lease_s=30, progress=None).cancel_requested is False


def test_success_is_committed_once_with_its_files(database, lease):
    job_id = _insert(database)
    claim = _claim(lease)
    report, files = Report.model_validate(REPORT), [StoredArtifact("model.safetensors", 10, "a" * 64)]
    assert lease("succeed", job_id, claim.fence, report=report, artifacts=files)
    assert not lease("succeed", job_id, claim.fence, report=report, artifacts=files)
    with database.read() as connection:
        repository = JobRepository(connection)
        job = repository.get(job_id, owner="")
        assert [a.key for a in repository.artifacts(job_id)] == [f"jobs/{job_id}/1/model.safetensors"]
    assert job.report == report
    assert _events(database, job_id) == ["job.queued", "job.started", "job.succeeded"]


def test_a_failed_job_may_publish_its_best_candidate_once(database, lease):
    job_id = _insert(database)
    claim = _claim(lease)
    report, files = Report.model_validate(REPORT), [StoredArtifact("model.safetensors", 10, "a" * 64)]
    assert lease("fail", job_id, claim.fence, error=ERROR, report=report, artifacts=files)
    assert not lease("fail", job_id, claim.fence, error=ERROR, report=report, artifacts=files)
    with database.read() as connection:
        job = JobRepository(connection).get(job_id, owner="")
    assert (job.status, job.error, job.report) == ("failed", ERROR, report)
    assert lease("live_fences", [job_id]) == {job_id: {claim.fence}}


def test_failure_inside_the_commit_leaves_nothing(database, lease):
    job_id = _insert(database)
    claim = _claim(lease)
    twice = [StoredArtifact("a", 1, "0" * 64)] * 2  # violates the primary key after the state was changed
    with pytest.raises(sa.exc.IntegrityError):
        lease("succeed", job_id, claim.fence, report=Report.model_validate(REPORT), artifacts=twice)
    assert _row(database, job_id).status == "running"
    assert "job.succeeded" not in _events(database, job_id)


def test_heartbeat_renews_and_writes_progress(database, lease):
    job_id = _insert(database)
    claim = _claim(lease, lease_s=5)
    before = _row(database, job_id)
    time.sleep(0.05)
    progress = Progress(stage="score", step=1, total=4)
    assert lease("heartbeat", job_id, claim.fence, lease_s=5, progress=progress) is not None
    after = _row(database, job_id)
    assert after.lease_until > before.lease_until
    assert after.version == before.version + 1
    assert after.progress["stage"] == "score"


def test_cancel_of_a_queued_job_is_final_at_once(database, lease):
    job_id = _insert(database)
    with database.write() as connection:
        assert JobRepository(connection).request_cancel(job_id)
    assert _claim(lease) is None
    assert _row(database, job_id).status == "cancelled"
    assert _events(database, job_id) == ["job.queued", "job.cancelled"]


def test_cancel_of_a_running_job_waits_for_the_worker(database, lease):
    job_id = _insert(database)
    claim = _claim(lease)
    for _ in range(2):
        with database.write() as connection:
            assert JobRepository(connection).request_cancel(job_id)
    assert _row(database, job_id).status == "cancelling"
    assert lease("heartbeat", job_id, claim.fence, lease_s=30, progress=None).cancel_requested
    assert lease("confirm_cancelled", job_id, claim.fence)
    with database.write() as connection:
        assert not JobRepository(connection).request_cancel(job_id)
    assert _events(database, job_id).count("job.cancelling") == 1


def test_cancel_against_claim_has_one_winner(database, lease):
    for _ in range(10):
        job_id = _insert(database)

        def ask(job_id=job_id):
            with database.write() as connection:
                return JobRepository(connection).request_cancel(job_id)

        with ThreadPoolExecutor(2) as pool:
            claimed, cancelled = pool.submit(_claim, lease), pool.submit(ask)
            claim = claimed.result()
            assert cancelled.result()
        status = _row(database, job_id).status
        assert status == ("cancelled" if claim is None else "cancelling")
        if claim is not None:
            lease("confirm_cancelled", job_id, claim.fence)


def test_cancel_against_release_is_never_missed(database, lease):
    for _ in range(10):
        job_id = _insert(database)
        claim = _claim(lease)

        def ask(job_id=job_id):
            with database.write() as connection:
                return JobRepository(connection).request_cancel(job_id)

        with ThreadPoolExecutor(2) as pool:
            released, cancelled = pool.submit(lease, "release", job_id, claim.fence), pool.submit(ask)
            assert released.result()
            assert cancelled.result()
        assert _row(database, job_id).status == "cancelled"


def test_the_reaper_counts_losses_and_gives_up_at_the_cap(database, lease):
    job_id = _insert(database)
    for _ in range(2):
        _claim(lease)
        _expire(database, job_id)
        assert _reap(lease) == [job_id]
    _claim(lease)
    _expire(database, job_id)
    assert _reap(lease) == []
    row = _row(database, job_id)
    assert (row.status, row.error["code"], row.attempt) == ("failed", "lost", 3)


def test_two_reapers_rescue_once(database, lease):
    job_id = _insert(database)
    _claim(lease)
    _expire(database, job_id)
    with ThreadPoolExecutor(2) as pool:
        rescued = [ids for ids in pool.map(lambda _i: _reap(lease), range(2)) if ids]
    assert rescued == [[job_id]]
    assert _events(database, job_id).count("job.requeued") == 1


def test_a_living_lease_is_left_alone(database, lease):
    _insert(database)
    _claim(lease)
    assert _reap(lease) == []


FILES = [StoredArtifact("model.safetensors", 10, "a" * 64)]
# Every way in which an attempt ends without success, and the counters that stand before it.
ENDS = {
    "confirmed": ({}, "confirm_cancelled", {}),
    "crashed": ({"crashes": 0}, "crashed", {"error": ERROR, "max_attempts": 3}),
    "crashed for the last time": ({"crashes": 2}, "crashed", {"error": ERROR, "max_attempts": 3}),
    "failed": ({}, "fail", {"error": ERROR}),
    "failed with a candidate": ({}, "fail", {"error": ERROR, "report": Report.model_validate(REPORT), "artifacts": FILES}),
    "released": ({}, "release", {}),
    "lost": ({"losses": 0}, "lost", {"error": ERROR, "max_attempts": 3}),
    "lost for the last time": ({"losses": 2}, "lost", {"error": ERROR, "max_attempts": 3}),
}


@pytest.mark.parametrize("end", ENDS)
def test_a_job_that_is_being_cancelled_ends_so_whatever_else_ends_it(database, lease, end):
    before, name, arguments = ENDS[end]
    job_id = _insert(database)
    claim = _claim(lease)
    _ask_to_cancel(database, job_id)
    _change(database, job_id, **before)
    assert lease(name, job_id, claim.fence, **arguments) == "cancelled"
    row = _row(database, job_id)
    assert (row.status, row.error, row.report, row.lease_until, row.expires_at) == ("cancelled", None, None, None, None)
    assert row.finished_at is not None
    assert _events(database, job_id) == ["job.queued", "job.started", "job.cancelling", "job.cancelled"]
    assert lease("live_fences", [job_id]) == {job_id: set()}, "nothing is published"
    assert not lease(name, job_id, claim.fence, **arguments), "it has ended"
    assert _claim(lease) is None


@pytest.mark.parametrize("losses", [0, 2])
def test_the_reaper_cancels_a_lost_job_that_was_being_cancelled(database, lease, losses):
    job_id = _insert(database)
    _claim(lease)
    _ask_to_cancel(database, job_id)
    _change(database, job_id, losses=losses)
    _expire(database, job_id)
    assert [(taken.job_id, taken.status) for taken in lease("reap", max_attempts=3)] == [(job_id, "cancelled")]
    assert _events(database, job_id)[-1] == "job.cancelled"


@pytest.mark.parametrize("crashes", [0, 2])
def test_a_job_that_was_tried_again_is_cancelled_like_any_other(database, lease, crashes):
    job_id = _insert(database)
    assert lease("fail", job_id, _claim(lease).fence, error=ERROR) == "failed"
    with database.write() as connection:
        assert JobRepository(connection).retry(job_id)
    claim = _claim(lease)
    _change(database, job_id, crashes=crashes)
    _ask_to_cancel(database, job_id)
    assert lease("crashed", job_id, claim.fence, error=ERROR, max_attempts=3) == "cancelled"
    with database.write() as connection:
        assert not JobRepository(connection).retry(job_id), "what was cancelled stays so"


def test_a_success_stands_though_somebody_has_asked_to_cancel(database, lease):
    job_id = _insert(database)
    claim = _claim(lease)
    _ask_to_cancel(database, job_id)
    assert lease("succeed", job_id, claim.fence, report=Report.model_validate(REPORT), artifacts=FILES) == "succeeded"
    assert _events(database, job_id)[-1] == "job.succeeded"
    assert lease("confirm_cancelled", job_id, claim.fence) is None


def test_nobody_s_request_to_cancel_is_confirmed(database, lease):
    job_id = _insert(database)
    assert lease("confirm_cancelled", job_id, _claim(lease).fence) is None
    assert _row(database, job_id).status == "running"


def _ask_to_cancel(database, job_id):
    with database.write() as connection:
        assert JobRepository(connection).request_cancel(job_id)


def _change(database, job_id, **values):
    with database.write() as connection:
        connection.execute(jobs.update().where(jobs.c.id == job_id).values(version=jobs.c.version, **values))


def test_release_charges_no_attempt(database, lease):
    job_id = _insert(database)
    claim = _claim(lease)
    assert lease("release", job_id, claim.fence)
    row = _row(database, job_id)
    assert (row.status, row.attempt, row.fence) == ("queued", 0, 1)
    assert _claim(lease).fence == 2


def test_crashes_have_a_cap_of_their_own(database, lease):
    job_id = _insert(database)
    claim = _claim(lease)
    assert lease("crashed", job_id, claim.fence, error=ERROR, max_attempts=2)
    assert _row(database, job_id).status == "queued"
    claim = _claim(lease)
    assert lease("crashed", job_id, claim.fence, error=ERROR, max_attempts=2)
    row = _row(database, job_id)
    assert (row.status, row.error["code"], row.losses) == ("failed", "crashed", 0)


def test_lost_wake_ups_are_published_again_with_growing_pauses(database, lease):
    job_id = _insert(database)
    assert lease("due_for_publish", older_than_s=30, limit=10) == []

    def age(seconds):
        with database.write() as connection:
            connection.execute(jobs.update().where(jobs.c.id == job_id).values(published_at=now() - seconds))

    age(31)
    assert lease("due_for_publish", older_than_s=30, limit=10) == [job_id]
    age(31)
    assert lease("due_for_publish", older_than_s=30, limit=10) == [], "the second pause is twice the first"
    age(61)
    assert lease("due_for_publish", older_than_s=30, limit=10) == [job_id]


def test_a_backlog_is_published_in_bounded_portions(database, lease):
    for _ in range(5):
        _insert(database)
    assert len(lease("due_for_publish", older_than_s=-1, limit=3)) == 3


def test_fences_that_must_keep_their_files(database, lease):
    running, done = _insert(database, 9), _insert(database, 8)
    first, second = _claim(lease), _claim(lease)
    assert (first.job_id, second.job_id) == (running, done)
    report, files = Report.model_validate(REPORT), [StoredArtifact("a", 1, "0" * 64)]
    lease("succeed", done, second.fence, report=report, artifacts=files)
    queued = _insert(database)
    live = lease("live_fences", [running, done, queued, "unknown"])
    assert live == {running: {1}, done: {1}, queued: set(), "unknown": set()}


def test_events_end_with_the_job_row(database, lease):
    job_id = _insert(database)
    with database.write() as connection:
        connection.execute(jobs.delete().where(jobs.c.id == job_id))
        assert connection.scalar(sa.select(sa.func.count()).select_from(job_events).where(job_events.c.job_id == job_id)) == 0
