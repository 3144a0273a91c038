"""Processes of a worker that die, stop, or are told to end."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from coppice import Client
from pruning_core.spec.prune import PruneSpec
from tests.faults.cluster import HEARTBEAT_S, LEASE_S, TICK_S, Cluster, pool_of, tree_of
from tests.faults.entry import Faults
from tests.integration.service import child_of
from tests.servers import wait_until
from tests.tiny import tiny_spec, write_bomb

Measured = Callable[[str], None]

# What a busy machine may add to a measured time.
_SLACK_S = 1.5


def _kill(victims: list[psutil.Process]) -> float:
    for victim in victims:
        try:
            victim.kill()
        except psutil.NoSuchProcess:  # its parent's death was enough
            continue
    return time.time()


def _victims(which: str, worker: psutil.Process, child: psutil.Process) -> list[psutil.Process]:
    return {
        "job child": [child],
        "pool process": [pool_of(worker)],
        "worker's main process": [worker],
        "whole tree": tree_of(worker),
    }[which]


@pytest.mark.parametrize(
    "which",
    [
        pytest.param(which, marks=pytest.mark.row(f"SIGKILL of the {which}", "rescued within lease + tick; fence + 1"))
        for which in ("job child", "pool process", "worker's main process", "whole tree")
    ],
)
def test_a_killed_process_costs_an_attempt(
    cluster: Cluster, client: Client, long_spec: PruneSpec, measured: Measured, which: str
) -> None:
    with cluster.api(), cluster.worker() as first:
        job = client.submit(long_spec)
        child = child_of(first, job.id)
        with cluster.worker() as second:
            time.sleep(LEASE_S + 4 * TICK_S)  # until the second's reaper judges
            killed_at = _kill(_victims(which, first, child))
            wait_until(lambda: bool(cluster.event_times(job.id, "job.requeued")), "the rescue")
            rescued_s = cluster.event_times(job.id, "job.requeued")[0] - killed_at
            psutil.wait_procs([child], timeout=5)
            assert not child.is_running()
            wait_until(lambda: cluster.column(job.id, "fence") == 2, "the next claim")
            client.cancel(job.id)
            assert client.wait(job.id).status == "cancelled"
            assert second.is_running()
    assert rescued_s <= LEASE_S + TICK_S + _SLACK_S
    outcome = cluster.verify([job.id])
    expected = (1, 0) if which == "job child" else (0, 1)
    assert (outcome.fences, outcome.crashes, outcome.losses) == (2, *expected)
    measured(f"rescued after {max(rescued_s, 0):.1f} s")


@pytest.mark.short
@pytest.mark.row("SIGKILL of the job child, three times", "failed after the cap; the next job runs")
@pytest.mark.long
def test_crashes_have_a_cap(
    cluster: Cluster, client: Client, long_spec: PruneSpec, spec: PruneSpec, measured: Measured
) -> None:
    with cluster.api(), cluster.worker() as worker:
        job, after = client.submit(long_spec), client.submit(spec)
        killed: set[int] = set()
        while len(killed) < 3:
            child = child_of(worker, job.id)
            if child.pid not in killed:
                killed.add(child.pid)
                child.kill()
        ended = client.wait(job.id)
        assert (ended.status, ended.error and ended.error.code) == ("failed", "crashed")
        assert client.wait(after.id).status == "succeeded"
    outcome = cluster.verify([job.id, after.id])
    measured(f"{outcome.fences} claims, {outcome.crashes + 1} crashes")


@pytest.mark.row("SIGSTOP of a worker for longer than the lease, then resumed", "its commit affects 0 rows")
def test_a_stopped_worker_commits_nothing(
    cluster: Cluster, client: Client, spec: PruneSpec, flag: Path, measured: Measured
) -> None:
    faults = Faults(point="worker commits", signal=signal.SIGSTOP, once=flag)
    with cluster.api(), cluster.faulty_worker(faults) as first:
        job = client.submit(spec)
        wait_until(flag.exists, "the worker to stop before its commit")
        stopped = pool_of(first)
        wait_until(lambda: stopped.status() == psutil.STATUS_STOPPED, "the pool's process to stop")
        first.suspend()
        with cluster.worker():
            assert client.wait(job.id).status == "succeeded"
            version = cluster.column(job.id, "version")
            for process in (first, stopped):
                process.resume()
            wait_until(lambda: b"job.result_refused" in _log_of(cluster), "the refusal")
            assert cluster.column(job.id, "version") == version
    outcome = cluster.verify([job.id])
    assert (outcome.fences, outcome.most_commits) == (2, 1)
    measured("the late commit changed no row")


@pytest.mark.row("SIGKILL between compute and commit", "one artifact set after the rerun")
def test_a_result_that_was_not_committed_is_computed_again(
    cluster: Cluster, client: Client, spec: PruneSpec, flag: Path, measured: Measured
) -> None:
    with cluster.api(), cluster.faulty_worker(Faults(point="worker commits", once=flag)):
        job = client.submit(spec)
        wait_until(flag.exists, "the kill")
        assert client.artifacts(job.id) == []
        assert client.wait(job.id).status == "succeeded"
        files = len(client.artifacts(job.id))
    outcome = cluster.verify([job.id])
    assert (outcome.fences, outcome.losses) == (2, 1)
    measured(f"{files} files of fence 2, none of fence 1")


@pytest.mark.row("poison job: out of memory at every attempt", "failed after the cap with `oom`; the next job runs")
def test_a_job_that_takes_all_memory_fails_alone(
    make_cluster: Callable[..., Cluster], spec: PruneSpec, tiny_bert: Path, tiny_sst2: Path, tmp_path: Path, measured: Measured
) -> None:
    bomb = write_bomb(tmp_path / "bomb", gigabytes=2)
    roots = os.pathsep.join(map(str, (tiny_bert, tiny_sst2, bomb)))
    # The look at the files at submit would find it already: it is given the memory that the job has not.
    cluster = make_cluster(job_memory_bytes=str(1200 * 2**20), allowed_roots=roots, inspection_memory_bytes=str(8 * 2**30))
    poison = tiny_spec(tiny_bert, bomb)
    with cluster.api() as client, cluster.worker():
        job, after = client.submit(poison), client.submit(spec)
        ended = client.wait(job.id)
        assert (ended.status, ended.error and ended.error.code) == ("failed", "oom"), ended.error
        assert client.wait(after.id).status == "succeeded"
    outcome = cluster.verify([job.id, after.id])
    assert outcome.crashes == 2  # the third is the failure itself
    measured("3 attempts, then `oom`")


@pytest.mark.row("cancel while queued", "one terminal state")
def test_a_queued_job_is_cancelled_at_once(cluster: Cluster, client: Client, spec: PruneSpec, measured: Measured) -> None:
    with cluster.api():
        job = client.submit(spec)
        assert client.cancel(job.id).status == "cancelled"
        with cluster.worker():
            other = client.submit(spec)
            assert client.wait(other.id).status == "succeeded"
    outcome = cluster.verify([job.id, other.id])
    assert outcome.fences == 1
    measured("never claimed")


@pytest.mark.short
@pytest.mark.row("cancel while running", "process gone within heartbeat + 1 s")
def test_a_running_job_is_cancelled_soon(cluster: Cluster, client: Client, long_spec: PruneSpec, measured: Measured) -> None:
    with cluster.api(), cluster.worker() as worker:
        job = client.submit(long_spec)
        child = child_of(worker, job.id)
        wait_until(lambda: client.get(job.id).progress is not None, "the job to be under way")
        began = time.monotonic()
        client.cancel(job.id)
        wait_until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE, "the process to be gone")
        gone_s = time.monotonic() - began
        assert client.wait(job.id).status == "cancelled"
    assert gone_s <= HEARTBEAT_S + 1
    cluster.verify([job.id])
    measured(f"gone after {gone_s:.2f} s")


@pytest.mark.row("cancel while committing", "one terminal state")
def test_a_cancellation_during_the_commit_has_one_outcome(
    make_cluster: Callable[..., Cluster], spec: PruneSpec, flag: Path, measured: Measured
) -> None:
    cluster = make_cluster(lease_s="30")
    faults = Faults(point="worker commits", signal=signal.SIGSTOP, once=flag)
    with cluster.api() as client, cluster.faulty_worker(faults) as worker:
        job = client.submit(spec)
        wait_until(flag.exists, "the worker to stop before its commit")
        assert client.cancel(job.id).status == "cancelling"
        pool_of(worker).resume()
        ended = client.wait(job.id)
    outcome = cluster.verify([job.id])
    assert (ended.status, outcome.fences) == ("succeeded", 1)
    measured(f"{ended.status}, once")


@pytest.mark.row("SIGTERM of the worker", "requeued, attempt not charged")
def test_a_worker_that_is_told_to_stop_gives_its_job_back(
    cluster: Cluster, client: Client, long_spec: PruneSpec, measured: Measured
) -> None:
    with cluster.api():
        with cluster.worker() as worker:
            job = client.submit(long_spec)
            child = child_of(worker, job.id)
            began = time.monotonic()
        stopped_s = time.monotonic() - began
        assert not child.is_running()
        assert (cluster.column(job.id, "status"), cluster.column(job.id, "attempt")) == ("queued", 0)
        with cluster.worker() as successor:
            child_of(successor, job.id)
            client.cancel(job.id)
            assert client.wait(job.id).status == "cancelled"
    outcome = cluster.verify([job.id])
    assert (outcome.losses, outcome.crashes) == (0, 0)
    measured(f"down after {stopped_s:.1f} s")


def _log_of(cluster: Cluster) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(cluster.log_folder.glob("worker*.log")))
