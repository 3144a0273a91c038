"""The broker only wakes: wiped, restarted, down, or saying the same thing again and again."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress

import psutil
import pytest
from redis import Redis

from app.queue import create_celery, publish
from coppice import Client
from pruning_core.spec.prune import PruneSpec
from tests.faults.cluster import LEASE_S, Cluster
from tests.faults.conftest import LOCAL, PRODUCTION
from tests.faults.entry import Faults
from tests.integration.service import child_of
from tests.servers import Server, wait_until

Measured = Callable[[str], None]

on_redis = pytest.mark.parametrize("backend", [PRODUCTION], indirect=True)


def _wipe(cluster: Cluster) -> None:
    if cluster.backend.name == LOCAL:
        for path in (cluster.backend.data_dir / "broker" / "messages").iterdir():
            path.unlink()
    else:
        with Redis.from_url(cluster.backend.broker_url) as connection:
            connection.flushall()


@pytest.mark.row("broker wiped mid-run", "the job goes on; what waits is woken again")
def test_a_wiped_broker_costs_nothing(cluster: Cluster, client: Client, spec: PruneSpec, measured: Measured) -> None:
    with cluster.api(), cluster.worker() as worker:
        running = client.submit(spec)
        child_of(worker, running.id)
        waiting = [client.submit(spec) for _ in range(2)]
        _wipe(cluster)
        for job in (running, *waiting):
            assert client.wait(job.id).status == "succeeded"
    outcome = cluster.verify([running.id, *(job.id for job in waiting)])
    assert (outcome.fences, outcome.losses, outcome.crashes) == (3, 0, 0)
    measured("3 of 3 succeeded, one claim each")


@on_redis
@pytest.mark.row("Redis restarted mid-run", "the job goes on")
def test_a_restarted_redis_costs_nothing(
    cluster: Cluster, client: Client, spec: PruneSpec, redis_process: Server, measured: Measured
) -> None:
    with cluster.api(), cluster.worker() as worker:
        running = client.submit(spec)
        child_of(worker, running.id)
        redis_process.stop()
        time.sleep(2)
        redis_process.start()
        assert client.wait(running.id).status == "succeeded"
        after = client.submit(spec)
        assert client.wait(after.id).status == "succeeded"
    outcome = cluster.verify([running.id, after.id])
    assert (outcome.fences, outcome.losses, outcome.crashes) == (2, 0, 0)
    measured("running job and the next succeeded")


@on_redis
@pytest.mark.row("Redis down at submit", "202; it starts after recovery")
def test_jobs_are_accepted_without_redis(
    cluster: Cluster, client: Client, spec: PruneSpec, redis_process: Server, measured: Measured
) -> None:
    with cluster.api(), cluster.worker():
        client.list()
        redis_process.stop()
        began = time.monotonic()
        jobs = [client.submit(spec) for _ in range(5)]
        submitted_s = (time.monotonic() - began) / len(jobs)
        time.sleep(3)
        redis_process.start()
        back = time.monotonic()
        wait_until(lambda: cluster.column(jobs[0].id, "fence") == 1, "the first to start")
        started_s = time.monotonic() - back
        for job in jobs:
            assert client.wait(job.id).status == "succeeded"
    cluster.verify([job.id for job in jobs])
    assert submitted_s < 0.5
    measured(f"{1000 * submitted_s:.0f} ms a submit; started {started_s:.1f} s after recovery")


@pytest.mark.short
@pytest.mark.row("the same message ten times", "one claim")
@pytest.mark.long
def test_one_message_is_as_good_as_ten(
    cluster: Cluster, client: Client, nap: Callable[[float], PruneSpec], measured: Measured
) -> None:
    with cluster.api(), cluster.sleeping_worker(), cluster.sleeping_worker():
        job = client.submit(nap(2))
        celery = create_celery(cluster.settings)
        for _ in range(10):
            assert publish(celery, job.id)
        assert client.wait(job.id).status == "succeeded"
        wait_until(lambda: cluster.backend.messages() == 0, "the messages to be taken")
        time.sleep(0.5)
    assert cluster.verify([job.id]).fences == 1
    assert len(cluster.event_times(job.id, "job.started")) == 1
    measured("11 messages, 2 workers, 1 claim")


@on_redis
@pytest.mark.row("visibility timeout shorter than the job", "one claim")
def test_a_redelivered_message_starts_nothing(
    cluster: Cluster, client: Client, nap: Callable[[float], PruneSpec], measured: Measured
) -> None:
    faults = Faults(sleeper=True, visibility_timeout_s=1)
    with cluster.api(), cluster.faulty_worker(faults), cluster.faulty_worker(faults):
        job = client.submit(nap(8))
        assert client.wait(job.id).status == "succeeded"
    assert cluster.verify([job.id]).fences == 1
    logs = b"".join(path.read_bytes() for path in cluster.log_folder.glob("worker*.log"))
    deliveries = logs.count(b"celery.worker.strategy")
    assert deliveries > 1, "the message was never delivered again: the fault did not happen"
    measured(f"{deliveries} deliveries, 1 claim")


@pytest.mark.row("two reapers, and a whole worker lost", "no loss, each job rescued once")
def test_two_reapers_rescue_each_job_once(
    cluster: Cluster, client: Client, nap: Callable[[float], PruneSpec], measured: Measured
) -> None:
    with cluster.api(), cluster.sleeping_worker(), cluster.sleeping_worker(), cluster.sleeping_worker() as third:
        time.sleep(LEASE_S + 1)  # all three are ready by now, on a busy machine, too
        jobs = [client.submit(nap(4)) for _ in range(4)]
        wait_until(lambda: len(client.list(statuses=["running"])) == 3, "three jobs to run")
        for victim in [third, *third.children(recursive=True)]:
            with suppress(psutil.NoSuchProcess):  # a child ends with its parent
                victim.kill()
        for job in jobs:
            assert client.wait(job.id).status == "succeeded"
    outcome = cluster.verify([job.id for job in jobs])
    assert (outcome.losses, outcome.fences) == (1, len(jobs) + 1)
    measured("1 job lost its worker, rescued once by two reapers")


@pytest.mark.row("no reaper, no worker", "no loss")
def test_without_any_worker_jobs_wait(
    cluster: Cluster, client: Client, nap: Callable[[float], PruneSpec], measured: Measured
) -> None:
    with cluster.api():
        with cluster.sleeping_worker() as worker:
            running = client.submit(nap(6))
            child_of(worker, running.id)
            for member in (worker, *worker.children(recursive=True)):
                member.kill()
        waiting = client.submit(nap(0))
        _wipe(cluster)
        time.sleep(LEASE_S + 2)
        assert client.get(running.id).status == "running"
        assert client.get(waiting.id).status == "queued"
        with cluster.sleeping_worker():
            for job in (running, waiting):
                assert client.wait(job.id).status == "succeeded"
    outcome = cluster.verify([running.id, waiting.id])
    assert (outcome.losses, outcome.fences) == (1, 3)
    measured("both done once a worker came")
