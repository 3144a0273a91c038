"""The logs of real processes: JSON lines, each of a request with its id and each of a job with its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx2
import pytest

from coppice.client import Client
from tests.integration.service import Backend, Service
from tests.servers import new_database, postgres, wait_until
from tests.tiny import tiny_spec

_CELERY_S = "worker: Warm shutdown (MainProcess)"  # which it writes from its signal handler, past every logger


def _lines(path: Path) -> list[dict[str, Any]]:
    lines = [line for line in path.read_text().splitlines() if line]
    return [json.loads(line) for line in lines if line != _CELERY_S]


@pytest.mark.slow
@pytest.mark.long
def test_a_job_can_be_followed_from_request_to_result(tmp_path: Path, tiny_bert: Path, tiny_sst2: Path) -> None:
    backend = Backend("local", tmp_path / "data", "", "")
    service = Service(backend, tmp_path, tiny_bert, tiny_sst2, settings={"COPPICE_LOG_JSON": "true"})
    with service.running() as client:
        spec = tiny_spec(tiny_bert, tiny_sst2).model_dump(mode="json")
        made = httpx2.post(f"{service.url}/v1/jobs", json=spec, headers={"X-Request-Id": "nightly-7"})
        assert made.status_code == 202, made.text
        assert made.headers["x-request-id"] == "nightly-7"
        job_id = made.json()["id"]
        assert client.wait(job_id).status == "succeeded"
    accepted = [line for line in _lines(tmp_path / "api1.log") if line.get("job_id") == job_id]
    assert [(line["event"], line["request_id"]) for line in accepted] == [("job.accepted", "nightly-7")]
    followed = [line for line in _lines(tmp_path / "worker2.log") if line.get("job_id") == job_id]
    assert [line["event"] for line in followed] == ["job.claimed", "job.signed", "job.succeeded"]
    assert all(line["fence"] == 1 and line["timestamp"] and line["level"] == "info" for line in followed)


@pytest.mark.slow
@pytest.mark.long
def test_what_threads_say_of_a_job_names_it(tmp_path: Path, tiny_bert: Path, tiny_sst2: Path) -> None:
    with postgres() as server:
        backend = Backend("postgresql", tmp_path / "data", new_database(server.port), "")
        service = Service(backend, tmp_path, tiny_bert, tiny_sst2, settings={"COPPICE_LOG_JSON": "true"})
        with service.api() as client, service.worker():
            job_id = client.submit(tiny_spec(tiny_bert, tiny_sst2, latency={"repeats": 200})).id
            _running(client, job_id)
            server.stop()
            log = tmp_path / "worker2.log"
            wait_until(lambda: "lease.renewal_failed" in log.read_text(), "a renewal to fail")
            server.start()
            client.wait(job_id)
    failed = [line for line in _lines(log) if line["event"] == "lease.renewal_failed"]
    assert {line["job_id"] for line in failed} == {job_id}


def _running(client: Client, job_id: str) -> None:
    wait_until(lambda: client.get(job_id).status == "running", "the job to run")
