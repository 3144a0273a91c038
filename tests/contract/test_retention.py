"""Retention: off by default; where it is set, what is old goes, in bounded batches, and what is needed stays."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa

from app.audit.models import audit_events
from app.db import now
from app.jobs.models import artifacts, idempotency_keys, job_events, jobs
from app.operations.retention import Retention
from app.uploads.models import uploads
from app.webhooks.models import webhook_deliveries
from tests.contract.archives import TAR, contents, packed
from tests.contract.conftest import Api

HOUR = 3600.0


@pytest.fixture
def api(request: pytest.FixtureRequest, make_api: Callable[..., Api]) -> Api:
    return make_api("" if request.param == "sqlite" else request.getfixturevalue("postgres_url"), uploads_keep_s=HOUR)


pytestmark = pytest.mark.parametrize("api", ["sqlite", "postgresql"], indirect=True)


def retention(api: Api, **settings: float) -> Retention:
    state = api.client.app.state
    return Retention(state.settings.model_copy(update={"uploads_keep_s": None} | settings), api.database, api.store)


def change(api: Api, table: sa.Table, *where: sa.ColumnElement[bool], **values: object) -> None:
    with api.database.write() as connection:
        connection.execute(table.update().where(*where).values(**values))


def count(api: Api, table: sa.Table) -> int:
    with api.database.read() as connection:
        return connection.scalar(sa.select(sa.func.count()).select_from(table)) or 0


def test_by_default_nothing_is_ever_deleted(api: Api) -> None:
    api.submit()
    api.succeed()
    for table, column in ((jobs, "finished_at"), (job_events, "created_at"), (audit_events, "at")):
        change(api, table, **{column: 1.0})
    before = [count(api, table) for table in (jobs, job_events, artifacts, audit_events)]
    retention(api).sweep(for_s=5)
    assert [count(api, table) for table in (jobs, job_events, artifacts, audit_events)] == before


@pytest.mark.long
def test_jobs_that_ended_long_ago_go_whole(api: Api) -> None:
    old = [api.submit() for _ in range(45)]
    for _ in old:
        api.succeed()
    open_, young = api.submit(), api.submit()
    change(api, jobs, jobs.c.id.in_(old), finished_at=now() - 2 * HOUR)
    change(api, jobs, jobs.c.id == open_, created_at=1.0)
    retention(api, jobs_keep_s=HOUR).sweep(for_s=30)
    left = {job["id"] for job in api.client.get("/v1/jobs?limit=100").json()["data"]}
    assert left == {open_, young}
    assert (count(api, job_events), count(api, artifacts), count(api, idempotency_keys)) == (2, 0, 0)
    assert count(api, webhook_deliveries) == 0
    assert api.store.keys("jobs", after="", limit=9) == []


@pytest.mark.long
def test_without_time_nothing_is_done_and_with_little_one_batch(api: Api) -> None:
    for _ in range(25):
        api.submit()
        api.succeed()
    change(api, jobs, finished_at=now() - 2 * HOUR)
    retention(api, jobs_keep_s=HOUR).sweep(for_s=0)
    assert count(api, jobs) == 25
    retention(api, jobs_keep_s=HOUR)._old_jobs(HOUR)
    assert count(api, jobs) == 5


def test_old_events_go_where_their_job_has_ended(api: Api) -> None:
    open_, done = api.submit(priority=0), api.submit(priority=9)
    assert api.succeed() == done
    with api.database.write() as connection:
        many = [{"job_id": open_, "type": "job.stage", "data": {}, "created_at": 1.0} for _ in range(700)]
        connection.execute(job_events.insert(), many)
    again = api.submit()
    change(api, job_events, job_events.c.job_id == done, created_at=now() - 2 * HOUR)
    late = api.submit(priority=9)
    assert api.succeed() == late
    own = retention(api, events_keep_s=HOUR)
    own.sweep(for_s=30)
    kept = {job: len(api.client.get(f"/v1/jobs/{job}/events?limit=200").json()["data"]) for job in (open_, done, again, late)}
    assert kept == {open_: 200, done: 0, again: 1, late: 3}
    assert api.client.get(f"/v1/jobs/{done}").json()["status"] == "succeeded"
    change(api, job_events, job_events.c.job_id.in_([again, late]), created_at=now() - 2 * HOUR)
    own.sweep(for_s=30)  # behind 702 old events that stay
    assert api.client.get(f"/v1/jobs/{late}/events").json()["data"] == []


def test_old_lines_of_the_audit_log_go(api: Api) -> None:
    for _ in range(3):
        api.submit()
    with api.database.read() as connection:
        first = connection.scalar(sa.select(sa.func.min(audit_events.c.id)))
    change(api, audit_events, audit_events.c.id == first, at=now() - 2 * HOUR)
    retention(api, audit_keep_s=HOUR).sweep(for_s=5)
    assert [event["id"] for event in api.client.get("/v1/audit-events").json()["data"]] == [first + 2, first + 1]


def test_uploads_go_when_nobody_has_used_them_for_long(api: Api, tiny_bert: Path) -> None:
    files = contents(tiny_bert)
    archive = packed(files)
    upload = api.client.post("/v1/models", content=archive, headers=TAR).json()["id"]

    def aged() -> None:
        change(api, uploads, created_at=now() - 2 * HOUR, used_at=now() - 2 * HOUR)

    def swept() -> bool:
        retention(api, uploads_keep_s=HOUR).sweep(for_s=5)
        return api.client.get(f"/v1/models/{upload}").status_code == 404

    assert not swept(), "it is young"
    aged()
    assert api.client.post("/v1/models", content=archive, headers=TAR).status_code == 200
    assert not swept(), "it was sent again"
    aged()
    plan = api.client.post("/v1/jobs", json=api.body | {"model": upload, "validate_only": True})
    assert plan.status_code == 200
    assert not swept(), "a request named it"
    job = api.submit(model=upload)
    aged()
    assert not swept(), "a job that waits needs it"
    api.client.post(f"/v1/jobs/{job}/cancel")
    aged()
    assert swept()
    assert not (api.client.app.state.settings.resolved_uploads_dir / upload).exists()
