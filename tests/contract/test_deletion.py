"""Deletion of jobs: what is gone, what stays, who may, and what a crash in the middle leaves."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading

import pytest
import sqlalchemy as sa

from app.jobs.leases import LeaseRepository
from app.jobs.records import JobError
from app.queue import create_celery
from app.storage import StoreUnavailable
from tests.contract.conftest import Api
from tests.contract.problems import assert_problem
from worker.reaper import Reaper

TABLES = ("jobs", "job_events", "artifacts", "idempotency_keys", "webhook_deliveries")


def rows(api: Api) -> dict[str, int]:
    with api.database.read() as connection:
        return {table: connection.exec_driver_sql(f"SELECT count(*) FROM {table}").scalar_one() for table in TABLES}


def finished(api: Api, key: str) -> str:
    answer = api.client.post("/v1/jobs", json=api.body, headers={"Idempotency-Key": key})
    assert answer.status_code == 202
    assert api.succeed() == answer.json()["id"]
    return answer.json()["id"]


@pytest.fixture
def hook(api: Api) -> str:
    return api.client.post("/v1/webhooks", json={"url": "https://example.org/hook"}).json()["id"]


def test_nothing_of_a_deleted_job_is_left_and_all_of_the_others(api: Api, hook: str) -> None:
    stays = finished(api, "stays")
    before = rows(api)
    assert min(before.values()) > 0, before
    goes = finished(api, "goes")
    assert api.client.delete(f"/v1/jobs/{goes}").status_code == 204
    assert rows(api) == before
    assert api.store.keys(f"jobs/{goes}", after="", limit=10) == []
    assert len(api.store.keys(f"jobs/{stays}", after="", limit=10)) == 3
    for path in ("", "/events", "/artifacts", "/report", "/download", "/artifacts/model.safetensors"):
        assert_problem(api.client.get(f"/v1/jobs/{goes}{path}"), 404, "job_not_found")
    assert_problem(api.client.delete(f"/v1/jobs/{goes}"), 404, "job_not_found")
    assert [job["id"] for job in api.client.get("/v1/jobs").json()["data"]] == [stays]
    audit = api.client.get("/v1/audit-events").json()["data"][0]
    assert (audit["action"], audit["subject"]) == ("job.deleted", goes)


def test_an_id_and_a_key_are_free_again(api: Api) -> None:
    first = finished(api, "k")
    api.client.delete(f"/v1/jobs/{first}")
    again = api.client.post("/v1/jobs", json=api.body | {"seed": 7}, headers={"Idempotency-Key": "k"})
    assert (again.status_code, again.json()["id"] != first) == (202, True)
    api.client.put("/v1/jobs/nightly", json=api.body)
    assert api.client.delete("/v1/jobs/nightly").status_code == 204
    assert api.client.put("/v1/jobs/nightly", json=api.body | {"seed": 8}).status_code == 202


def test_a_running_job_is_refused_and_a_waiting_one_is_not(api: Api) -> None:
    running = api.submit()
    _id, fence = api.claim()
    problem = assert_problem(api.client.delete(f"/v1/jobs/{running}"), 409, "still_running")
    assert "cancel it" in problem["detail"]
    api.client.post(f"/v1/jobs/{running}/cancel")
    assert_problem(api.client.delete(f"/v1/jobs/{running}"), 409, "still_running")
    waiting = api.submit()
    assert api.client.delete(f"/v1/jobs/{waiting}").status_code == 204
    with api.database.write() as connection:
        assert LeaseRepository(connection).confirm_cancelled(running, fence)
    assert api.client.delete(f"/v1/jobs/{running}").status_code == 204
    assert rows(api)["jobs"] == 0


def test_a_worker_that_lost_the_job_commits_nothing(api: Api) -> None:
    job = api.submit()
    _id, fence = api.claim()
    with api.database.write() as connection:
        assert LeaseRepository(connection).release(job, fence)
    assert api.client.delete(f"/v1/jobs/{job}").status_code == 204
    with api.database.write() as connection:
        leases = LeaseRepository(connection)
        assert leases.heartbeat(job, fence, lease_s=9, progress=None) is None
        assert leases.fail(job, fence, error=JobError("crashed", "late")) is None
        assert leases.crashed(job, fence, error=JobError("crashed", "late"), max_attempts=3) is None
    assert rows(api)["job_events"] == 0


def test_a_claim_and_a_deletion_at_once_agree(api: Api) -> None:
    for _ in range(10):
        job, answers = api.submit(), list[int]()

        def delete(job: str = job, answers: list[int] = answers) -> None:
            answers.append(api.client.delete(f"/v1/jobs/{job}").status_code)

        thread = threading.Thread(target=delete)
        thread.start()
        with api.database.write() as connection:
            claim = LeaseRepository(connection).claim(worker="test", lease_s=60)
        thread.join()
        assert (answers == [409]) == (claim is not None)
        if claim is not None:
            with api.database.write() as connection:
                assert LeaseRepository(connection).fail(job, claim.fence, error=JobError("crashed", "it crashed"))
            assert api.client.delete(f"/v1/jobs/{job}").status_code == 204
    assert rows(api)["jobs"] == 0


def reaper_of(api: Api) -> Reaper:
    settings = api.client.app.state.settings
    return Reaper(settings, api.database, api.store, create_celery(settings))


def test_files_that_a_store_would_not_delete_are_swept(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    job = finished(api, "k")

    def away(_prefix: str) -> None:
        raise StoreUnavailable("it is away")

    with monkeypatch.context() as patch:
        patch.setattr(api.client.app.state.store, "delete_prefix", away)
        assert api.client.delete(f"/v1/jobs/{job}").status_code == 204
    assert len(api.store.keys(f"jobs/{job}", after="", limit=10)) == 3
    reaper_of(api).sweep()
    assert api.store.keys("jobs", after="", limit=10) == []


KILLED = """
import os, signal, sys
import sqlalchemy as sa
from app.db import Database
from app.jobs.deletion import JobDeletion
from app.keys.records import Caller
from app.settings import Settings
from app.storage import create_store

url, data, job, point = sys.argv[1:]
settings = Settings(data_dir=data, database_url=url)
database, store = Database(url), create_store(settings)
die = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
if point == "before the commit":
    sa.event.listen(database.engine, "commit", die)
elif point == "before the files":
    store.delete_prefix = die
else:
    import shutil
    whole = shutil.rmtree
    def half(folder, **options):
        next(path for path in folder.rglob("*") if path.is_file()).unlink()
        die()
    shutil.rmtree = half
JobDeletion(database, store).delete(job, caller=Caller())
"""


@pytest.mark.parametrize("point", ["before the commit", "before the files", "among the files"])
def test_killed_in_the_middle_the_job_is_whole_or_gone(api: Api, hook: str, point: str) -> None:
    job = finished(api, "k")
    before = rows(api)
    arguments = [api.database.url.render_as_string(hide_password=False), str(api.scratch / "data"), job, point]
    done = subprocess.run([sys.executable, "-c", KILLED, *arguments], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == -signal.SIGKILL, done.stderr
    gone = point != "before the commit"
    assert rows(api) == (dict.fromkeys(TABLES, 0) if gone else before)
    assert (api.client.get(f"/v1/jobs/{job}").status_code == 404) == gone
    reaper_of(api).sweep()
    left = api.store.keys("jobs", after="", limit=10)
    assert len(left) == (0 if gone else 3)
    if not gone:
        assert api.client.get(f"/v1/jobs/{job}/artifacts/model.safetensors").status_code == 200
        assert api.client.delete(f"/v1/jobs/{job}").status_code == 204
    with api.database.read() as connection:
        deleted = sa.text("SELECT count(*) FROM audit_events WHERE action = 'job.deleted'")
        assert connection.scalar(deleted) == 1


def test_a_stream_of_a_deleted_job_ends(api: Api) -> None:
    job = api.submit()
    told = list[str]()

    def follow() -> None:
        with api.client.stream("GET", f"/v1/jobs/{job}/events", headers={"Accept": "text/event-stream"}) as answer:
            told.extend(answer.iter_lines())

    thread = threading.Thread(target=follow)
    thread.start()
    assert api.client.delete(f"/v1/jobs/{job}").status_code == 204
    thread.join(20)
    assert not thread.is_alive()


def test_people_delete_on_the_page(api_on_sqlite: Api) -> None:
    api = api_on_sqlite
    running = api.submit()
    assert "/delete" not in api.client.get(f"/jobs/{running}").text
    api.claim()
    assert "/delete" not in api.client.get(f"/jobs/{running}").text
    refused = api.client.post(f"/jobs/{running}/delete")
    assert (refused.status_code, "cancel it" in refused.text) == (409, True)
    done = finished(api, "k")
    assert f'action="/jobs/{done}/delete"' in api.client.get(f"/jobs/{done}").text
    answer = api.client.post(f"/jobs/{done}/delete", follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    assert api.client.get(f"/jobs/{done}").status_code == 404
