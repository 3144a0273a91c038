"""What the reaper asks of real databases: clocks put back, expiry, old keys, quotas of running jobs."""

import time
from uuid import uuid4

import pytest
import sqlalchemy as sa

from app.db import now
from app.jobs.arrivals import ArrivalRepository, KeyUse
from app.jobs.leases import LeaseRepository
from app.jobs.models import idempotency_keys, jobs
from app.jobs.records import JobError
from app.jobs.repository import JobRepository
from app.jobs.upkeep import UpkeepRepository
from app.storage import StoredArtifact
from pruning_core.report.report import Report
from pruning_core.spec.prune import PruneSpec
from tests.unit.app.sample import REPORT

SPEC = PruneSpec.model_validate({"model": "org/name", "task": "glue/sst2", "sparsity": 0.5})
FILES = [StoredArtifact("model.safetensors", 1, "0" * 64)]


@pytest.fixture
def insert(database):
    with database.write() as connection:
        connection.execute(jobs.delete())

    def one(owner="", priority=0):
        time.sleep(0.003)  # SQLite's clock counts milliseconds
        job_id = f"job_{uuid4().hex}"
        with database.write() as connection:
            JobRepository(connection).insert(job_id, owner=owner, spec=SPEC, metadata={}, priority=priority)
        return job_id

    return one


def _claim(database, **options):
    with database.write() as connection:
        return LeaseRepository(connection).claim(worker="w", lease_s=30, **options)


def _upkeep(database, name, *args, **kwargs):
    with database.write() as connection:
        return getattr(UpkeepRepository(connection), name)(*args, **kwargs)


def _change(database, job_id, **values):
    with database.write() as connection:
        connection.execute(jobs.update().where(jobs.c.id == job_id).values(**values))


def _row(database, job_id):
    with database.read() as connection:
        return connection.execute(sa.select(jobs).where(jobs.c.id == job_id)).one()


def test_an_owner_s_running_jobs_are_capped_and_others_go_on(database, insert):
    first, second, other = insert("a"), insert("a"), insert("b")
    assert _claim(database, max_running=1).job_id == first
    assert _claim(database, max_running=1).job_id == other
    assert _claim(database, max_running=1) is None
    assert _claim(database, max_running=2).job_id == second


def test_a_crashed_job_pauses_ever_longer(database, insert):
    job_id = insert()
    for crashes, pause_s in enumerate((40, 80)):
        _change(database, job_id, not_before=now())
        claim = _claim(database)
        with database.write() as connection:
            error = JobError("oom", "too big")
            assert LeaseRepository(connection).crashed(job_id, claim.fence, error=error, max_attempts=3, pause_s=40)
        row = _row(database, job_id)
        assert row.crashes == crashes + 1
        assert row.not_before - _upkeep(database, "clock") == pytest.approx(pause_s, abs=5)
        assert _claim(database) is None


def test_moments_too_far_ahead_are_brought_back(database, insert):
    waiting, running, quiet = insert(priority=1), insert(priority=9), insert()
    assert _claim(database).job_id == running
    hour = now() + 3600
    _change(database, waiting, not_before=hour, published_at=hour)
    _change(database, running, lease_until=hour)
    assert _upkeep(database, "set_right", lease_s=30, longest_pause_s=10) == 3
    assert _upkeep(database, "set_right", lease_s=30, longest_pause_s=10) == 0
    assert _row(database, running).lease_until - _upkeep(database, "clock") == pytest.approx(30, abs=5)
    assert [_claim(database).job_id for _ in range(2)] == [waiting, quiet]


def test_artifacts_expire_and_the_job_stays(database, insert):
    kept, expired = insert(), insert()
    for job_id, keep_s in ((kept, None), (expired, 0.01)):
        claim = _claim(database)
        assert claim.job_id == job_id
        with database.write() as connection:
            leases, report = LeaseRepository(connection), Report.model_validate(REPORT)
            assert leases.succeed(job_id, claim.fence, report=report, artifacts=FILES, keep_s=keep_s)
    time.sleep(0.05)
    assert _upkeep(database, "expire") == [expired]
    assert _upkeep(database, "expire") == []
    with database.read() as connection:
        found = JobRepository(connection).artifacts_of([kept, expired])
        assert (len(found[kept]), found[expired]) == (1, [])
        assert JobRepository(connection).get(expired, owner="").report is not None
    assert _upkeep(database, "live_fences", [kept, expired]) == {kept: {1}, expired: set()}


def test_old_keys_are_forgotten(database, insert):
    job_id = insert()
    with database.write() as connection:
        connection.execute(idempotency_keys.delete())
        for key in ("old", "new"):
            ArrivalRepository(connection).remember([KeyUse("", key, "0" * 64, job_id)])
        connection.execute(idempotency_keys.update().where(idempotency_keys.c.key == "old").values(created_at=now() - 100))
    assert _upkeep(database, "forget_keys", older_than_s=50) == 1
    with database.read() as connection:
        assert JobRepository(connection).find_key("", "old") is None
        assert JobRepository(connection).find_key("", "new") is not None


def test_a_failed_publication_is_not_counted(database, insert):
    job_id = insert()
    _change(database, job_id, published_at=now() - 100)
    assert _upkeep(database, "due_for_publish", older_than_s=10, limit=5) == [job_id]
    _upkeep(database, "not_published", [job_id])
    row = _row(database, job_id)
    assert (row.published_at, row.publish_count) == (None, 0)
    assert _upkeep(database, "due_for_publish", older_than_s=10, limit=5) == [job_id]


def test_an_empty_broker_ends_the_patience(database, insert):
    job_id = insert()
    _change(database, job_id, published_at=now() - 100, publish_count=6)
    assert _upkeep(database, "due_for_publish", older_than_s=10, limit=5) == []
    assert _upkeep(database, "due_for_publish", older_than_s=10, limit=5, patient=False) == [job_id]


def test_a_worker_signs_in_again_and_again(database):
    first = _upkeep(database, "sign_in", "w1")
    assert _upkeep(database, "sign_in", "w1") >= first
    with database.read() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM workers WHERE name = 'w1'").scalar() == 1
