"""Limits of a job's own in requests: taken, shown, told apart, and refused where they are wider than the operator's."""

from __future__ import annotations

import re

import pytest

from app.jobs.models import jobs
from tests.contract.conftest import Api
from tests.contract.problems import assert_problem
from tests.contract.test_form import filled_in


def test_limits_are_kept_and_shown(api: Api) -> None:
    job = api.client.get(f"/v1/jobs/{api.submit(max_attempts=2, timeout_s=90.5)}").json()
    assert (job["max_attempts"], job["timeout_s"]) == (2, 90.5)
    plain = api.client.get(f"/v1/jobs/{api.submit()}").json()
    assert (plain["max_attempts"], plain["timeout_s"]) == (None, None)
    with api.database.write() as connection:
        connection.execute(jobs.update().values(status="failed"))
    assert api.client.post(f"/v1/jobs/{job['id']}/retry").json()["max_attempts"] == 2


@pytest.mark.parametrize(
    ("asked", "pointer", "says"),
    [
        ({"max_attempts": 4}, "/max_attempts", "max_attempts may be at most 3 on this server"),
        ({"timeout_s": 21601}, "/timeout_s", "timeout_s may be at most 21600 on this server"),
        ({"max_attempts": 0}, "/max_attempts", "max_attempts"),
        ({"timeout_s": 0}, "/timeout_s", "timeout_s"),
        ({"timeout_s": -1}, "/timeout_s", "timeout_s"),
        ({"timeout_s": "soon"}, "/timeout_s", "timeout_s"),
    ],
)
def test_limits_that_cannot_hold_are_refused(api_on_sqlite: Api, asked: dict[str, object], pointer: str, says: str) -> None:
    for more in ({}, {"validate_only": True}):
        answer = api_on_sqlite.client.post("/v1/jobs", json=api_on_sqlite.body | asked | more)
        assert answer.status_code == 422
        (error,) = answer.json()["errors"]
        assert (error["pointer"], says in error["message"]) == (pointer, True), error
    both = api_on_sqlite.client.post("/v1/jobs", json=api_on_sqlite.body | {"max_attempts": 9, "timeout_s": 1e9})
    assert [error["pointer"] for error in both.json()["errors"]] == ["/max_attempts", "/timeout_s"]


def test_a_request_with_other_limits_is_another_request(api_on_sqlite: Api) -> None:
    client, body = api_on_sqlite.client, api_on_sqlite.body
    first = client.put("/v1/jobs/nightly", json=body | {"timeout_s": 60})
    assert client.put("/v1/jobs/nightly", json=body | {"timeout_s": 60.0}).json()["id"] == first.json()["id"]
    for other in ({}, {"timeout_s": 61}, {"timeout_s": 60, "max_attempts": 1}):
        assert_problem(client.put("/v1/jobs/nightly", json=body | other), 409, "job_exists")


def test_people_set_them_in_the_form_and_carry_them_over(api_on_sqlite: Api) -> None:
    api = api_on_sqlite
    job = api.submit(max_attempts=2, timeout_s=90)
    form = filled_in(api.client.get(f"/submit?like={job}").text)
    assert (form["max_attempts"], form["timeout_s"]) == (["2"], ["90"])
    form |= {"timeout_s": ["45"], "max_attempts": ["1"]}
    sent = api.client.post("/submit", data=form, follow_redirects=False)
    assert sent.status_code == 303, sent.text
    made = api.client.get("/v1" + sent.headers["location"]).json()
    assert (made["max_attempts"], made["timeout_s"]) == (1, 45)
    refused = api.client.post("/submit", data=form | {"timeout_s": ["99999999"]})
    assert "may be at most 21600 on this server" in refused.text, re.findall("problem[^<]*", refused.text)
