"""Limits of a job's own, a paused queue, deletions: on real processes, with a real worker."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from app.jobs.limits import JobLimits
from app.jobs.repository import JobRepository
from app.keys.records import Caller
from app.operations.tenants import TenantDeletion
from coppice import ApiError, Client
from pruning_core.spec.prune import PruneSpec
from tests.faults.cluster import HEARTBEAT_S, TICK_S, Cluster
from tests.integration.service import child_of
from tests.servers import wait_until


@pytest.mark.row("a job over its own time", "failed with timeout, its process gone")
def test_a_job_over_its_own_time(cluster: Cluster, client: Client, nap: Callable[[float], PruneSpec]) -> None:
    with cluster.api(), cluster.sleeping_worker() as worker:
        job = client.submit({**nap(300).model_dump(mode="json"), "timeout_s": 3})
        child = child_of(worker, job.id)
        done = client.wait(job.id)
        assert (done.status, done.error.code, done.error.param) == ("failed", "timeout", "timeout_s")
        assert "3 s that it was submitted with" in done.error.message
        assert not child.is_running()


@pytest.mark.row("a queue paused and opened", "nothing begins meanwhile, everything after")
def test_a_paused_queue(cluster: Cluster, client: Client, nap: Callable[[float], PruneSpec]) -> None:
    with cluster.api(), cluster.sleeping_worker():
        running = client.submit(nap(2))
        wait_until(lambda: client.get(running.id).status == "running", "the job to run")
        assert not client.queue("drain").drained
        waiting = client.submit(nap(0.1))
        assert client.wait(running.id).status == "succeeded", "what runs goes on"
        assert client.queue().drained
        time.sleep(4 * TICK_S)
        seen = client.get(waiting.id)
        assert (seen.status, seen.queue.paused) == ("queued", True)
        client.queue("resume")
        assert client.wait(waiting.id).status == "succeeded"


@pytest.mark.row("a running job deleted", "refused until it is cancelled, then nothing is left")
def test_a_running_job_is_deleted(cluster: Cluster, client: Client, nap: Callable[[float], PruneSpec]) -> None:
    with cluster.api(), cluster.sleeping_worker():
        job = client.submit(nap(300))
        wait_until(lambda: client.get(job.id).status == "running", "the job to run")
        with pytest.raises(ApiError) as refused:
            client.delete(job.id)
        assert refused.value.code == "still_running"
        client.cancel(job.id)
        assert client.wait(job.id).status == "cancelled"
        client.delete(job.id)
        done = client.submit(nap(0.1))
        assert client.wait(done.id).status == "succeeded"
        assert cluster.store.keys(f"jobs/{done.id}", after="", limit=9)
        client.delete(done.id)
        assert cluster.store.keys("jobs", after="", limit=9) == []
        assert client.list() == []


@pytest.mark.row("a tenant deleted while its job runs, and nobody asks again", "finished by the worker's reaper")
def test_a_tenant_is_deleted_while_its_job_runs(cluster: Cluster, client: Client, nap: Callable[[float], PruneSpec]) -> None:
    database = cluster.backend.database()
    with cluster.api(), cluster.sleeping_worker() as worker:
        with database.write() as connection:
            JobRepository(connection).insert(
                "job_of_acme", owner="acme", spec=nap(300), metadata={}, priority=0, limits=JobLimits(max_attempts=1)
            )
        wake = client.submit(nap(0.1))
        child = child_of(worker, "job_of_acme")
        deletion = TenantDeletion(cluster.settings, database, cluster.store)
        asked = deletion.delete("acme", with_audit=False, caller=Caller(), for_s=1)
        assert (asked.deletion.finished_at, asked.running) == (None, 1)
        wait_until(lambda: deletion.state("acme").deletion.finished_at is not None, "the deletion to end")
        assert not child.is_running()
        assert deletion.state("acme").deletion.counts["jobs"] == 1
        assert client.wait(wake.id).status == "succeeded", "others' jobs go on"
        began = deletion.state("acme").deletion
        assert began.finished_at - began.requested_at < 60 + HEARTBEAT_S
    database.close()
