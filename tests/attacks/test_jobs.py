"""Attacks on a worker: each ends as a refusal or a failed job with a clear error, and the worker takes the next job."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.attacks.attack import JobAttack
from tests.attacks.catalogue.honest import Honest
from tests.attacks.catalogue.jobs import ATTACKS
from tests.attacks.target import SECRET, Target
from tests.attacks.test_api import row, unhealthy
from tests.attacks.wire import Answer
from tests.contract.archives import contents, packed
from tests.integration.service import child_of

WORKER = True
pytestmark = [pytest.mark.attack, pytest.mark.timeout(400)]


@pytest.mark.parametrize("attack", [pytest.param(own, id=own.name) for own in ATTACKS])
def test_it_ends_clearly_and_the_worker_goes_on(
    attack: JobAttack, target: Target, told: list[dict[str, Any]], tmp_path: Path
) -> None:
    honest = Honest(target, tmp_path)
    changes = attack.change(honest) or {}
    began = time.monotonic()
    text, ended_as, why = _run(attack, target, honest, changes)
    ended = time.monotonic()
    window = target.window(began, ended)
    if target.restart_if_silent():
        why.append("the API had to be started anew")
    if (leak := target.leaks(text)) is not None:
        why.append(f"what is told of it has {leak!r}")
    assert target.worker is not None
    if not target.worker.is_running() or target.worker.status() == psutil.STATUS_ZOMBIE:
        why.append("the worker is gone")
    why += unhealthy(window)
    told.append(row(attack.name, attack.row, ended_as, ended - began, window, why))
    assert not why, "; ".join(why)


def test_the_process_of_a_job_holds_no_secret(target: Target, told: list[dict[str, Any]]) -> None:
    """H6: read in a live child."""
    job = target.ask("POST", "/v1/jobs", target.spec(latency={"batch": 64, "length": 32, "repeats": 100}))
    assert job.status == 202, job.body
    assert target.worker is not None
    began = time.monotonic()
    child = child_of(target.worker, job.document["id"])
    environment = child.environ()
    target.ask("POST", f"/v1/jobs/{job.document['id']}/cancel")
    url = target.service.backend.database_url
    held = [name for name, value in environment.items() if SECRET in value or (url and url in value) or name in _SECRETS]
    why = [f"the child's environment has {', '.join(held)}"] if held else []
    told.append(
        row("secrets in a job's process", "H6", "read", time.monotonic() - began, target.window(began, time.monotonic()), why)
    )
    assert not why, why


def test_an_honest_job_succeeds_afterwards(target: Target) -> None:
    target.honest()
    job = target.ask("POST", "/v1/jobs", target.spec())
    assert _wait(target, job.document["id"], 120)["status"] == "succeeded"


_SECRETS = frozenset({"COPPICE_SECRET", "COPPICE_METRICS_TOKEN", "COPPICE_DATABASE_URL", "COPPICE_BROKER_URL", "HF_TOKEN"})


def _run(attack: JobAttack, target: Target, honest: Honest, changes: dict[str, Any]) -> tuple[bytes, str, list[str]]:
    """Upload and submit, and follow the job to its end.

    Returns:
        All that the API told, how it ended, and what was not as it should be.
    """
    told = b""
    ids: dict[str, str] = {}
    for kind, field, folder in (("models", "model", honest.model), ("datasets", "data", honest.data)):
        if field in changes:
            continue
        answer = target.upload(kind, packed(contents(folder)), timeout_s=60)
        told += answer.body
        if answer.status not in (200, 201):
            return told, f"upload {answer.status} {answer.code}", _judged(attack, answer)
        ids[field] = answer.document["id"]
    spec = target.spec(**ids | changes)
    if isinstance(spec["task"], dict):
        spec["task"] = spec["task"] | {"dataset": spec.pop("data")}
    answer = target.ask("POST", "/v1/jobs", spec, timeout_s=60)
    told += answer.body
    if answer.status != 202:
        return told, f"submit {answer.status} {answer.code}", _judged(attack, answer)
    job = _wait(target, answer.document["id"], attack.limit_s)
    for part in ("", "/events", "/report"):
        told += target.ask("GET", f"/v1/jobs/{job['id']}{part}").body
    error = job.get("error") or {}
    ended_as = f"{job['status']} {error.get('code', '')}".strip()
    if job["status"] not in attack.ends:
        return told, ended_as, [f"it ended as {ended_as}: {error.get('message', '')}"[:300]]
    if job["status"] == "failed" and error.get("code") not in attack.codes:
        return told, ended_as, [f"it failed with {error}"[:300]]
    return told, ended_as, []


def _judged(attack: JobAttack, answer: Answer) -> list[str]:
    """Judge a refusal before the job began."""
    allowed = attack.codes | {"upload_invalid", "upload_too_large", "invalid_request"} if attack.codes else frozenset[str]()
    if answer.status in (413, 422) and answer.code in allowed:
        return []
    return [f"{answer.status} {answer.code} {answer.body[:200]!r}"]


def _wait(target: Target, job_id: str, limit_s: float) -> dict[str, Any]:
    deadline = time.monotonic() + limit_s
    while True:
        job = target.ask("GET", f"/v1/jobs/{job_id}").document
        if job.get("status") in ("succeeded", "failed", "cancelled"):
            return job
        if time.monotonic() > deadline:
            target.ask("POST", f"/v1/jobs/{job_id}/cancel")
            return job | {"id": job_id, "status": f"still {job.get('status')}"}
        time.sleep(0.5)
