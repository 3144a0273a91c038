import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from openapi_spec_validator import validate

from app.jobs.records import JobError


def _problem(response, status, code):
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    body = response.json()
    assert set(body) == {"type", "title", "status", "detail", "instance", "code", "errors"}
    assert (body["status"], body["code"]) == (status, code)
    assert body["detail"]
    return body


def test_the_application_loads_no_torch():
    code = "import app.main, sys; print([m for m in ('torch', 'transformers', 'numpy', 'worker') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_submit_answers_with_the_job_and_where_it_is(api):
    response = api.client.post("/v1/jobs", json=api.body | {"metadata": {"run": "7"}, "priority": 3})
    assert response.status_code == 202
    job = response.json()
    assert response.headers["location"] == f"/v1/jobs/{job['id']}"
    assert int(response.headers["retry-after"]) > 0
    assert (job["object"], job["status"], job["attempt"]) == ("pruning.job", "queued", 0)
    assert (job["metadata"], job["priority"]) == ({"run": "7"}, 3)
    assert job["requested"] == {"metric": "sparsity", "value": 0.5, "tolerance": 0.01}
    assert api.client.get(f"/v1/jobs/{job['id']}").json() == job


@pytest.mark.parametrize(
    ("change", "pointer", "says"),
    [
        ({"sparsity": 0}, "/sparsity", "sparsity must be > 0 and < 1, got 0"),
        ({"sparsity": 1}, "/sparsity", "sparsity must be > 0 and < 1, got 1"),
        ({"sparsity": 1.5}, "/sparsity", "sparsity must be > 0 and < 1, got 1.5"),
        ({"sparsity": -1}, "/sparsity", "sparsity must be > 0 and < 1, got -1"),
        ({"sparsity": "half"}, "/sparsity", "sparsity must be a number > 0 and < 1, got a str"),
        ({"sparsity": float("nan")}, "/sparsity", "sparsity must be > 0 and < 1, got nan"),
        ({"method": "prune-harder"}, "/method", "unknown method; known methods are fisher-cg"),
        ({"method": {"name": "fisher-cg", "rearange": True}}, "/method/rearange", "rearange is no known field"),
        ({"task": "glue/nothing"}, "/task", "unknown task; known names are glue/cola"),
        ({"model": "no spaces please"}, "/model", "must be a Hub id such as org/name"),
        ({"model": "../up"}, "/model", "a path must be absolute"),
        ({"model": "/etc"}, "/model", "COPPICE_ALLOWED_ROOTS"),
        ({"data": "/etc"}, "/task/dataset", "COPPICE_ALLOWED_ROOTS"),
        ({"sparcity": 0.5}, "/sparcity", "sparcity is no known field"),
        ({"calibration": {"samples": 1}}, "/calibration/samples", "greater than or equal to 8"),
        ({"metadata": {"a b": "c"}}, "/metadata/a b", "should match pattern"),
        ({"priority": 10}, "/priority", "less than or equal to 9"),
        ({"sparsity": 0.99}, "/target/sparsity", "of the prunable weights can be removed"),
    ],
)
def test_bad_specs_are_refused_with_the_place_and_the_remedy(api, change, pointer, says):
    response = api.client.post("/v1/jobs", content=json.dumps(api.body | change), headers={"content-type": "application/json"})
    assert response.status_code == 422
    body = response.json()
    assert [error["pointer"] for error in body["errors"]] == [pointer], body
    assert says in body["errors"][0]["message"]
    assert str(api.scratch) not in response.text


def test_links_out_of_the_allowed_roots_are_refused(api, tmp_path):
    link = Path(api.body["model"]).parent / f"link-{tmp_path.name}"
    link.symlink_to("/etc")
    body = _problem(api.client.post("/v1/jobs", json=api.body | {"model": str(link)}), 422, "path_not_allowed")
    assert body["errors"][0]["pointer"] == "/model"


def test_unreadable_models_and_data_are_refused_at_submit(api, tiny_sst2):
    root = api.body["model"].rpartition("/")[0]
    _problem(api.client.post("/v1/jobs", json=api.body | {"model": f"{root}/none"}), 422, "model_unreadable")
    _problem(api.client.post("/v1/jobs", json=api.body | {"model": str(tiny_sst2)}), 422, "model_unreadable")
    _problem(api.client.post("/v1/jobs", json=api.body | {"data": root}), 422, "dataset_invalid")


@pytest.mark.parametrize(
    ("content", "status", "code"),
    [
        (b'{"model":', 400, "invalid_json"),
        (b"", 422, "invalid_request"),
        (b"[]", 422, "invalid_request"),
        (b'"text"', 422, "invalid_request"),
        (b'"\xff\xfe"', 400, "malformed_request"),
        (b"[" * 100_000, 400, "malformed_request"),
        (b"x" * 10_000_000, 413, "body_too_large"),
    ],
)
def test_bad_bodies_are_clean_problems(api, content, status, code):
    _problem(api.client.post("/v1/jobs", content=content, headers={"content-type": "application/json"}), status, code)


def test_bodies_without_a_length_are_bounded_too(api):
    chunks = (b"x" * 10_000 for _ in range(1000))
    response = api.client.post("/v1/jobs", content=chunks, headers={"content-type": "application/json"})
    _problem(response, 413, "body_too_large")


def test_other_media_types_are_refused(api):
    _problem(api.client.post("/v1/jobs", data={"model": "a"}), 415, "unsupported_media_type")


def test_unknown_things_are_problems(api):
    _problem(api.client.get("/v1/jobs/job_nope"), 404, "job_not_found")
    _problem(api.client.get("/v1/jobs/job_nope/events"), 404, "job_not_found")
    _problem(api.client.get("/v1/jobs/job_nope/events", headers={"accept": "text/event-stream"}), 404, "job_not_found")
    _problem(api.client.post("/v1/jobs/job_nope/cancel"), 404, "job_not_found")
    _problem(api.client.get("/v1/jobs/job_nope/artifacts"), 404, "job_not_found")
    _problem(api.client.get("/v1/jobs/job_nope/report"), 404, "job_not_found")
    _problem(api.client.get("/nothing"), 404, "not_found")
    _problem(api.client.delete("/v1/jobs"), 405, "method_not_allowed")


def test_a_key_gives_one_job(api):
    headers = {"Idempotency-Key": "k1"}
    first = api.client.post("/v1/jobs", json=api.body, headers=headers)
    again = api.client.post("/v1/jobs", json=api.body, headers=headers)
    assert again.status_code == 202
    assert again.json()["id"] == first.json()["id"]
    other = api.client.post("/v1/jobs", json=api.body | {"seed": 9}, headers=headers)
    _problem(other, 422, "idempotency_key_reused")
    assert len(api.client.get("/v1/jobs").json()["data"]) == 1


def test_a_key_gives_one_job_to_clients_that_race(api):
    ids = []

    def submit():
        ids.append(api.client.post("/v1/jobs", json=api.body, headers={"Idempotency-Key": "k"}).json()["id"])

    threads = [threading.Thread(target=submit) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ids) == 6
    assert len(set(ids)) == 1


def test_lists_go_page_by_page_without_gaps_or_repeats(api):
    submitted = []
    for _ in range(5):
        submitted.append(api.submit())
        time.sleep(0.003)
    seen, after = [], None
    while True:
        page = api.client.get("/v1/jobs", params={"limit": 2} | ({"after": after} if after else {})).json()
        seen += [job["id"] for job in page["data"]]
        after = page["next"]
        if not page["has_more"]:
            break
    assert seen == submitted[::-1]
    api.client.post(f"/v1/jobs/{submitted[0]}/cancel")
    cancelled = api.client.get("/v1/jobs", params={"status": "cancelled"}).json()["data"]
    assert [job["id"] for job in cancelled] == [submitted[0]]
    _problem(api.client.get("/v1/jobs", params={"after": "job_nope"}), 422, "invalid_request")
    _problem(api.client.get("/v1/jobs", params={"limit": 0}), 422, "invalid_request")
    _problem(api.client.get("/v1/jobs", params={"status": "lost"}), 422, "invalid_request")


def test_conditional_reads(api):
    job_id = api.submit()
    etag = api.client.get(f"/v1/jobs/{job_id}").headers["etag"]
    unchanged = api.client.get(f"/v1/jobs/{job_id}", headers={"If-None-Match": etag})
    assert (unchanged.status_code, unchanged.content) == (304, b"")
    api.client.post(f"/v1/jobs/{job_id}/cancel")
    changed = api.client.get(f"/v1/jobs/{job_id}", headers={"If-None-Match": etag})
    assert changed.status_code == 200
    assert changed.headers["etag"] != etag


def test_waiting_ends_with_the_change(api):
    job_id = api.submit()
    timer = threading.Timer(0.6, lambda: api.client.post(f"/v1/jobs/{job_id}/cancel"))
    timer.start()
    began = time.monotonic()
    response = api.client.get(f"/v1/jobs/{job_id}", headers={"Prefer": "wait=20"})
    assert response.json()["status"] == "cancelled"
    assert 0.5 < time.monotonic() - began < 10
    assert response.headers["preference-applied"] == "wait=20"
    timer.join()


def test_waiting_ends_without_a_change(api):
    job_id = api.submit()
    etag = api.client.get(f"/v1/jobs/{job_id}").headers["etag"]
    response = api.client.get(f"/v1/jobs/{job_id}", headers={"Prefer": "wait=1", "If-None-Match": etag})
    assert response.status_code == 304


def test_cancelling(api):
    queued = api.submit()
    assert api.client.post(f"/v1/jobs/{queued}/cancel").json()["status"] == "cancelled"
    running = api.submit()
    api.claim()
    response = api.client.post(f"/v1/jobs/{running}/cancel")
    assert (response.status_code, response.json()["status"]) == (202, "cancelling")
    assert api.client.post(f"/v1/jobs/{running}/cancel").status_code == 202
    api.submit()
    done = api.succeed()
    _problem(api.client.post(f"/v1/jobs/{done}/cancel"), 409, "already_finished")


def test_events_as_list_and_as_stream(api):
    job_id = api.submit()
    api.succeed()
    listed = api.client.get(f"/v1/jobs/{job_id}/events").json()
    assert [event["type"] for event in listed["data"]] == ["job.queued", "job.started", "job.succeeded"]
    stream = api.client.get(f"/v1/jobs/{job_id}/events", headers={"accept": "text/event-stream"})
    assert stream.headers["content-type"].startswith("text/event-stream")
    assert _stream_types(stream.text) == ["job.queued", "job.started", "job.succeeded"]
    first = str(listed["data"][0]["id"])
    headers = {"accept": "text/event-stream", "last-event-id": first}
    resumed = api.client.get(f"/v1/jobs/{job_id}/events", headers=headers)
    assert _stream_types(resumed.text) == ["job.started", "job.succeeded"]
    page = api.client.get(f"/v1/jobs/{job_id}/events", params={"limit": 2}).json()
    assert page["has_more"]
    rest = api.client.get(f"/v1/jobs/{job_id}/events", params={"after": page["next"]}).json()
    assert [event["type"] for event in rest["data"]] == ["job.succeeded"]


def _stream_types(text):
    return [line.removeprefix("event: ") for line in text.splitlines() if line.startswith("event: ")]


def test_a_stream_follows_a_living_job(api):
    job_id = api.submit()
    timer = threading.Timer(0.5, api.succeed)
    timer.start()
    stream = api.client.get(f"/v1/jobs/{job_id}/events", headers={"accept": "text/event-stream"})
    assert _stream_types(stream.text)[-1] == "job.succeeded"
    timer.join()


def test_a_finished_job_shows_its_result(api):
    job_id = api.submit()
    _problem(api.client.get(f"/v1/jobs/{job_id}/report"), 404, "report_not_ready")
    api.succeed()
    job = api.client.get(f"/v1/jobs/{job_id}").json()
    assert job["status"] == "succeeded"
    assert job["achieved"]["achieved"] == 0.501
    assert job["metrics"]["latency_ms"]["speedup"] == 2.0
    assert "cancel" not in job["links"]
    assert {artifact["path"] for artifact in job["artifacts"]} == {"model.safetensors", "1_Pooling/config.json", "empty.txt"}
    assert api.client.get(job["links"]["report"]).json()["sparsity"] == {"achieved": 0.501}


def test_a_failed_job_says_why(api):
    job_id = api.submit()
    api.fail(JobError("dataset_invalid", "no usable row", "task.dataset"))
    job = api.client.get(f"/v1/jobs/{job_id}").json()
    assert job["status"] == "failed"
    assert job["error"] == {"code": "dataset_invalid", "message": "no usable row", "param": "task.dataset"}


def test_a_database_that_is_gone_is_a_503_with_retry_after(api):
    api.database.close()
    for path in api.scratch.glob("data/coppice.db*"):
        path.unlink()
    (api.scratch / "data" / "coppice.db").mkdir()
    api.client.app.state.database.close()
    response = api.client.get("/v1/jobs")
    _problem(response, 503, "database_unavailable")
    assert response.headers["retry-after"]
    _problem(api.client.get("/readyz"), 503, "not_ready")
    assert api.client.get("/healthz").status_code == 200


def test_health(api):
    assert api.client.get("/healthz").json()["status"] == "ok"
    assert api.client.get("/readyz").json()["checks"] == {"database": "ok", "store": "ok", "broker": "ok"}


def test_request_ids_come_back_when_they_are_harmless(api):
    assert api.client.get("/healthz", headers={"X-Request-Id": "abc-1"}).headers["x-request-id"] == "abc-1"
    assert api.client.get("/healthz", headers={"X-Request-Id": "a b\tc"}).headers["x-request-id"] != "a b\tc"


def test_the_openapi_document_is_valid_and_its_operations_are_named(api):
    document = api.client.get("/openapi.json").json()
    validate(document)
    names = [op["operationId"] for path in document["paths"].values() for op in path.values()]
    assert len(names) == len(set(names))
    assert {
        "createJob",
        "listJobs",
        "getJob",
        "cancelJob",
        "listEvents",
        "listArtifacts",
        "downloadArtifact",
        "getReport",
    } <= set(names)
