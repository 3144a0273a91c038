"""Ten thousand jobs in the queue."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable

import psutil
import pytest
import sqlalchemy as sa

from app.jobs.models import job_events, jobs
from app.jobs.repository import JobRepository
from app.jobs.states import JobStatus
from coppice import Client
from pruning_core.spec.prune import PruneSpec
from tests.faults.cluster import Cluster
from tests.servers import wait_until

QUEUED = 10_000
WATCHED = 25


@pytest.mark.row("10,000 queued", "a tenant's priorities hold, memory and broker bounded, lists stay under 100 ms")
def test_a_long_queue_is_served_in_order(
    cluster: Cluster, client: Client, nap: Callable[[float], PruneSpec], measured: Callable[[str], None]
) -> None:
    ids = fill_queue(cluster, nap(0), QUEUED)
    with cluster.faulty_api() as api:
        client.list()
        began_bytes = api.memory_info().rss
        with cluster.sleeping_worker() as worker:
            wait_until(lambda: claims(cluster) > 2, "the first claims")
            worker_bytes = worker.memory_info().rss
            list_ms = [_timed(lambda: client.list(limit=20)) for _ in range(50)]
            filtered_ms = [_timed(lambda: client.list(statuses=["queued"], limit=20)) for _ in range(50)]
            wait_until(lambda: claims(cluster) >= WATCHED, f"{WATCHED} claims", 120)
            grown = {"API": _grown(api, began_bytes), "worker": _grown(worker, worker_bytes)}
            messages = cluster.backend.messages()
    cancel_queued(cluster)
    first = _claimed(cluster)[:WATCHED]
    expected = sorted(ids, key=lambda job_id: (-ids[job_id][0], ids[job_id][1]))[: len(first)]
    assert [job_id for job_id, _ in first] == expected
    assert messages <= 50
    assert max(grown.values()) < 50, grown
    slowest = max(statistics.quantiles(list_ms, n=20)[-1], statistics.quantiles(filtered_ms, n=20)[-1])
    assert slowest < 100
    cluster.verify(ids)
    growth = ", ".join(f"{name} +{size:.0f} MB" for name, size in grown.items())
    measured(f"first {len(first)} in order; {messages} messages; {growth}; list p95 {slowest:.0f} ms")


def fill_queue(cluster: Cluster, spec: PruneSpec, count: int) -> dict[str, tuple[int, int]]:
    """Insert queued jobs of mixed priorities; gives each one's priority and place in time."""
    chance = random.Random(7)
    found: dict[str, tuple[int, int]] = {}
    database = cluster.backend.database()
    with database.write() as connection:
        repository = JobRepository(connection)
        for index in range(count):
            # Of one transaction, they may have one moment: then the id decides.
            job_id, priority = f"job_{index:08d}", chance.randrange(10)
            repository.insert(job_id, owner="", spec=spec, metadata={}, priority=priority)
            found[job_id] = (priority, index)
    database.close()
    return found


def claims(cluster: Cluster) -> int:
    """Count the jobs that were ever claimed."""
    return len(_claimed(cluster))


def cancel_queued(cluster: Cluster) -> None:
    """Cancel all that waits, as its owner would one by one."""
    database = cluster.backend.database()
    with database.write() as connection:
        repository = JobRepository(connection)
        for job_id in list(connection.scalars(sa.select(jobs.c.id).where(jobs.c.status == str(JobStatus.QUEUED)))):
            assert repository.request_cancel(job_id)
    database.close()


def _claimed(cluster: Cluster) -> list[tuple[str, float]]:
    database = cluster.backend.database()
    try:
        with database.read() as connection:
            query = sa.select(job_events.c.job_id, job_events.c.created_at).where(job_events.c.type == "job.started")
            return [(row.job_id, row.created_at) for row in connection.execute(query.order_by(job_events.c.id))]
    finally:
        database.close()


def _timed(act: Callable[[], object]) -> float:
    began = time.perf_counter()
    act()
    return 1000 * (time.perf_counter() - began)


def _grown(process: psutil.Process, before: int) -> float:
    return (process.memory_info().rss - before) / 2**20
