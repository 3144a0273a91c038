"""Many jobs at once: exactly those of the filter, told before, and of one tenant."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import sqlalchemy as sa

from app.jobs.models import jobs
from app.keys.records import Caller, Scope
from tests.contract.conftest import Api
from tests.contract.problems import assert_problem


def statuses(api: Api) -> dict[str, str]:
    with api.database.read() as connection:
        return {row.id: row.status for row in connection.execute(sa.select(jobs.c.id, jobs.c.status))}


def test_exactly_the_jobs_of_the_filter_are_cancelled(api: Api) -> None:
    running = api.submit(metadata={"sweep": "7"}, priority=9)
    api.claim()
    done = api.submit(metadata={"sweep": "7"}, priority=9)
    assert api.succeed() == done
    wanted = {first := api.submit(metadata={"sweep": "7"})} | {f"job_{n:032x}" for n in range(129)}
    with api.database.write() as connection:
        row = connection.execute(sa.select(jobs).where(jobs.c.id == first)).mappings().one()
        connection.execute(jobs.insert(), [dict(row) | {"id": f"job_{n:032x}"} for n in range(129)])
    other = api.submit(metadata={"sweep": "8"})
    asked = {"metadata": {"sweep": "7"}, "status": ["queued"]}
    told = api.client.post("/v1/jobs/cancel", json=asked | {"dry_run": True}).json()
    assert (told["matched"], told["changed"], told["dry_run"]) == (130, 0, True)
    assert set(statuses(api).values()) == {"queued", "running", "succeeded"}
    done_so = api.client.post("/v1/jobs/cancel", json=asked).json()
    assert (done_so["matched"], done_so["changed"]) == (130, 130)
    found = statuses(api)
    assert {job for job, status in found.items() if status == "cancelled"} == wanted
    assert (found[running], found[done], found[other]) == ("running", "succeeded", "queued")
    assert api.client.post("/v1/jobs/cancel", json=asked).json()["matched"] == 0
    rest = api.client.post("/v1/jobs/cancel", json={"model": api.body["model"]}).json()
    assert rest["changed"] == 2
    assert (statuses(api)[running], statuses(api)[other]) == ("cancelling", "cancelled")
    told = api.client.get("/v1/audit-events?limit=200").json()["data"]
    assert sum(event["action"] == "job.cancel_requested" for event in told) == 132


def test_failed_jobs_are_tried_again_as_many_as_may_wait(make_api: Callable[..., Api]) -> None:
    api = make_api("", max_queued_jobs=5)
    for _ in range(5):
        api.submit()
    with api.database.write() as connection:
        connection.execute(jobs.update().values(status="failed", finished_at=1.0))
    api.submit()
    api.submit()
    asked = {"all": True}
    assert api.client.post("/v1/jobs/retry", json=asked | {"dry_run": True}).json()["matched"] == 5
    answer = api.client.post("/v1/jobs/retry", json=asked).json()
    assert (answer["matched"], answer["changed"]) == (5, 3)
    assert_problem(api.client.post("/v1/jobs/retry", json=asked), 429, "quota_exceeded")


@pytest.mark.parametrize("action", ["cancel", "retry"])
@pytest.mark.parametrize("body", [{}, {"dry_run": True}, {"metadata": {}}, {"stats": 1}, {"model": "a\0b"}, {"all": "x"}])
def test_what_would_mean_everything_by_mistake_is_refused(api_on_sqlite: Api, action: str, body: dict[str, object]) -> None:
    api_on_sqlite.submit()
    assert api_on_sqlite.client.post(f"/v1/jobs/{action}", json=body).status_code == 422
    assert set(statuses(api_on_sqlite).values()) == {"queued"}


def test_another_tenant_s_jobs_need_an_operator(make_api: Callable[..., Api]) -> None:
    api = make_api("", auth=True, secret="s" * 40)

    def as_(owner: str, *scopes: Scope) -> dict[str, str]:
        made = api.client.app.state.keys.create(owner=owner, name="", scopes=frozenset(scopes), lives_s=None, caller=Caller())
        return {"Authorization": f"Bearer {made[1]}"}

    both = (Scope.JOBS_READ, Scope.JOBS_WRITE)
    acme, rival, operator = as_("acme", *both), as_("rival", *both), as_("ops", *both, Scope.ADMIN)
    for headers in (acme, rival):
        assert api.client.post("/v1/jobs", json=api.body, headers=headers).status_code == 202
    refused = api.client.post("/v1/jobs/cancel", json={"tenant": "acme"}, headers=rival)
    assert_problem(refused, 403, "insufficient_scope")
    assert api.client.post("/v1/jobs/cancel", json={"all": True, "dry_run": True}, headers=rival).json()["matched"] == 1
    assert api.client.post("/v1/jobs/cancel", json={"all": True}, headers=operator).json()["matched"] == 0
    assert api.client.post("/v1/jobs/cancel", json={"tenant": "acme"}, headers=operator).json()["changed"] == 1
    assert api.client.get("/v1/jobs", headers=rival).json()["data"][0]["status"] == "queued"
