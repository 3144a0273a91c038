"""An S3-compatible store: a whole job on it, and one that is out of reach when the result is there."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from pruning_core.spec.prune import PruneSpec
from tests import servers
from tests.faults.cluster import LEASE_S, Cluster
from tests.faults.conftest import LOCAL, PRODUCTION
from tests.servers import wait_until

Measured = Callable[[str], None]


@pytest.fixture
def s3_process() -> Iterator[servers.Server]:
    """An S3 server that a test may stop; a bucket that it has forgotten then is missing."""
    with servers.s3() as server:
        yield server


@pytest.fixture
def on_s3(
    s3_process: servers.Server, make_cluster: Callable[..., Cluster], monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], Cluster]:
    """Build a cluster on a bucket."""
    for name, value in servers.s3_environment(s3_process.port).items():
        monkeypatch.setenv(name, value)
    return lambda bucket: make_cluster(artifacts_url=f"s3://{bucket}/coppice")


@pytest.mark.short
@pytest.mark.parametrize("backend", [LOCAL], indirect=True)
@pytest.mark.row("none: a job on an S3-compatible store", "the bundle comes back whole, and nothing lies on the disk")
@pytest.mark.long
def test_a_job_lives_on_s3(
    on_s3: Callable[[str], Cluster], s3_process: servers.Server, spec: PruneSpec, tmp_path: Path, measured: Measured
) -> None:
    cluster = on_s3(servers.new_bucket(s3_process.port))
    with cluster.api() as client, cluster.worker():
        job = client.submit(spec)
        assert client.wait(job.id).status == "succeeded"
        bundle = client.download(job.id, tmp_path / "bundle")
        artifacts = client.artifacts(job.id)
    for artifact in artifacts:
        assert hashlib.sha256((bundle / artifact.path).read_bytes()).hexdigest() == artifact.sha256
    assert not (cluster.backend.data_dir / "artifacts").exists()
    cluster.verify([job.id])
    measured(f"{len(artifacts)} files, all hashes right")


@pytest.mark.parametrize("backend", [PRODUCTION], indirect=True)
@pytest.mark.row("S3 out of reach when the result is there", "not ready; the result waits; recovery without a restart")
def test_a_store_out_of_reach_delays_results(
    on_s3: Callable[[str], Cluster],
    s3_process: servers.Server,
    nap: Callable[[float], PruneSpec],
    measured: Measured,
) -> None:
    s3_process.stop()
    bucket = "late"
    cluster = on_s3(bucket)
    with ExitStack() as stack:
        client = stack.enter_context(cluster.api())
        stack.enter_context(cluster.sleeping_worker())
        job = client.submit(nap(0))
        wait_until(
            lambda: b"job.store_failed" in b"".join(path.read_bytes() for path in cluster.log_folder.glob("worker*.log")),
            "the store to fail",
        )
        time.sleep(LEASE_S)
        assert client.get(job.id).status == "running"
        s3_process.start()
        servers.put_bucket(s3_process.port, bucket)
        assert client.wait(job.id).status == "succeeded"
    outcome = cluster.verify([job.id])
    assert (outcome.fences, outcome.crashes, outcome.losses) == (1, 0, 0)
    measured("waited, then published by the first attempt")
