"""Errors over HTTP teach: the nearest known word, all that is wrong at once, what is wrong with a key, where a job waits."""

from __future__ import annotations

import json
from collections.abc import Callable
from html import unescape
from typing import Any

import pytest

from app.addresses import nearest_address
from app.jobs.records import JobError
from app.jobs.upkeep import UpkeepRepository
from app.keys.records import Caller, Scope
from tests.contract.conftest import Api
from tests.contract.test_form import filled_in

OWN = {"type": "text-classification", "dataset": "org/d", "columns": {"text": ["a"], "label": "b"}, "metric": "accuracy"}


def problem(api: Api, method: str, path: str, status: int, **given: Any) -> dict[str, Any]:
    answer = api.client.request(method, path, **given)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    return answer.json()


@pytest.mark.parametrize(
    ("change", "pointer", "says"),
    [
        ({"modle": "x"}, "/modle", "modle is no known field; did you mean model?"),
        ({"calibration": {"sampels": 64}}, "/calibration/sampels", "did you mean samples?"),
        ({"samples": 64}, "/samples", "did you mean calibration.samples?"),
        ({"method": "fisher"}, "/method", "did you mean fisher-cg?"),
        ({"data": None, "task": "sst2"}, "/task", "did you mean glue/sst2?"),
        ({"data": None, "task": OWN | {"type": "text-clasification"}}, "/task/type", "did you mean text-classification?"),
        ({"data": None, "task": OWN | {"metric": "acuracy"}}, "/task/metric", "did you mean accuracy?"),
        ({"data": None, "task": OWN | {"colums": {}}}, "/task/colums", "did you mean columns?"),
        ({"priorty": 2}, "/priorty", "did you mean priority?"),
        ({"recovery": {"kind": "weight"}}, "/recovery/kind", "did you mean weights?"),
    ],
)
def test_what_was_probably_meant_is_said(api_on_sqlite: Api, change: dict[str, Any], pointer: str, says: str) -> None:
    body = {name: value for name, value in (api_on_sqlite.body | change).items() if value is not None}
    found = {
        error["pointer"]: error["message"] for error in problem(api_on_sqlite, "POST", "/v1/jobs", 422, json=body)["errors"]
    }
    assert says in found[pointer]


def test_bodies_of_other_routes_are_read_as_carefully(api_on_sqlite: Api) -> None:
    hook = problem(api_on_sqlite, "POST", "/v1/webhooks", 422, json={"ulr": "https://example.org"})
    assert {"pointer": "/ulr", "message": "ulr is no known field; did you mean url?"} in hook["errors"]
    key = problem(api_on_sqlite, "POST", "/v1/keys", 422, json={"tenant": "a b", "scopes": ["job:read"]})
    assert [error["pointer"] for error in key["errors"]] == ["/tenant", "/scopes/0"]
    assert "may hold only letters, digits and _ . -" in key["errors"][0]["message"]
    assert "did you mean jobs:read?" in key["errors"][1]["message"]


def test_all_that_is_wrong_is_said_at_once(api_on_sqlite: Api) -> None:
    api = api_on_sqlite
    fields = problem(
        api, "POST", "/v1/jobs", 422, json=api.body | {"sparsity": 2, "seed": -1, "calibration": {"samples": 1}, "x": 1}
    )
    assert {error["pointer"] for error in fields["errors"]} == {"/sparsity", "/seed", "/calibration/samples", "/x"}
    task = OWN | {"columns": {"text": ["a"]}, "metric": "bleu", "prefix": "x"}
    of_a_task = problem(api, "POST", "/v1/jobs", 422, json={"model": "org/m", "task": task, "sparsity": 0.5})
    assert [error["pointer"] for error in of_a_task["errors"]] == ["/task/metric", "/task/prefix"]
    references = {"model": "rel/../x", "data": "a:b", "revision": ".."}
    refused = problem(api, "POST", "/v1/jobs", 422, json=api.body | references)
    assert [error["pointer"] for error in refused["errors"]] == ["/model", "/data", "/revision"]
    assert refused["detail"].startswith("model: must be a Hub id such as org/name, or an absolute path; data: must be")
    closed = problem(api, "POST", "/v1/jobs", 422, json=api.body | {"model": "/etc/a", "data": "/etc/b"})
    assert (closed["code"], [error["pointer"] for error in closed["errors"]]) == ("path_not_allowed", ["/model", "/data"])


def test_nothing_that_was_sent_comes_back_in_a_suggestion(api_on_sqlite: Api) -> None:
    secret = "hunter2-very-secret"
    for body in ({"method": secret}, {"task": secret}, {"recovery": {"kind": secret}}, {"seed": secret}):
        assert secret not in json.dumps(problem(api_on_sqlite, "POST", "/v1/jobs", 422, json=api_on_sqlite.body | body))
    assert secret not in json.dumps(problem(api_on_sqlite, "GET", f"/v1/jobss/{secret}", 404)["detail"])


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("statsu=failed", "statsu is no parameter of this address; did you mean status?"),
        ("Status=failed", "did you mean status?"),
        ("lmit=3", "did you mean limit?"),
        ("metdata[run]=7", "did you mean metadata?"),
        (
            "status=faild",
            "status must be 'queued', 'running', 'cancelling', 'succeeded', 'failed' or 'cancelled'; did you mean failed?",
        ),
        ("after=..", "after may hold only letters, digits and _ -"),
        ("limit=0", "limit must be greater than or equal to 1"),
    ],
)
def test_a_misspelt_parameter_is_no_other_answer_in_silence(api_on_sqlite: Api, query: str, says: str) -> None:
    assert says in problem(api_on_sqlite, "GET", f"/v1/jobs?{query}", 422)["detail"]


def test_parameters_that_others_add_change_nothing(api_on_sqlite: Api) -> None:
    client = api_on_sqlite.client
    assert client.get("/v1/jobs?_=1732&utm_source=mail&metadata[run]=7&limit=3").status_code == 200
    assert client.get("/?utm_source=mail").status_code == 200
    assert client.get("/?statsu=failed").status_code == 422


@pytest.mark.parametrize(
    ("path", "meant"),
    [
        ("/v1/jobss", "/v1/jobs"),
        ("/v1/v1/jobs", "/v1/jobs"),
        ("/models", "/v1/models"),
        ("/v1/job/abc/report", "/v1/jobs/{job_id}/report"),
        ("/v1/jobs/abc/reprot", "/v1/jobs/{job_id}/report"),
        ("/v1/jobs/abc/cancle", "/v1/jobs/{job_id}/cancel"),
    ],
)
def test_an_unknown_address_names_the_nearest(api_on_sqlite: Api, path: str, meant: str) -> None:
    assert problem(api_on_sqlite, "GET", path, 404)["detail"] == f"there is nothing at this address; did you mean {meant}?"


def test_no_address_is_like_some(api_on_sqlite: Api) -> None:
    assert problem(api_on_sqlite, "GET", "/zzzzzz", 404)["detail"] == "there is nothing at this address"
    assert nearest_address("/" + "v" * 5000, ["/v1/jobs"]) is None
    assert "it takes DELETE, GET, PATCH, PUT" in problem(api_on_sqlite, "POST", "/v1/jobs/abc", 405)["detail"]


@pytest.mark.parametrize(
    ("content", "status", "says"),
    [
        (b"{a", 400, "not valid JSON: expecting property name enclosed in double quotes at character 1"),
        (b"[1]", 422, "the body must be an object"),
        (b"", 422, "the body is required"),
        (b"\xff", 400, "send UTF-8 JSON"),
    ],
)
def test_a_body_that_is_none_is_told_what_one_is(api_on_sqlite: Api, content: bytes, status: int, says: str) -> None:
    headers = {"Content-Type": "application/json"}
    assert says in problem(api_on_sqlite, "POST", "/v1/jobs", status, content=content, headers=headers)["detail"]


def test_what_is_wrong_with_a_key_is_said(make_api: Callable[..., Api]) -> None:
    api = make_api("", auth=True, secret="a" * 40)
    keys = api.client.app.state.keys

    def make(lives_s: float | None = None) -> tuple[str, str]:
        made, text = keys.create(owner="acme", name="", scopes=frozenset({Scope.JOBS_READ}), lives_s=lives_s, caller=Caller())
        return made.id, text

    _, good = make()
    _, late = make(lives_s=-5)
    gone_id, gone = make()
    keys.revoke(gone_id, caller=Caller())
    late_and_gone_id, late_and_gone = make(lives_s=-5)
    keys.revoke(late_and_gone_id, caller=Caller())
    assert api.client.get("/v1/jobs", headers={"Authorization": f"Bearer {good}"}).status_code == 200
    for shown, says in (
        (None, "show an API key: Authorization: Bearer cpk_"),
        ("Basic YTpi", "holds no API key; show one, once"),
        (good, "holds no API key; show one, once"),
        ("Bearer cpk_short", "is no whole API key: one is cpk_ and 43 letters"),
        (f"Bearer '{good}'", "was it cut off, or quoted?"),
        (f"Bearer cpk_{'A' * 43}", "is not known here, or was revoked"),
        (f"Bearer {gone}", "is not known here, or was revoked"),
        (f"Bearer {late_and_gone}", "is not known here, or was revoked"),
        (f"Bearer {late[:-4]}AAAA", "is not known here, or was revoked"),
        (f"Bearer {late}", "this API key has expired; whoever runs the server makes one"),
    ):
        answer = api.client.get("/v1/jobs", headers={} if shown is None else {"Authorization": shown})
        assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated")
        assert says in answer.json()["detail"], shown
        assert ("invalid_token" in answer.headers["www-authenticate"]) is (shown is not None)
        assert good[4:] not in answer.text
    for text, says in (
        ("", "Fill in an API key"),
        ("cpk_x", "no whole API key"),
        (late, "expired"),
        (gone, "or it was revoked"),
    ):
        page = api.client.post("/sign-in", data={"key": text, "next": "/"})
        assert (page.status_code, says in page.text) == (401, True)


def test_a_waiting_job_says_its_place_and_who_could_take_it(api: Api) -> None:
    first, second = api.submit(), api.submit()
    urgent = api.submit(priority=5)
    places = {job: api.client.get(f"/v1/jobs/{job}").json()["queue"] for job in (urgent, first, second)}
    nobody = {"workers": 0, "why": "no worker is signed in", "paused": False}
    assert [places[job] for job in (urgent, first, second)] == [{"before": n} | nobody for n in (0, 1, 2)]
    page = unescape(api.client.get(f"/jobs/{second}").text)
    assert "2 jobs are before it" in page
    assert "No worker is signed in" in page
    with api.database.write() as connection:
        UpkeepRepository(connection).sign_in("host-1")
    assert api.client.get(f"/v1/jobs/{urgent}").json()["queue"] == {"before": 0, "workers": 1, "why": None, "paused": False}
    assert "1 worker is signed in" in api.client.get(f"/jobs/{urgent}").text
    assert "No worker is signed in" not in api.client.get(f"/jobs/{urgent}").text
    api.claim()
    assert api.client.get(f"/v1/jobs/{urgent}").json()["queue"] is None, "it does not wait any more"
    assert api.client.get(f"/v1/jobs/{first}").json()["queue"]["before"] == 0
    assert "It is the next one" in api.client.get(f"/jobs/{first}").text
    assert {job["queue"] for job in api.client.get("/v1/jobs").json()["data"]} == {None}, "lists do not count for each"


def test_a_refused_candidate_is_not_shown_as_a_success(api_on_sqlite: Api) -> None:
    api = api_on_sqlite
    good = api.submit()
    api.succeed()
    bad = api.submit()
    api.fail(JobError("quality_floor", "below the floor", param="quality_floor"), with_files=True)
    shown, refused = api.client.get(f"/jobs/{good}").text, api.client.get(f"/jobs/{bad}").text
    assert ("Candidate that was refused" in refused, "Candidate that was refused" in shown) == (True, False)
    assert ('class="refused"' in refused, 'class="refused"' in shown) == (True, False)
    assert "misses what was asked for" in refused
    assert 'class="verdict warn"' in refused


def test_the_form_shows_all_that_is_wrong_at_its_fields_and_keeps_what_was_typed(api_on_sqlite: Api) -> None:
    api = api_on_sqlite
    wrong = {
        "model": "", "task": "text-classification", "data": "org/d", "amount": "5", "floor": "abc", "seed": "-1",
        "priority": "77", "calibration.samples": "1",
    }  # fmt: skip
    values = filled_in(api.client.get("/submit").text) | {name: [value] for name, value in wrong.items()}
    answer = api.client.post("/submit", data=values)
    page = unescape(answer.text)
    assert answer.status_code == 422
    summary = page[page.index('id="problems"') : page.index("<form class")]
    for field, says in (
        ("model", "Model must not be empty"),
        ("amount", "Value must be > 0 and < 1, got 5"),
        ("floor", "Quality floor must be a number"),
        ("seed", "Seed must be greater than or equal to 0"),
        ("priority", "Priority must be less than or equal to 9"),
        ("calibration.samples", "Samples must be greater than or equal to 8"),
    ):
        assert f'<a href="#f-{field}">{says}' in summary or says in summary, (field, summary)
        assert f'id="f-{field}" name="{field}" aria-invalid="true"' in page, field
    kept = filled_in(answer.text)
    assert {name: kept[name][0] for name in wrong} == wrong


@pytest.mark.parametrize(
    ("changes", "fields"),
    [
        ({"model": "rel/../x", "data": "a:b", "revision": ".."}, ["model", "data", "revision"]),
        (
            {"task": "text-classification", "text_column": "a", "task_metric": "bleu", "prefix": "x"},
            ["task_metric", "prefix"],
        ),
    ],
)
def test_what_only_the_whole_spec_shows_is_told_together_too(
    api_on_sqlite: Api, changes: dict[str, str], fields: list[str]
) -> None:
    api = api_on_sqlite
    given = {"model": "org/m", "data": "org/d"} | changes
    values = filled_in(api.client.get("/submit").text) | {name: [value] for name, value in given.items()}
    page = unescape(api.client.post("/submit", data=values).text)
    for field in fields:
        assert f'id="f-{field}" name="{field}" aria-invalid="true"' in page, field
    assert "<details open><summary>Splits" in page
