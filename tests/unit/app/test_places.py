"""A waiting job's place against the claims that are then made, and why it waits."""

from __future__ import annotations

import random

import pytest
import sqlalchemy as sa

from app.jobs.leases import LeaseRepository
from app.jobs.models import jobs, queue_limits, tenants, turns, workers
from app.jobs.needs import Abilities, Needs
from app.jobs.places import PlaceRepository
from app.jobs.repository import JobRepository
from pruning_core.spec.prune import PruneSpec

SPEC = PruneSpec.model_validate({"model": "org/name", "task": "glue/sst2", "sparsity": 0.5})
CUDA = Abilities(device="cuda", gpu_bytes=24 * 2**30)


@pytest.fixture
def database(database):
    with database.write() as connection:
        for table in (jobs, tenants, turns, queue_limits, workers):
            connection.execute(table.delete())
    return database


def _insert(database, *jobs_):
    with database.write() as connection:
        for number, (owner, options) in enumerate(jobs_):
            given = {"priority": 0, "metadata": {}, "spec": SPEC} | options
            JobRepository(connection).insert(f"job_{number:04d}", owner=owner, **given)
            connection.execute(jobs.update().where(jobs.c.id == f"job_{number:04d}").values(created_at=float(number)))


def _sign_in(database, *serves):
    with database.write() as connection:
        for number, own in enumerate(serves):
            row = {"name": f"w{number}", "started_at": 0.0, "seen_at": 4e9}
            connection.execute(workers.insert().values(row | {"serves": None if own is None else own.model_dump(mode="json")}))


def _place(database, number, **options):
    job_id = f"job_{number:04d}"
    with database.read() as connection:
        owner = connection.scalar(sa.select(jobs.c.owner).where(jobs.c.id == job_id))
        job = JobRepository(connection).get(job_id, owner=owner)
        return PlaceRepository(connection).place(job, seen_within_s=30, **options)


def _claim(database, abilities=None):
    with database.write() as connection:
        return LeaseRepository(connection).claim(worker="w", lease_s=30, abilities=abilities)


@pytest.mark.parametrize("seed", range(3))
def test_the_place_is_the_number_of_claims_before(database, seed):
    chance = random.Random(seed)
    _sign_in(database, CUDA)
    with database.write() as connection:
        connection.execute(tenants.insert(), [{"owner": "a", "share": 2.0}, {"owner": "b", "share": 0.5}])
    made = [
        (chance.choice("aaabc"), {"priority": chance.randrange(2), "rank": chance.choice((0,) * 9 + (-3,))}) for _ in range(24)
    ]
    _insert(database, *made)
    for _ in range(4):
        _claim(database, CUDA)
    with database.read() as connection:
        waiting = list(connection.scalars(sa.select(jobs.c.id).where(jobs.c.status == "queued")))
    told = {job_id: _place(database, int(job_id[4:])).before for job_id in waiting}
    claimed = [_claim(database, CUDA).job_id for _ in waiting]
    # Where turns start at once the older first job decides, and which that is then changes with the claims.
    assert all(abs(told[job_id] - place) <= 2 for place, job_id in enumerate(claimed)), (told, claimed)
    assert told[claimed[0]] == 0


def test_one_job_behind_many_is_next(database):
    _insert(database, *[("many", {"priority": 9})] * 30, ("one", {}))
    _claim(database)
    assert _place(database, 30).before == 0
    assert _place(database, 29).before == 28 + 1


def test_what_no_worker_serves_is_said_with_the_reason(database):
    gib = 2**30
    needs = [Needs(), Needs(device="cuda", gpu_memory_bytes=40 * gib), Needs(tags=("a100",)), Needs(device="cpu")]
    _insert(database, *(("a", {"needs": own}) for own in needs))
    place = _place(database, 0)
    assert (place.workers, place.why) == (0, "no worker is signed in")
    assert _place(database, 2).why == "no worker is signed in; the job needs a worker tagged a100"
    _sign_in(database, CUDA, None)
    assert [_place(database, number).workers for number in range(4)] == [2, 0, 0, 0]
    assert _place(database, 0).why is None
    assert _place(database, 1).why == (
        "the job needs a worker with a GPU of 40.0 GiB, and the largest GPU of a worker has 24.0 GiB"
    )
    assert _place(database, 2).why == "the job needs a worker tagged a100, and the workers that are signed in have no tags"
    assert _place(database, 3).why == (
        "the job needs a worker without a GPU, and the workers that are signed in have cuda and unknown alone"
    )


def test_limits_and_pauses_are_reasons(database):
    _sign_in(database, CUDA)
    _insert(database, ("a", {}), ("a", {}), ("b", {"needs": Needs(device="cuda")}), ("c", {"needs": Needs(device="cuda")}))
    _claim(database)
    assert (
        _place(database, 1, max_running=1).why
        == "as many of your jobs run as may at once; it starts when one of them has ended"
    )
    _claim(database)
    with database.write() as connection:
        connection.execute(queue_limits.insert().values(queue="cuda", max_running=1))
        connection.execute(jobs.update().where(jobs.c.id == "job_0001").values(not_before=4e9))
    assert _place(database, 3).why == "as many jobs run as may at once of those that need a worker with a GPU"
    assert "an earlier attempt ended badly; it is tried again in" in _place(database, 1).why
