"""Jobs through real processes: API, Celery worker, child, store; on both profiles."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from app.settings import Settings
from app.signing import public_keys
from coppice.errors import ApiError
from coppice.origin import OriginUnproven, verify
from pruning_core.spec.prune import PruneSpec
from tests.integration.service import FAST, Backend, Service, child_of, sha256
from tests.servers import wait_until
from tests.tiny import tiny_spec
from tests.unit.core.test_adapters import write_adapter
from tests.unit.worker.test_signing import write_key

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning"),  # of PEFT's
]

WEIGHTS = "model.safetensors"

# What does not depend on the profile runs on one of them; the fault set runs everything on both.
on_local = pytest.mark.parametrize("backend", ["local"], indirect=True)
on_redis_postgres = pytest.mark.parametrize("backend", ["redis-postgres"], indirect=True)


@pytest.fixture
def spec(tiny_bert: Path, tiny_sst2: Path) -> PruneSpec:
    return tiny_spec(tiny_bert, tiny_sst2)


@pytest.fixture
def long_spec(tiny_bert: Path, tiny_sst2: Path) -> PruneSpec:
    """A job that would take minutes, so that something can happen to it."""
    return tiny_spec(tiny_bert, tiny_sst2, latency={"batch": 512, "length": 64, "repeats": 1000})


@pytest.fixture(scope="session")
def run_by_hand(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path, tiny_sst2: Path) -> Path:
    """The bundle that ``coppice run`` makes of the same spec, in a process of its own."""
    folder = tmp_path_factory.mktemp("by-hand")
    (folder / "spec.json").write_text(tiny_spec(tiny_bert, tiny_sst2).model_dump_json())
    command = [sys.executable, "-m", "coppice.cli", "run", "--spec", str(folder / "spec.json"), "--out", str(folder / "bundle")]
    done = subprocess.run(
        [*command, "--threads", FAST["COPPICE_THREADS"], "--json"], capture_output=True, text=True, check=False, timeout=200
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["target"]["metric"] == "macs"
    return folder / "bundle"


def test_a_job_gives_the_bytes_of_a_run_by_hand(service: Service, spec: PruneSpec, run_by_hand: Path, tmp_path: Path) -> None:
    seen: set[str] = set()
    with service.running() as client:
        job = client.wait(client.submit(spec).id, lambda now: seen.add(now.status))
        assert job.status == "succeeded", job.error
        bundle = client.download(job.id, tmp_path / "bundle")
        report = client.report(job.id)
        events = [event.type for event in client.events(job.id)]
    assert sha256(bundle / WEIGHTS) == sha256(run_by_hand / WEIGHTS)
    assert (bundle / "config.json").read_bytes() == (run_by_hand / "config.json").read_bytes()
    assert "running" in seen
    assert events[:2] == ["job.queued", "job.started"]
    assert events[-1] == "job.succeeded"
    assert report.target.achieved <= 0.5
    files = json.loads((bundle / "manifest.json").read_text())["files"]
    assert {path: sha256(bundle / path) for path in files} == {path: entry["sha256"] for path, entry in files.items()}
    _verify_origin(service, bundle, tmp_path)
    assert not list((service.backend.data_dir / "scratch").iterdir())


def _verify_origin(service: Service, bundle: Path, tmp_path: Path) -> None:
    """The local profile signs with a key of its own; with a database of its own, a service without a key does not sign."""
    key = tmp_path / "key.pub"
    if service.backend.database_url:
        write_key(tmp_path, "key")
        with pytest.raises(OriginUnproven, match="not signed"):
            verify(bundle, key)
        return
    key.write_text(public_keys(Settings(data_dir=service.backend.data_dir))[0].pem)
    origin = verify(bundle, key)
    assert origin.statement is not None
    sources = origin.statement.predicate.build_definition.resolved_dependencies
    assert {"model/model.safetensors", "dataset/train.parquet"} <= {source.name for source in sources}
    assert all(source.digest for source in sources)


@on_local
def test_a_job_in_its_sandbox_reads_a_model_with_a_hook_an_adapter_and_a_list(
    backend: Backend, tmp_path: Path, tiny_bert: Path, tiny_sst2: Path
) -> None:
    """What has to be converted or cleaned before it is read is written by the job, which may make no links and read no more."""
    given = tmp_path / "given"
    shutil.copytree(tiny_bert, given / "model")
    config = json.loads((given / "model/config.json").read_text()) | {"auto_map": {"AutoConfig": "x.Y"}}
    (given / "model/config.json").write_text(json.dumps(config))
    (given / "tokens.txt").write_text("word59\n")
    options = {"task_type": "SEQ_CLS", "target_modules": ["query"]}
    write_adapter(given / "lora", tiny_bert, "AutoModelForSequenceClassification", **options)
    changes = {"adapter": str(given / "lora"), "vocabulary": str(given / "tokens.txt")}
    with Service(backend, tmp_path, given, tiny_sst2).running() as client:
        job = client.wait(client.submit(tiny_spec(given / "model", tiny_sst2, **changes)).id)
        assert job.status == "succeeded", job.error
        report = client.report(job.id)
    assert report.adapter is not None
    assert report.vocabulary is not None
    assert any("auto_map" in warning for warning in report.warnings)


@pytest.mark.long
def test_a_running_job_is_cancelled_once_its_process_is_gone(service: Service, long_spec: PruneSpec) -> None:
    with service.api() as client, service.worker() as worker:
        job = client.submit(long_spec)
        child = child_of(worker, job.id)
        assert client.cancel(job.id).status == "cancelling"
        ended = client.wait(job.id)
        assert ended.status == "cancelled"
        assert not child.is_running()
        assert client.artifacts(job.id) == []
        with pytest.raises(ApiError) as refused:
            client.report(job.id)
        assert refused.value.status == 404
    assert not (service.backend.data_dir / "artifacts" / "jobs" / job.id).exists()


@on_redis_postgres
def test_a_killed_process_is_replaced_under_a_new_fence(
    service: Service, spec: PruneSpec, run_by_hand: Path, tmp_path: Path
) -> None:
    with service.api() as client, service.worker() as worker:
        job = client.submit(spec)
        child_of(worker, job.id).send_signal(signal.SIGKILL)
        ended = client.wait(job.id)
        assert ended.status == "succeeded", ended.error
        bundle = client.download(job.id, tmp_path / "bundle")
    row = service.backend.row(job.id)
    assert (row["fence"], row["attempt"], row["crashes"], row["losses"]) == (2, 2, 1, 0)
    assert sha256(bundle / WEIGHTS) == sha256(run_by_hand / WEIGHTS)


@on_local
@pytest.mark.long
def test_a_job_that_keeps_killing_its_process_fails(service: Service, long_spec: PruneSpec) -> None:
    with service.api() as client, service.worker() as worker:
        job = client.submit(long_spec)
        killed: set[int] = set()
        while len(killed) < 3:
            child = child_of(worker, job.id)
            if child.pid not in killed:
                killed.add(child.pid)
                # A sandbox's process inside the killed one must not be taken for the next attempt's.
                family = [child, *child.children(recursive=True)]
                child.kill()
                psutil.wait_procs(family, timeout=60)
        ended = client.wait(job.id)
    assert ended.status == "failed"
    assert ended.error is not None
    assert ended.error.code == "crashed"
    assert service.backend.row(job.id)["crashes"] == 2  # the third is the failure itself


@pytest.mark.long
def test_a_lost_wake_up_is_made_good(service: Service, spec: PruneSpec) -> None:
    with service.api() as client:
        job = client.submit(spec)
        service.backend.empty_the_broker()
        with service.worker():
            assert client.wait(job.id).status == "succeeded"


@on_redis_postgres
def test_a_worker_that_is_told_to_stop_gives_its_job_back(service: Service, long_spec: PruneSpec) -> None:
    with service.api() as client:
        with service.worker() as worker:
            job = client.submit(long_spec)
            child = child_of(worker, job.id)
            began = time.monotonic()
        assert time.monotonic() - began < 20
        assert not child.is_running()
        row = service.backend.row(job.id)
        assert (row["status"], row["fence"], row["attempt"]) == ("queued", 1, 0)
        with service.worker() as successor:
            child_of(successor, job.id)
            wait_until(lambda: client.get(job.id).status == "running", "the job to run again")
            client.cancel(job.id)
            assert client.wait(job.id).status == "cancelled"


@on_redis_postgres
@pytest.mark.long
def test_a_killed_worker_takes_its_job_s_process_along(service: Service, spec: PruneSpec) -> None:
    with service.api() as client:
        with service.worker() as worker:
            job = client.submit(spec)
            child = child_of(worker, job.id)
            family = worker.children(recursive=True)
            for process in (worker, *(member for member in family if member.pid != child.pid)):
                process.kill()
            psutil.wait_procs([child], timeout=10)
            assert not child.is_running()
        with service.worker():
            assert client.wait(job.id).status == "succeeded"
    row = service.backend.row(job.id)
    assert (row["fence"], row["losses"], row["crashes"]) == (2, 1, 0)
