"""Calibrations through real processes: pieces in the store serve a fresh worker, and a killed one leaves nothing."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from coppice import Client
from pruning_core.report.report import Report
from pruning_core.spec.prune import PruneSpec
from tests.integration.service import Backend, Service, child_of, sha256
from tests.servers import wait_until
from tests.tiny import tiny_spec

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

WEIGHTS = "model.safetensors"


@pytest.fixture
def spec(tiny_bert: Path, tiny_sst2: Path) -> PruneSpec:
    return tiny_spec(tiny_bert, tiny_sst2)


def _weights(client: Client, job_id: str, folder: Path) -> str:
    done = client.wait(job_id)
    assert done.status == "succeeded", done.error
    return sha256(client.download(job_id, folder) / WEIGHTS)


def _reused(report: Report) -> list[bool]:
    assert report.statistics is not None
    return [own.reused for own in report.statistics.pieces]


@pytest.mark.long
def test_a_worker_without_statistics_finds_those_of_the_calibration(
    service: Service, backend: Backend, spec: PruneSpec, tmp_path: Path
) -> None:
    kept = backend.data_dir / "statistics"
    with service.running() as client:
        made = client.calibrate(spec)
        assert client.wait(made.id).status == "succeeded"
        known = client.calibration(made.id)
        assert known.kept
        assert known.size > 0
        asked = spec.model_dump(mode="json") | {"calibration_id": made.id}

        shutil.rmtree(kept)  # as on another host
        first = client.submit(asked)
        with_it = _weights(client, first.id, tmp_path / "with")
        assert all(_reused(client.report(first.id)))
        assert not any("calibration" in warning for warning in client.report(first.id).warnings)

        shutil.rmtree(kept)
        alone = client.submit(spec)
        assert _weights(client, alone.id, tmp_path / "alone") == with_it
        assert not any(_reused(client.report(alone.id)))

        shutil.rmtree(kept)
        pieces = sorted((backend.data_dir / "artifacts" / "jobs" / made.id).rglob("*.safetensors"))
        pieces[0].write_bytes(bytes(pieces[0].stat().st_size))
        pieces[1].unlink()
        third = client.submit(asked)
        assert _weights(client, third.id, tmp_path / "third") == with_it
        told = [warning for warning in client.report(third.id).warnings if made.id in warning]
        assert len(told) == 1
        assert "damaged" in told[0]
        assert "no longer in the artifact store" in told[0]
        assert client.calibration(made.id).jobs == [third.id, first.id]


@pytest.mark.long
@pytest.mark.parametrize("backend", ["local"], indirect=True)
def test_a_killed_calibration_leaves_nothing_and_its_retry_finishes(
    service: Service, backend: Backend, spec: PruneSpec
) -> None:
    with service.api() as client:
        made = client.calibrate(spec)
        with service.worker() as worker:
            child = child_of(worker, made.id)
            for victim in [worker, *worker.children(recursive=True)]:
                victim.kill()
            wait_until(lambda: not child.is_running() or child.status() == "zombie", "the child to be gone")
        assert not client.calibration(made.id).kept
        assert not list((backend.data_dir / "artifacts").rglob("*.safetensors"))
        with service.worker():
            assert client.wait(made.id).status == "succeeded"
        known = client.calibration(made.id)
        assert known.kept
        assert client.get(made.id).attempt == 2
