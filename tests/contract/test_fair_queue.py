"""Priority by scope, needs and places, over HTTP."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from app.jobs.models import jobs, workers
from app.keys.records import Caller, Scope
from tests.contract.conftest import Api
from tests.contract.problems import assert_problem

BASIC = frozenset({Scope.JOBS_READ, Scope.JOBS_WRITE})
GIB = 2**30


def _sign_in(api: Api, **serves: object) -> None:
    with api.database.write() as connection:
        connection.execute(workers.insert().values(name=f"w{serves}", started_at=0, seen_at=4e9, serves=serves))


def _submit(api: Api, key: str, **changes: object) -> dict:
    answer = api.client.post("/v1/jobs", json=api.body | changes, headers={"Authorization": f"Bearer {key}"})
    assert answer.status_code == 202, answer.text
    return answer.json()


def test_priority_counts_before_other_tenants_with_the_scope_alone(make_api, request) -> None:
    api = make_api(request.getfixturevalue("postgres_url"), auth=True, secret="s" * 32)
    keys = {}
    for owner, scopes in (("many", BASIC), ("urgent", BASIC | {Scope.JOBS_PRIORITY}), ("one", BASIC)):
        service = api.client.app.state.keys
        keys[owner] = service.create(owner=owner, name="", scopes=scopes, lives_s=None, caller=Caller())[1]
    for _ in range(5):
        _submit(api, keys["many"], priority=9)
    (one, urgent) = _submit(api, keys["one"]), _submit(api, keys["urgent"], priority=1)
    calm = _submit(api, keys["urgent"])
    assert urgent["queue"]["before"] == 0
    assert (one["queue"]["before"], calm["queue"]["before"]) == (1, 3)
    claimed = [api.claim()[0] for _ in range(4)]
    assert claimed[0] == urgent["id"]
    assert {one["id"], calm["id"]} <= set(claimed[1:])
    with api.database.read() as connection:
        assert sorted(connection.scalars(sa.select(jobs.c.rank).distinct())) == [-1, 0]


def test_needs_are_kept_shown_and_told_of_where_nobody_serves_them(api: Api) -> None:
    _sign_in(api, device="cpu", gpu_bytes=None, tags=["near"])
    needs = {"device": "cuda", "tags": ["near"]}
    made = api.client.post("/v1/jobs", json=api.body | {"needs": needs}).json()
    assert made["needs"]["device"] == "cuda"
    assert made["needs"]["gpu_memory_bytes"] > 100 * 2**20, "as predicted"
    assert made["queue"]["workers"] == 0
    assert "needs a worker with a GPU of" in made["queue"]["why"]
    assert "have cpu alone" in made["queue"]["why"]
    _sign_in(api, device="cuda", gpu_bytes=80 * GIB, tags=["near", "nvlink"])
    now = api.client.get(f"/v1/jobs/{made['id']}").json()
    assert (now["queue"]["workers"], now["queue"]["why"]) == (1, None)
    assert api.client.post("/v1/jobs", json=api.body).json()["queue"]["workers"] == 2


def test_a_plan_says_that_nobody_serves_it(api_on_sqlite: Api) -> None:
    api = api_on_sqlite
    _sign_in(api, device="cuda", gpu_bytes=2**20, tags=[])
    plan = api.client.post("/v1/jobs", json=api.body | {"needs": {"device": "cuda"}, "validate_only": True}).json()
    assert "it would wait: the job needs a worker with a GPU of" in plan["found"]["notes"][-1]
    plan = api.client.post("/v1/jobs", json=api.body | {"validate_only": True}).json()
    assert not any("it would wait" in note for note in plan["found"]["notes"])


def test_needs_are_part_of_the_request(api_on_sqlite: Api) -> None:
    api = api_on_sqlite
    key = {"Idempotency-Key": "k"}
    first = api.client.post("/v1/jobs", json=api.body | {"needs": {"tags": ["b", "a"]}}, headers=key)
    again = api.client.post("/v1/jobs", json=api.body | {"needs": {"tags": ["a", "b"]}}, headers=key)
    assert again.json()["id"] == first.json()["id"]
    other = api.client.post("/v1/jobs", json=api.body | {"needs": {"tags": ["a"]}}, headers=key)
    assert_problem(other, 422, "idempotency_key_reused")
    wrong = api.client.post("/v1/jobs", json=api.body | {"needs": {"gpu_memory_bytes": 5}})
    assert "gpu_memory_bytes is for jobs that need a GPU" in wrong.text


@pytest.mark.long
def test_jobs_of_one_tenant_wait_in_a_bounded_number_of_queues(api_on_sqlite: Api) -> None:
    api = api_on_sqlite
    for number in range(32):
        api.submit(needs={"tags": [f"t{number}"]})
    refused = api.client.post("/v1/jobs", json=api.body | {"needs": {"tags": ["one-more"]}})
    assert_problem(refused, 429, "quota_exceeded")
    api.submit(needs={"tags": ["t7"]})
    api.submit()


def test_the_page_says_why_a_job_waits_and_the_form_takes_needs(api_on_sqlite: Api) -> None:
    api = api_on_sqlite
    _sign_in(api, device="cpu", gpu_bytes=None, tags=[])
    job_id = api.submit(needs={"device": "cuda", "tags": ["a100"]})
    page = api.client.get(f"/jobs/{job_id}", headers={"Accept": "text/html"}).text
    assert "Why it waits:" in page
    assert "tagged a100" in page
    form = api.client.get("/submit", params={"like": job_id}).text
    assert 'value="a100"' in form
    assert '<option value="cuda" selected>' in form
