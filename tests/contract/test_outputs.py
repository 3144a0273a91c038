"""What a job has printed, over HTTP and on its page: for its owner alone, as text."""

from __future__ import annotations

from collections.abc import Callable

from app.jobs.outputs import AttemptOutput, OutputRepository
from app.keys.records import Caller, Scope
from tests.contract.conftest import Api
from tests.contract.problems import assert_problem


def said(api: Api, text: str) -> str:
    job_id, fence = api.claim()
    with api.database.write() as connection:
        assert OutputRepository(connection).write(job_id, fence, AttemptOutput(1, text))
    return job_id


def test_the_output_is_read_and_shown_as_text(api: Api) -> None:
    job = api.submit()
    assert api.client.get(f"/v1/jobs/{job}/output").json() == {"object": "list", "data": []}
    assert "What the worker said" not in api.client.get(f"/jobs/{job}").text
    said(api, "12:00:00 stage load\n<script>alert(1)</script>\n" + "\n".join(map(str, range(1000))))
    found = api.client.get(f"/v1/jobs/{job}/output").json()["data"]
    assert [own["attempt"] for own in found] == [1]
    assert found[0]["text"].startswith("12:00:00 stage load\n<script>")
    page = api.client.get(f"/jobs/{job}").text
    assert "What the worker said" in page
    assert "\n999</pre>" in page
    assert "stage load" not in page, "the page shows the end; the API has the rest"
    api.client.post(f"/v1/jobs/{job}/cancel")
    assert_problem(api.client.get("/v1/jobs/job_none/output"), 404, "job_not_found")


def test_markup_in_it_is_text(api_on_sqlite: Api) -> None:
    job = api_on_sqlite.submit()
    said(api_on_sqlite, "<script>alert(1)</script>")
    page = api_on_sqlite.client.get(f"/jobs/{job}").text
    assert "&lt;script&gt;alert(1)" in page
    assert "<script>alert" not in page


def test_another_tenants_is_not_there(make_api: Callable[..., Api]) -> None:
    api = make_api("", auth=True)
    keys = api.client.app.state.keys
    key = {
        owner: keys.create(owner=owner, name="x", scopes=frozenset(Scope) - {Scope.ADMIN}, lives_s=None, caller=Caller())[1]
        for owner in ("acme", "globex")
    }
    mine, theirs = ({"Authorization": f"Bearer {key[owner]}"} for owner in ("acme", "globex"))
    job = api.client.post("/v1/jobs", json=api.body, headers=mine).json()["id"]
    said(api, "mine")
    assert api.client.get(f"/v1/jobs/{job}/output", headers=mine).json()["data"][0]["text"] == "mine"
    assert_problem(api.client.get(f"/v1/jobs/{job}/output", headers=theirs), 404, "job_not_found")
