"""Disks that are full or read-only: small ones in memory, mounted by the tests, as ``make test-faults`` may."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import httpx2
import pytest

from coppice import Client
from coppice.errors import ApiError
from pruning_core.spec.prune import PruneSpec
from tests.faults.cluster import LEASE_S, Cluster
from tests.faults.conftest import LOCAL, PRODUCTION
from tests.integration.service import Backend
from tests.servers import Server, new_database, wait_until

Measured = Callable[[str], None]
Nap = Callable[[float], PruneSpec]


class Disk:
    """A file system of a few megabytes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._filler = folder / "filler"

    def fill(self) -> None:
        """Leave no byte."""
        with self._filler.open("ab", buffering=0) as file:
            for size in (1 << 16, 1 << 12, 1):
                try:
                    while True:
                        file.write(b"x" * size)
                except OSError:
                    continue

    def free(self) -> None:
        """Give the room back."""
        self._filler.unlink()

    def remount(self, mode: str) -> None:
        """Make it read-only (``ro``) or writable (``rw``)."""
        subprocess.run(["mount", "-o", f"remount,{mode}", str(self.folder)], check=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """A disk of 8 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m,mode=0777", "tmpfs", str(folder)], capture_output=True, text=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip(f"no disk can be mounted here ({mounted.stderr.strip()}); make test-faults asks for that right")
    yield Disk(folder)
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.row("disk full: artifacts", "reads work; the result waits and is published when there is room")
def test_a_full_artifact_disk_delays_results(
    make_cluster: Callable[..., Cluster], nap: Nap, disk: Disk, measured: Measured, tmp_path: Path
) -> None:
    cluster = make_cluster(artifacts_dir=str(disk.folder / "artifacts"))
    with cluster.api() as client, cluster.sleeping_worker():
        before = client.submit(nap(0))
        assert client.wait(before.id).status == "succeeded"
        disk.fill()
        during = client.submit(nap(0))
        wait_until(lambda: b"job.store_failed" in _worker_log(cluster), "the store to fail")
        time.sleep(LEASE_S + 1)
        assert client.get(during.id).status == "running"
        client.download(before.id, tmp_path / "bundle")
        disk.free()
        assert client.wait(during.id).status == "succeeded"
    outcome = cluster.verify([before.id, during.id])
    assert (outcome.fences, outcome.crashes, outcome.losses) == (2, 0, 0)
    measured("waited longer than a lease, then published by the first attempt")


@pytest.mark.row("disk full: database", "507, reads work, resumes when freed")
def test_a_full_database_disk_refuses_writes_alone(
    backend: Backend,
    tmp_path: Path,
    make_cluster: Callable[..., Cluster],
    nap: Nap,
    disk: Disk,
    request: pytest.FixtureRequest,
    measured: Measured,
) -> None:
    cluster = _cluster_on(disk, backend, make_cluster, request, tmp_path)
    with cluster.api() as client, cluster.sleeping_worker(), Client(cluster.url, retry_for_s=0) as impatient:
        before = client.submit(nap(0))
        client.wait(before.id)
        running = client.submit(nap(LEASE_S))
        wait_until(lambda: client.get(running.id).status == "running", "the job to run")
        time.sleep(1.5)
        disk.fill()
        accepted, refusal = _submit_until_refused(impatient, nap)
        assert (refusal.status, refusal.code) == (507, "storage_full")
        assert impatient.get(before.id).status == "succeeded"
        assert impatient.list()
        time.sleep(LEASE_S + 2)
        assert impatient.get(before.id).status == "succeeded"
        disk.free()
        accepted.append(client.submit(nap(0)).id)
        for job_id in (running.id, *accepted):
            assert client.wait(job_id).status == "succeeded"
    outcome = cluster.verify([before.id, running.id, *accepted])
    measured(f"507; {outcome.fences} claims for {2 + len(accepted)} jobs, {outcome.losses} losses")


@pytest.mark.parametrize("backend", [LOCAL], indirect=True)
@pytest.mark.row("disk full: scratch", "the worker takes no job until there is room")
def test_a_full_scratch_disk_fails_no_job(
    make_cluster: Callable[..., Cluster], nap: Nap, disk: Disk, measured: Measured
) -> None:
    cluster = make_cluster(scratch_dir=str(disk.folder / "scratch"), min_free_bytes=str(2**20))
    disk.fill()
    with cluster.api() as client, cluster.sleeping_worker():
        job = client.submit(nap(0))
        wait_until(lambda: b"worker.scratch_full" in _worker_log(cluster), "the worker to notice")
        assert client.get(job.id).status == "queued"
        disk.free()
        assert client.wait(job.id).status == "succeeded"
    assert cluster.verify([job.id]).fences == 1
    measured("claimed once there was room")


@pytest.mark.parametrize("backend", [LOCAL], indirect=True)
@pytest.mark.row("read-only disk: artifacts", "not ready; the result waits; recovery without a restart")
def test_a_read_only_artifact_disk_delays_results(
    make_cluster: Callable[..., Cluster], nap: Nap, disk: Disk, measured: Measured
) -> None:
    cluster = make_cluster(artifacts_dir=str(disk.folder / "artifacts"))
    with cluster.api() as client, cluster.sleeping_worker():
        assert _readiness(cluster) == 200
        disk.remount("ro")
        job = client.submit(nap(0))
        wait_until(lambda: b"job.store_failed" in _worker_log(cluster), "the store to fail")
        assert _readiness(cluster) == 503
        disk.remount("rw")
        assert client.wait(job.id).status == "succeeded"
        assert _readiness(cluster) == 200
    assert cluster.verify([job.id]).fences == 1
    measured("503 from /readyz, then 200 and published")


def _cluster_on(
    disk: Disk, backend: Backend, make_cluster: Callable[..., Cluster], request: pytest.FixtureRequest, tmp_path: Path
) -> Cluster:
    """Build a cluster whose database lies on the disk, and nothing else."""
    if backend.name == PRODUCTION:
        server: Server = request.getfixturevalue("own_postgres")
        space = disk.folder / "space"
        space.mkdir(mode=0o700)
        return make_cluster(replace(backend, database_url=new_database(server.port, space)))
    place = replace(backend, data_dir=disk.folder / "data")
    return make_cluster(place, artifacts_dir=str(tmp_path / "artifacts"), scratch_dir=str(tmp_path / "scratch"))


def _submit_until_refused(client: Client, nap: Nap) -> tuple[list[str], ApiError]:
    """Submit into what room the database has left in its own pages."""
    accepted: list[str] = []
    while True:
        try:
            accepted.append(client.submit(nap(0)).id)
        except ApiError as refusal:
            return accepted, refusal
        assert len(accepted) < 2000, "the disk is not full"


def _readiness(cluster: Cluster) -> int:
    with httpx2.Client(trust_env=False) as http:
        return http.get(f"{cluster.url}/readyz").status_code


def _worker_log(cluster: Cluster) -> bytes:
    return b"".join(path.read_bytes() for path in cluster.log_folder.glob("worker*.log"))
