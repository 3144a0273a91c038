import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from unittest import mock

import pytest
import sqlalchemy as sa
import structlog
from fastapi.concurrency import run_in_threadpool
from openapi_spec_validator import validate
from starlette.testclient import TestClient
from structlog.testing import capture_logs

from app.api.health import report_unavailable
from app.db import Database
from app.jobs.leases import LeaseRepository
from app.jobs.models import jobs
from app.jobs.records import JobError
from app.jobs.upkeep import UpkeepRepository
from app.jobs.watching import JobWatcher
from app.main import create_app
from app.settings import Settings
from migrations import downgrade
from pruning_core.report.progress import Progress
from tests.contract.problems import assert_problem
from tests.servers import wait_until


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


def test_a_key_gives_one_job(api):
    headers = {"Idempotency-Key": "k1"}
    first = api.client.post("/v1/jobs", json=api.body, headers=headers)
    again = api.client.post("/v1/jobs", json=api.body, headers=headers)
    assert again.status_code == 202
    assert again.json()["id"] == first.json()["id"]
    other = api.client.post("/v1/jobs", json=api.body | {"seed": 9}, headers=headers)
    assert_problem(other, 422, "idempotency_key_reused")
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
    assert_problem(api.client.get("/v1/jobs", params={"after": "job_nope"}), 422, "invalid_request")
    assert_problem(api.client.get("/v1/jobs", params={"limit": 0}), 422, "invalid_request")
    assert_problem(api.client.get("/v1/jobs", params={"status": "lost"}), 422, "invalid_request")


def test_conditional_reads(api):
    job_id = api.submit()
    etag = api.client.get(f"/v1/jobs/{job_id}").headers["etag"]
    unchanged = api.client.get(f"/v1/jobs/{job_id}", headers={"If-None-Match": etag})
    assert (unchanged.status_code, unchanged.content) == (304, b"")
    api.client.post(f"/v1/jobs/{job_id}/cancel")
    changed = api.client.get(f"/v1/jobs/{job_id}", headers={"If-None-Match": etag})
    assert changed.status_code == 200
    assert changed.headers["etag"] != etag


def test_the_estimate_of_the_end_stands_still_between_two_tellings(api):
    job_id = api.submit()
    api.claim()
    assert api.client.get(f"/v1/jobs/{job_id}").json()["estimated_finish"] is None
    progress = Progress(stage="recover", step=1, total=2)
    with api.database.write() as connection:
        connection.execute(jobs.update().values(started_at=jobs.c.started_at - 60))
        LeaseRepository(connection).heartbeat(job_id, 1, lease_s=60, progress=progress)
    first = api.client.get(f"/v1/jobs/{job_id}").json()
    assert api.client.get(f"/v1/jobs/{job_id}").json() == first
    took = datetime.fromisoformat(first["estimated_finish"]) - datetime.fromisoformat(first["started_at"])
    assert 60 < took.total_seconds() * progress.fraction < 65
    long_ago = {name: jobs.c[name] - 900 for name in ("started_at", "progress_at")}
    with api.database.write() as connection:
        connection.execute(jobs.update().values(**long_ago))
    late = datetime.fromisoformat(api.client.get(f"/v1/jobs/{job_id}").json()["estimated_finish"])
    assert late > datetime.now(UTC), "a stage that takes longer than thought moves the end, and does not take it away"


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
    assert_problem(api.client.post(f"/v1/jobs/{done}/cancel"), 409, "already_finished")


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


def test_a_stream_ends_with_the_last_event_even_if_that_comes_between_two_looks(api, monkeypatch):
    job_id = api.submit()
    look, finished = JobWatcher.follow, []

    async def look_then_finish(watcher, *args, **kwargs):
        found = await look(watcher, *args, **kwargs)
        if not found.events and not finished:
            finished.append(await run_in_threadpool(api.succeed))
        return found

    monkeypatch.setattr(JobWatcher, "follow", look_then_finish)
    stream = api.client.get(f"/v1/jobs/{job_id}/events", headers={"accept": "text/event-stream"})
    assert _stream_types(stream.text)[-1] == "job.succeeded"


def test_a_finished_job_shows_its_result(api):
    job_id = api.submit()
    assert_problem(api.client.get(f"/v1/jobs/{job_id}/report"), 404, "report_not_ready")
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


def test_files_that_have_expired_are_gone_and_the_job_says_since_when(api):
    job_id = api.submit()
    api.succeed(keep_s=0.01)
    assert api.client.get(f"/v1/jobs/{job_id}").json()["expires_at"] is not None
    time.sleep(0.05)
    with api.database.write() as connection:
        assert UpkeepRepository(connection).expire() == [job_id]
    assert_problem(api.client.get(f"/v1/jobs/{job_id}/artifacts/model.safetensors"), 404, "artifact_expired")
    assert api.client.get(f"/v1/jobs/{job_id}").json()["artifacts"] == []
    assert api.client.get(f"/v1/jobs/{job_id}/report").status_code == 200


def test_the_queue_of_one_owner_has_an_end(api):
    settings = api.client.app.state.settings.model_copy(update={"max_queued_jobs": 3})
    with TestClient(create_app(settings)) as client, ThreadPoolExecutor(6) as pool:
        responses = list(pool.map(lambda _i: client.post("/v1/jobs", json=api.body), range(6)))
        assert sorted(response.status_code for response in responses) == [202, 202, 202, 429, 429, 429]
        refused = next(response for response in responses if response.status_code == 429)
        assert_problem(refused, 429, "quota_exceeded")
        assert int(refused.headers["retry-after"]) > 0
        api.claim()
        assert client.post("/v1/jobs", json=api.body).status_code == 202


def test_a_database_that_is_gone_is_a_503_with_retry_after(api):
    api.take_the_database_away()
    response = api.client.get("/v1/jobs")
    assert_problem(response, 503, "database_unavailable")
    assert response.headers["retry-after"]
    assert_problem(api.client.get("/readyz"), 503, "not_ready")
    assert api.client.get("/healthz").status_code == 200


def test_health(api):
    assert api.client.get("/healthz").json()["status"] == "ok"
    assert api.client.get("/readyz").json()["checks"] == {"database": "ok", "store": "ok", "broker": "ok"}


def test_what_is_out_of_reach_at_the_start_is_in_the_log_and_does_not_stop_it(api):
    settings = api.client.app.state.settings.model_copy(
        update={"database_url": "postgresql+psycopg://u:secret@127.0.0.1:1/d", "broker_url": "redis://127.0.0.1:1/0"}
    )
    with capture_logs() as logs, TestClient(create_app(settings)) as client:
        assert client.get("/healthz").status_code == 200
        response = client.get("/v1/jobs")
        assert_problem(response, 503, "database_unavailable")
        assert response.headers["retry-after"]
        wait_until(lambda: {line.get("part") for line in logs} >= {"database", "broker"}, "both to be in the log")
    said = [line for line in logs if line["event"] == "start.unavailable"]
    assert all(line["reason"] for line in said)
    assert "secret" not in str(logs)


def test_a_database_that_goes_during_the_look_at_its_room_is_in_the_log(api, monkeypatch):
    gone = sa.exc.OperationalError("SHOW max_connections", {}, Exception("terminating connection"))
    monkeypatch.setattr(Database, "room_for", mock.Mock(side_effect=gone))
    with capture_logs() as logs:
        report_unavailable(api.client.app.state)
    assert {line["part"] for line in logs if line["event"] == "start.unavailable"} == {"database"}


def test_a_database_that_was_never_migrated_is_not_ready(api):
    downgrade(api.database, "base")
    assert_problem(api.client.get("/readyz"), 503, "not_ready")


@pytest.mark.long
def test_without_a_broker_jobs_are_accepted_all_the_same(api):
    settings = Settings(
        data_dir=api.scratch / "data",
        database_url=api.database.url.render_as_string(hide_password=False),
        broker_url="redis://127.0.0.1:1/0",
        allowed_roots=(Path(api.body["model"]).parent, Path(api.body["data"]).parent),
    )
    with TestClient(create_app(settings)) as client:
        assert client.get("/readyz").json()["status"] == "degraded"
        began = time.monotonic()
        assert client.post("/v1/jobs", json=api.body).status_code == 202
        assert time.monotonic() - began < 5
    assert api.claim()


def test_an_error_of_our_own_shows_nothing_but_its_id(api):
    job_id = api.submit()
    with api.database.write() as connection:
        connection.execute(jobs.update().values(spec={"secret": "in the row"}))
    with capture_logs([structlog.contextvars.merge_contextvars]) as logs:
        response = api.client.get(f"/v1/jobs/{job_id}", headers={"X-Request-Id": "find-me"})
    assert_problem(response, 500, "internal")
    assert [(line["event"], line["request_id"]) for line in logs] == [("request.failed", "find-me")]
    assert response.headers["x-request-id"] == "find-me"
    assert "secret" not in response.text
    assert "Traceback" not in response.text


def test_a_full_disk_is_a_507_and_reading_goes_on(api_on_sqlite):
    api = api_on_sqlite
    job_id = api.submit()
    engine = api.client.app.state.database.engine
    with engine.connect() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
    sa.event.listen(engine, "begin", lambda connection: connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}"))
    responses = [api.client.post("/v1/jobs", json=api.body) for _ in range(40)]
    assert_problem(responses[-1], 507, "storage_full")
    assert api.client.get(f"/v1/jobs/{job_id}").status_code == 200


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
