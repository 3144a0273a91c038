"""A service of today on the state of an earlier release, by real processes."""

from __future__ import annotations

import json
from pathlib import Path

import httpx2
import pytest
from huggingface_hub import HfApi, snapshot_download

from coppice import Client
from coppice.types import Job
from tests.integration.service import Service, sha256
from tests.servers import wait_until
from tests.upgrade.generation import Generation, OldState, every_generation
from tests.upgrade.product import PruneSpec
from tests.upgrade.receiver import receiving
from tests.upgrade.service_checks import check_answers, check_repeats

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

TENANTS = ("acme", "globex")


@every_generation
@pytest.mark.long
def test_it_answers_what_was_answered(old: Generation, tmp_path: Path) -> None:
    state = old.restore_local(tmp_path)
    checkpoints = old.checkpoints(tmp_path)
    service = Service(state.backend, tmp_path, tmp_path / "bundles", tmp_path / "inputs", settings=state.settings)
    with service.api() as client:
        check_answers(state, service.url, "")
        check_repeats(state, service.url, old, "")
        for job in ("succeeded", "missed"):
            _check_files(client, client.get(state.record["jobs"][job]), tmp_path / job)
        _check_hub(f"{service.url}/hub", state, tmp_path)
        for body in (state.record["next"], *(body for own in checkpoints for body in own["taken_by"])):
            assert client.plan(body).predicted is not None, body["model"]
    methods = [PruneSpec.model_validate(body).method.name for own in checkpoints for body in own["taken_by"]]
    assert {"fisher-cg", "admm-pattern", "block-lasso"} <= set(methods)


@every_generation
@pytest.mark.long
def test_keys_open_what_they_opened(old: Generation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _check_tenants(old, old.restore_local(tmp_path), tmp_path, monkeypatch)


@every_generation
@pytest.mark.long
def test_a_dump_of_postgresql_is_served(
    old: Generation, tmp_path: Path, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = old.restore_production(tmp_path, postgres_url)
    service = Service(state.backend, tmp_path, settings=state.settings)
    with service.api():
        check_answers(state, service.url, "")
    _check_tenants(old, state, tmp_path, monkeypatch)


@every_generation
def test_work_goes_on(old: Generation, tmp_path: Path) -> None:
    with receiving() as receiver:
        state = old.restore_local(tmp_path, receiver.url)
        jobs = state.record["jobs"]
        service = Service(state.backend, tmp_path, settings=state.settings)
        with service.api() as client, service.worker(), service.worker():
            retried = client.retry(jobs["timeout"])
            assert (retried.status, retried.error) == ("queued", None)
            new = client.submit(state.record["next"], job_id="after-the-upgrade")
            for job in (jobs["queued"], jobs["timeout"], new.id):
                ended = client.wait(job)
                assert ended.status == "succeeded", (job, ended.error)
                _check_files(client, ended, tmp_path / job)
            assert client.wait(jobs["cancelling"]).status == "cancelled"
            uploaded = state.backend.data_dir / "artifacts" / "uploads" / state.record["uploads"]["bundle"]
            left = json.loads((uploaded / "report.json").read_text())["parameters"]["pruned"]
            assert client.report(new.id).parameters.dense == left
            for job in (jobs["queued"], jobs["timeout"], new.id, jobs["cancelling"]):
                wait_until(lambda job=job: receiver.has_heard_of(job), f"a message about {job}")
            wait_until(lambda: not list(tmp_path.glob("coppice-data/scratch/*")), "what the killed worker left to be gone")
            wait_until(lambda: state.backend.messages() == 0, "the old messages of the broker to be taken")
    receiver.check(state.record["webhook"])


def _check_tenants(old: Generation, state: OldState, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COPPICE_API_KEY", state.record["keys"]["acme"]["key"])
    service = Service(state.backend, folder, settings=state.settings | {"COPPICE_AUTH": "true"})
    with service.api():
        check_answers(state, service.url, *TENANTS, "operator")
        check_repeats(state, service.url, old, *TENANTS)
        refused = httpx2.get(f"{service.url}/v1/jobs", headers=state.headers("revoked"))
        assert refused.status_code == 401
        for who, other in (TENANTS, TENANTS[::-1]):
            theirs = next(own["job"]["id"] for own in state.record["requests"] if (own["who"], own["how"]) == (other, "POST"))
            hidden = httpx2.get(f"{service.url}/v1/jobs/{theirs}", headers=state.headers(who))
            assert hidden.status_code == 404


def _check_files(client: Client, job: Job, folder: Path) -> None:
    """Download a bundle; its files are those that the service says, and so is the page of its report."""
    assert job.artifacts
    bundle = client.download(job.id, folder)
    assert {own.path: own.sha256 for own in job.artifacts} == {
        str(path.relative_to(bundle)): sha256(path) for path in bundle.rglob("*") if path.is_file()
    }
    assert client.report_page(job.id) == (bundle / "report.html").read_text()


def _check_hub(endpoint: str, state: OldState, folder: Path) -> None:
    """Download by the Hub's own library: the revision is that of before, so that what is in people's caches stays good."""
    job = state.record["jobs"]["succeeded"]
    said = next(own["body"] for own in state.record["answers"] if own["path"] == f"/hub/api/models/jobs/{job}")
    assert HfApi(endpoint=endpoint, token=False).model_info(f"jobs/{job}").sha == said["sha"]
    snapshot = Path(snapshot_download(f"jobs/{job}", endpoint=endpoint, cache_dir=folder / "hub", token=False))
    assert snapshot.name == said["sha"]
    files = {own["rfilename"] for own in said["siblings"]}
    assert {str(path.relative_to(snapshot)) for path in snapshot.rglob("*") if path.is_file()} == files
    assert all(sha256(snapshot / name) == sha256(folder / "succeeded" / name) for name in files)
