"""Deletion of a tenant: all of it and nothing of others, while its jobs run, through crashes."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from app.jobs.arrivals import NewJob
from app.jobs.intake import Arrival, Intake
from app.jobs.leases import LeaseRepository
from app.jobs.rules import RuleService
from app.jobs.schemas import JobCreate
from app.keys.records import Caller, Scope
from app.queue import create_celery
from app.refusals import Conflict
from tests.contract.archives import TAR, contents, packed
from tests.contract.conftest import Api
from tests.contract.problems import assert_problem
from worker.reaper import Reaper

BOTH = frozenset({Scope.JOBS_READ, Scope.JOBS_WRITE})
TABLES = ("jobs", "webhooks", "api_keys", "uploads", "tenants", "turns", "audit_events")


@pytest.fixture
def make_api(make_api: Callable[..., Api]) -> Callable[..., Api]:
    return lambda url: make_api(url, auth=True, secret="s" * 40)


def key(api: Api, owner: str, *scopes: Scope) -> dict[str, str]:
    made = api.client.app.state.keys.create(
        owner=owner, name="", scopes=frozenset(scopes or BOTH), lives_s=None, caller=Caller()
    )
    return {"Authorization": f"Bearer {made[1]}"}


@pytest.fixture
def admin(api: Api) -> dict[str, str]:
    return key(api, "operator", Scope.ADMIN)


def fill(api: Api, owner: str, model: Path) -> dict[str, str]:
    """Give a tenant a finished job with files, an upload and a webhook; return its headers."""
    headers = key(api, owner)
    RuleService(api.database).set_tenant(owner, share=2, max_running=None, caller=Caller())
    api.client.headers.update(headers)
    api.submit()
    api.succeed()
    assert api.client.post("/v1/models", content=packed(contents(model)), headers=TAR).status_code == 201
    assert api.client.post("/v1/webhooks", json={"url": "https://example.org/hook"}).status_code == 201
    del api.client.headers["Authorization"]
    return headers


def rows(api: Api, owner: str) -> dict[str, int]:
    with api.database.read() as connection:
        ask = "SELECT count(*) FROM {} WHERE owner = '{}'"
        return {table: connection.exec_driver_sql(ask.format(table, owner)).scalar_one() for table in TABLES}


def uploads(api: Api) -> list[str]:
    root = api.client.app.state.settings.resolved_uploads_dir
    return [path.name for path in root.iterdir() if path.name.startswith("mdl_")]


def test_everything_of_a_tenant_goes_and_others_keep_theirs(api: Api, admin: dict[str, str], tiny_bert: Path) -> None:
    fill(api, "acme", tiny_bert)
    headers = fill(api, "rival", tiny_bert)  # with the very same upload
    before = rows(api, "rival")
    done = api.client.delete("/v1/tenants/acme", headers=admin)
    assert done.status_code == 200, done.text
    found = done.json()
    assert found["finished_at"] is not None
    counted = {kind: found["deleted"][kind] for kind in ("jobs", "artifacts", "uploads", "webhooks", "keys")}
    assert counted == {"jobs": 1, "artifacts": 3, "uploads": 1, "webhooks": 1, "keys": 1}
    assert found["deleted"]["artifact_bytes"] == 10242
    assert found["deleted"]["events"] == 3
    left = rows(api, "acme")
    assert left.pop("audit_events") > 0, "what it did is kept unless somebody asks otherwise"
    assert set(left.values()) == {0}
    assert rows(api, "rival") == before
    assert len(uploads(api)) == 1
    (job,) = api.client.get("/v1/jobs", headers=headers).json()["data"]
    assert api.client.get(job["artifacts"][0]["url"], headers=headers).status_code == 200
    assert len({name.split("/")[1] for name in api.store.keys("jobs", after="", limit=99)}) == 1
    told = api.client.get("/v1/audit-events", headers=admin).json()["data"]
    assert [event["action"] for event in told[:2]] == ["tenant.deleted", "tenant.deletion_requested"]
    assert {event["subject"] for event in told[:2]} == {"acme"}
    again = api.client.delete("/v1/tenants/acme", headers=admin)
    assert (again.status_code, again.json()) == (200, found)
    assert api.client.delete("/v1/tenants/acme?audit=delete", headers=admin).status_code == 200
    assert rows(api, "acme")["audit_events"] == 0
    assert api.client.delete("/v1/tenants/rival", headers=admin).status_code == 200
    assert uploads(api) == []


def test_who_asks_for_what_there_is_not_or_for_oneself(api: Api, admin: dict[str, str]) -> None:
    assert_problem(api.client.delete("/v1/tenants/nobody", headers=admin), 404, "tenant_not_found")
    assert_problem(api.client.delete("/v1/tenants/operator", headers=admin), 409, "own_tenant")
    assert_problem(api.client.delete("/v1/tenants/acme", headers=key(api, "acme")), 403, "insufficient_scope")
    assert api.client.delete("/v1/tenants/%20", headers=admin).status_code == 422
    assert api.client.delete("/v1/tenants/acme?audit=perhaps", headers=admin).status_code == 422


def test_running_jobs_are_cancelled_and_waited_for(api: Api, admin: dict[str, str], tiny_bert: Path) -> None:
    headers = fill(api, "acme", tiny_bert)
    api.client.headers.update(headers)
    running, waiting = api.submit(), api.submit()
    del api.client.headers["Authorization"]
    _id, fence = api.claim()
    asked = api.client.delete("/v1/tenants/acme", headers=admin)
    assert (asked.status_code, asked.json()["running"], asked.json()["finished_at"]) == (202, 1, None)
    for method, path in (("POST", "/v1/jobs"), ("GET", f"/v1/jobs/{waiting}"), ("GET", "/v1/jobs")):
        answer = api.client.request(method, path, headers=headers, **({"json": api.body} if method == "POST" else {}))
        assert_problem(answer, 401, "unauthenticated")
    refused = api.client.post("/v1/keys", json={"tenant": "acme"}, headers=admin)
    assert_problem(refused, 409, "tenant_deleting")
    with api.database.write() as connection:
        beat = LeaseRepository(connection).heartbeat(running, fence, lease_s=9, progress=None)
        assert beat is not None
        assert beat.cancel_requested
        assert LeaseRepository(connection).confirm_cancelled(running, fence)
    reaper_of(api).tick()
    done = api.client.delete("/v1/tenants/acme", headers=admin).json()
    assert (done["running"], done["deleted"]["jobs"]) == (0, 3)
    assert done["finished_at"] is not None
    assert api.client.post("/v1/keys", json={"tenant": "acme"}, headers=admin).status_code == 201, "the name is free again"


def test_a_request_that_was_let_in_before_makes_nothing_new(api: Api, admin: dict[str, str], tiny_bert: Path) -> None:
    headers = fill(api, "acme", tiny_bert)
    api.client.headers.update(headers)
    api.submit()
    api.claim()
    del api.client.headers["Authorization"]
    assert api.client.delete("/v1/tenants/acme", headers=admin).status_code == 202
    # The key is gone; this is what a request does that was authenticated a moment before.
    state, late = api.client.app.state, Caller("acme", "key_late", BOTH)
    with pytest.raises(Conflict, match="being deleted"):
        state.webhooks.create("https://example.org/hook", [], caller=late)
    with pytest.raises(Conflict, match="being deleted"):
        state.keys.create(owner="acme", name="", scopes=BOTH, lives_s=None, caller=late)
    request = JobCreate.model_validate(api.body)
    late_job = Arrival(NewJob("job_late", "acme", request.to_spec(), {}, 0), late.key_id)
    with pytest.raises(Conflict, match="being deleted"):
        asyncio.run(Intake(state.settings, state.database, state.service._announcer).queue(late_job))


KILLED = """
import os, signal, sys
import sqlalchemy as sa
from app.db import Database
from app.keys.records import Caller
from app.operations.tenants import TenantDeletion
from app.settings import Settings
from app.storage import create_store

url, data, after = sys.argv[1], sys.argv[2], int(sys.argv[3])
settings = Settings(data_dir=data, database_url=url)
database = Database(url)
commits = []
def count(connection):
    if connection.get_execution_options().get("coppice_write"):
        commits.append(1)
    if len(commits) > after:
        os.kill(os.getpid(), signal.SIGKILL)
sa.event.listen(database.engine, "commit", count)
TenantDeletion(settings, database, create_store(settings)).delete("acme", with_audit=False, caller=Caller(), for_s=60)
"""


@pytest.mark.long
def test_killed_at_every_commit_it_is_finished_by_the_reaper(api: Api, admin: dict[str, str], tiny_bert: Path) -> None:
    fill(api, "acme", tiny_bert)
    url = api.database.url.render_as_string(hide_password=False)
    for after in (0, 1, 1, 2):
        line = [sys.executable, "-c", KILLED, url, str(api.scratch / "data"), str(after)]
        done = subprocess.run(line, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == -signal.SIGKILL, done.stderr
        assert (rows(api, "acme")["jobs"], rows(api, "acme")["api_keys"]) in {(1, 1), (0, 1)}, "each batch is whole"
    reaper = reaper_of(api)
    reaper.tick()
    reaper.sweep()
    state = api.client.app.state.tenants.state("acme")
    assert state.deletion.finished_at is not None
    assert {kind: state.deletion.counts[kind] for kind in ("jobs", "uploads", "keys")} == {"jobs": 1, "uploads": 1, "keys": 1}
    assert api.store.keys("jobs", after="", limit=9) == []
    assert uploads(api) == []


def reaper_of(api: Api) -> Reaper:
    settings = api.client.app.state.settings
    return Reaper(settings, api.database, api.store, create_celery(settings))


def test_an_operator_sees_what_every_tenant_has(api: Api, admin: dict[str, str], tiny_bert: Path) -> None:
    fill(api, "acme", tiny_bert)
    headers = fill(api, "rival", tiny_bert)
    api.client.headers.update(headers)
    api.submit()
    api.claim()
    del api.client.headers["Authorization"]
    found = {one["tenant"]: one for one in api.client.get("/v1/tenants", headers=admin).json()["data"]}
    assert list(found) == ["acme", "operator", "rival"]
    assert (found["acme"]["jobs"], found["acme"]["artifact_bytes"], found["acme"]["keys"]) == ({"succeeded": 1}, 10242, 1)
    assert (found["rival"]["jobs"], found["rival"]["running"]) == ({"succeeded": 1, "running": 1}, 1)
    assert found["rival"]["upload_bytes"] > 0
    assert found["operator"]["last_submitted_at"] is None
    assert_problem(api.client.get("/v1/tenants", headers=headers), 403, "insufficient_scope")
    page = api.client.get("/tenants", headers=admin).text
    assert ["acme" in page, "rival" in page, "The queue is open: 1 running, 0 waiting" in page] == [True] * 3
    assert api.client.get("/tenants", headers=headers).status_code == 403
    assert "/tenants" not in api.client.get("/", headers=headers).text
    api.client.delete("/v1/tenants/rival", headers=admin)
    assert "being deleted" in api.client.get("/tenants", headers=admin).text
