"""Several devices of one worker, and queues by what jobs need, on real processes and both brokers."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable

import psutil
import pytest

from coppice import Client
from pruning_core.spec.prune import PruneSpec
from tests.faults.cluster import Cluster
from tests.integration.service import child_of
from tests.servers import wait_until

DEVICES = 8
LONG_S = 600.0


@pytest.mark.row(
    "one of a worker's eight devices", "eight jobs at once, a child each; cancel and crash of one leave the others"
)
def test_each_device_runs_a_job_and_none_minds_the_others(
    make_cluster: Callable[..., Cluster], nap: Callable[[float], PruneSpec], measured: Callable[[str], None]
) -> None:
    cluster = make_cluster(devices=",".join(["cpu"] * DEVICES), crash_pause_s="0", lease_s="30")
    with cluster.api() as client, cluster.sleeping_worker() as worker:
        ids = [client.submit(nap(LONG_S)).id for _ in range(DEVICES + 1)]
        wait_until(lambda: _running(client) >= DEVICES, "eight jobs to run", 120)
        waiting = next(job for job in client.list() if job.status == "queued")
        assert waiting.id == ids[-1]
        pools = worker.children()
        assert len(pools) == DEVICES
        children = {job_id: child_of(worker, job_id) for job_id in ids[:DEVICES]}
        assert len({child.pid for child in children.values()}) == DEVICES
        assert len({_pool_of(child, pools) for child in children.values()}) == DEVICES, "one child a pool process"

        client.cancel(ids[0])
        assert client.wait(ids[0]).status == "cancelled"
        assert not children[ids[0]].is_running()
        wait_until(lambda: client.get(ids[-1]).status == "running", "the ninth job to take the place", 60)
        children[ids[1]].send_signal(signal.SIGKILL)
        wait_until(lambda: cluster.column(ids[1], "fence") == 2, "the second attempt of the job that crashed", 60)
        left = ids[2:DEVICES]
        assert [client.get(job_id).status for job_id in left] == ["running"] * len(left)
        assert all(children[job_id].is_running() for job_id in left)
        assert [cluster.column(job_id, "fence") for job_id in left] == [1] * len(left)
        for job_id in ids[1:]:
            client.cancel(job_id)
        cluster.await_finish(ids)
    outcome = cluster.verify(ids)
    assert (outcome.statuses["cancelled"], outcome.crashes) == (DEVICES + 1, 1)
    measured(f"{DEVICES} children in {DEVICES} pool processes; {len(left)} jobs untouched")


@pytest.mark.row("a worker that cannot serve a job", "takes no such job, and not its wake-up; who can takes it at once")
def test_jobs_go_to_workers_that_have_what_they_need(
    make_cluster: Callable[..., Cluster], nap: Callable[[float], PruneSpec], measured: Callable[[str], None]
) -> None:
    # Wake-ups that are lost are not made good in the time of this test.
    plain = make_cluster(republish_after_s="600")
    needy = nap(0).model_dump(mode="json") | {"needs": {"tags": ["large"]}}
    with plain.api() as client, plain.sleeping_worker():
        wait_until(lambda: client.submit(nap(0)).queue.workers == 1, "the worker to sign in")
        early = client.submit(needy)
        assert (early.queue.workers, "tagged large" in early.queue.why) == (0, True)
        usual = client.submit(nap(0))
        assert client.wait(usual.id).status == "succeeded"
        assert client.get(early.id).status == "queued"
        tagged = {"COPPICE_WORKER_TAGS": "large,near"}
        environment = json.dumps({"sleeper": True})
        changes = tagged | {"COPPICE_TEST_FAULTS": environment}
        with plain.process("tagged", "-m", "tests.faults.entry", "worker", changes=changes):
            wait_until(lambda: _is_served(client, early.id), "the second worker")
            late = [client.submit(needy).id for _ in range(3)]
            assert [client.wait(job_id).status for job_id in late] == ["succeeded"] * 3
            # Claims take what is due, whichever job the message named.
            assert client.wait(early.id).status == "succeeded"
    measured("4 of 4 by the tagged worker")


def _is_served(client: Client, job_id: str) -> bool:
    queue = client.get(job_id).queue
    return queue is None or queue.workers == 1


def _running(client: Client) -> int:
    return sum(job.status == "running" for job in client.list(limit=50))


def _pool_of(child: psutil.Process, pools: list[psutil.Process]) -> int:
    ours = {pool.pid for pool in pools}
    return next(parent.pid for parent in child.parents() if parent.pid in ours)
