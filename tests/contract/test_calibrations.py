"""Calibrations over HTTP, on both databases: made, listed, named, derived from, freed, refused, and whose they are."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from app.jobs.calibrations import CalibrationRepository
from app.jobs.leases import LeaseRepository
from app.jobs.records import artifact_key
from app.jobs.states import JobStatus
from app.storage import StoredArtifact
from pruning_core.report.statistics import KeptReport, StatisticsReport
from tests.contract.conftest import Api
from tests.contract.problems import assert_problem

FOUND = StatisticsReport(pieces=(KeptReport(kind="scores", reused=False, seconds=1.5, bytes=100),))


def _asked(api: Api, **changes: Any) -> Any:
    return api.client.post("/v1/calibrations", json={k: v for k, v in api.body.items() if k != "sparsity"} | changes)


def _made(api: Api, **changes: Any) -> dict[str, Any]:
    answer = _asked(api, **changes)
    assert answer.status_code == 202, answer.text
    return answer.json()


def _keep(api: Api, size: int = 100, *, most_bytes: int | None = None) -> tuple[str, JobStatus | None]:
    """Finish the next job with one piece, as a worker would."""
    job_id, fence = api.claim()
    path = api.scratch / "piece"
    path.write_bytes(bytes(size))
    name = f"{'ab' * 32}.safetensors"
    stored = [StoredArtifact(name, *api.store.put(artifact_key(job_id, fence, name), path))]
    with api.database.write() as connection:
        ended = LeaseRepository(connection).keep(job_id, fence, found=FOUND, pieces=stored, most_bytes=most_bytes)
    return job_id, ended


def _read(api: Api, calibration_id: str) -> dict[str, Any]:
    return api.client.get(f"/v1/calibrations/{calibration_id}").json()


def test_a_calibration_is_a_job_with_a_list_of_its_own(api: Api) -> None:
    made = _made(api, priority=3, metadata={"run": "7"}, seed=5)
    assert made["id"].startswith("cal_")
    assert (made["object"], made["status"], made["kept"]) == ("pruning.calibration", "queued", False)
    assert made["spec"]["target"] is None
    assert (made["spec"]["seed"], made["priority"], made["metadata"]) == (5, 3, {"run": "7"})
    assert api.client.get("/v1/jobs").json()["data"] == []
    as_job = api.client.get(f"/v1/jobs/{made['id']}").json()
    assert (as_job["requested"], as_job["spec"]["target"]) == (None, None)
    job_id, ended = _keep(api)
    assert (job_id, ended) == (made["id"], JobStatus.SUCCEEDED)
    now = _read(api, job_id)
    assert (now["status"], now["kept"], now["size"], now["jobs_served"]) == ("succeeded", True, 100, 0)
    assert [own["kind"] for own in now["pieces"]] == ["scores"]
    events = api.client.get(f"/v1/jobs/{job_id}/events").json()["data"]
    assert [own["type"] for own in events] == ["job.queued", "job.started", "job.succeeded"]
    assert events[-1]["data"] == {"pieces": 1, "bytes": 100}
    assert api.client.delete(f"/v1/calibrations/{job_id}").status_code == 204
    assert_problem(api.client.get(f"/v1/calibrations/{job_id}"), 404, "calibration_not_found")
    assert api.store.keys("jobs", after="", limit=10) == []


def test_pages(api: Api) -> None:
    made = [_made(api)["id"] for _ in range(3)]
    first = api.client.get("/v1/calibrations?limit=2").json()
    second = api.client.get(f"/v1/calibrations?limit=2&after={first['next']}").json()
    assert [own["id"] for own in first["data"] + second["data"]] == made[::-1]
    assert (first["has_more"], second["has_more"]) == (True, False)
    assert_problem(api.client.get("/v1/calibrations?after=cal_0"), 422, "invalid_request")


def test_the_same_key_is_the_same_calibration_and_no_job(api_on_sqlite: Api) -> None:
    api, headers = api_on_sqlite, {"Idempotency-Key": "k"}
    body = {k: v for k, v in api.body.items() if k != "sparsity"}
    first, second = (api.client.post("/v1/calibrations", json=body, headers=headers).json() for _ in range(2))
    assert first["id"] == second["id"]
    assert_problem(api.client.post("/v1/jobs", json=api.body, headers=headers), 422, "idempotency_key_reused")


@pytest.mark.parametrize("name", ["sparsity", "target", "targets", "quality_floor", "validate_only"])
def test_what_is_asked_of_a_result_is_refused(api_on_sqlite: Api, name: str) -> None:
    value: Any = {"metric": "macs", "keep": 0.5}
    value = {"target": value, "targets": [value], "validate_only": True}.get(name, 0.5)
    answer = _asked(api_on_sqlite, **{name: value})
    assert answer.status_code == 422
    assert f"it takes no {name}" in answer.json()["detail"]


def test_a_job_names_a_calibration(api: Api) -> None:
    _made(api)
    calibration, _ = _keep(api)
    named = api.submit(calibration_id=calibration)
    assert api.client.get(f"/v1/jobs/{named}").json()["calibration_id"] == calibration
    assert (_read(api, calibration)["jobs_served"], _read(api, calibration)["jobs"]) == (1, [named])
    with api.database.write() as connection:
        claim = LeaseRepository(connection).claim(worker="test", lease_s=60)
        assert claim is not None
        assert claim.calibration == calibration
        assert len(CalibrationRepository(connection).pieces(calibration, owner="")) == 1
        assert CalibrationRepository(connection).pieces(calibration, owner="another") == []


def test_a_job_derived_from_a_calibration_names_it(api_on_sqlite: Api) -> None:
    api = api_on_sqlite
    _made(api)
    calibration, _ = _keep(api)
    made = api.client.post(f"/v1/jobs/{calibration}/derive", json={"target": {"metric": "macs", "keep": 0.4}}).json()
    assert (made["calibration_id"], made["requested"]["value"]) == (calibration, 0.4)
    again = api.client.post(f"/v1/jobs/{made['id']}/derive", json={"sparsity": 0.3}).json()
    assert again["calibration_id"] == calibration
    ordered = api.client.post(f"/jobs/{made['id']}/derive", data={"keep": "25", "once": "0" * 32}, follow_redirects=False)
    assert api.client.get(f"/v1{ordered.headers['location']}").json()["calibration_id"] == calibration
    assert api.client.delete(f"/v1/calibrations/{calibration}").status_code == 204
    later = api.client.post(f"/v1/jobs/{made['id']}/derive", json={"sparsity": 0.2})
    assert later.status_code == 202, later.text
    assert later.json()["calibration_id"] is None


def test_what_cannot_be_named_is_told(api_on_sqlite: Api) -> None:
    api = api_on_sqlite

    def refused(calibration_id: str, code: str, says: str, **changes: Any) -> None:
        answer = api.client.post("/v1/jobs", json=api.body | {"calibration_id": calibration_id} | changes)
        assert_problem(answer, 422, code)
        assert says in answer.json()["detail"]
        assert answer.json()["errors"][0]["pointer"] == "/calibration_id"

    refused("cal_0", "calibration_not_found", "there is no calibration")
    waiting = _made(api)["id"]
    refused(waiting, "calibration_not_ready", "is queued")
    calibration, _ = _keep(api)
    refused(calibration, "calibration_does_not_fit", "another seed", seed=9)
    refused(calibration, "calibration_does_not_fit", "another calibration", calibration={"samples": 64})
    refused(api.submit(), "calibration_not_found", "is a job and no calibration")
    with api.database.write() as connection:
        CalibrationRepository(connection).bring_within(10)
    refused(calibration, "calibration_freed", "calibrate again")
    assert (_read(api, calibration)["kept"], _read(api, calibration)["status"]) == (False, "succeeded")


def test_what_was_least_recently_used_makes_room_unless_a_job_needs_it(api: Api) -> None:
    def keep() -> tuple[str, JobStatus | None]:
        _made(api)
        time.sleep(0.02)
        return _keep(api, most_bytes=250)

    (first, _), (second, _) = keep(), keep()
    with api.database.write() as connection:
        CalibrationRepository(connection).pieces(first, owner="")
    third, ended = keep()
    assert ended is JobStatus.SUCCEEDED
    assert [_read(api, own)["kept"] for own in (first, second, third)] == [True, False, True]
    jobs = [api.client.post("/v1/jobs", json=api.body | {"calibration_id": own}).json()["id"] for own in (first, third)]
    for _job in jobs:
        api.claim()
    fourth, ended = keep()
    assert ended is JobStatus.FAILED, "what jobs that have not ended name does not go"
    assert _read(api, fourth)["error"]["code"] == "calibration_too_large"
    assert [_read(api, own)["kept"] for own in (first, third, fourth)] == [True, True, False]


def test_a_running_one_is_cancelled_before_it_is_deleted(api_on_sqlite: Api) -> None:
    api = api_on_sqlite
    calibration = _made(api)["id"]
    api.claim()
    assert_problem(api.client.delete(f"/v1/calibrations/{calibration}"), 409, "still_running")
    assert api.client.post(f"/v1/jobs/{calibration}/cancel").json()["status"] == "cancelling"


def test_a_job_is_no_calibration_and_many_jobs_are_none(api_on_sqlite: Api) -> None:
    api = api_on_sqlite
    assert_problem(api.client.get(f"/v1/calibrations/{api.submit()}"), 404, "calibration_not_found")
    calibration = _made(api)["id"]
    assert api.client.post("/v1/jobs/cancel", json={"all": True}).json()["changed"] == 1
    assert _read(api, calibration)["status"] == "queued"


def test_its_page_shows_no_result(make_api: Callable[..., Api], tmp_path: Path) -> None:
    api = make_api("")
    _made(api)
    calibration, _ = _keep(api)
    page = api.client.get(f"/jobs/{calibration}")
    assert page.status_code == 200
    assert "from_pretrained" not in page.text
    assert "Statistics" in page.text
