"""Names and tags of jobs: kept, shown, searched, changed, told apart, and refused where they are no line of text."""

from __future__ import annotations

import json

import pytest
import sqlalchemy as sa

from app.audit.models import audit_events
from app.jobs.models import job_labels
from tests.contract.conftest import Api
from tests.contract.problems import assert_problem
from tests.contract.test_form import filled_in

NAME = "Nightly <b>release</b> & \N{ROCKET} \N{FAMILY}\N{ZERO WIDTH JOINER}\N{GIRL} für später"


def found(api: Api, *, names: bool = True, **asked: object) -> list[str | None]:
    answer = api.client.get("/v1/jobs", params=asked)
    assert answer.status_code == 200, answer.text
    return [job["name"] if names else job["id"] for job in answer.json()["data"]]


def test_names_and_tags_are_kept_shown_and_searched(api: Api) -> None:
    api.submit(name=f"  {NAME} ", tags=["release", "bert base", "release", " 7 "])
    api.submit(name="another", tags=["release"], metadata={"tag": "7"})
    api.submit()
    newest, other, first = api.client.get("/v1/jobs").json()["data"]
    assert (first["name"], first["tags"]) == (NAME, ["release", "bert base", "7"])
    assert api.client.get(f"/v1/jobs/{first['id']}").json()["tags"] == first["tags"]
    assert (other["name"], newest["name"], newest["tags"]) == ("another", None, [])
    assert found(api, name="RELEASE</B>") == [NAME]
    assert found(api, name="\N{ROCKET}") == [NAME]
    assert found(api, name="%") == []
    assert found(api, tag="release") == ["another", NAME]
    assert found(api, tag=["release", "7"]) == [NAME]
    assert found(api, tag=["release", "7"], name="another") == []
    assert found(api, tag="releas") == []
    assert found(api, **{"tag": "release", "metadata[tag]": "7"}) == ["another"]
    assert_problem(api.client.get("/v1/jobs", params={"nam": "x"}), 422, "invalid_request")


@pytest.mark.parametrize(
    ("asked", "pointer", "says"),
    [
        ({"name": ""}, "/name", "must not be empty"),
        ({"name": " \t "}, "/name", "must not be empty"),
        ({"name": "x" * 500}, "/name", "must have at most 200 characters"),
        ({"name": "a\nb"}, "/name", "one line of text without control characters, and has U+000A"),
        ({"name": "a\x00b"}, "/name", "U+0000"),
        ({"name": "a\x1b[31mb"}, "/name", "U+001B"),
        ({"name": "safe\u202egnp.exe"}, "/name", "U+202E"),
        ({"name": 7}, "/name", "must be text"),
        ({"tags": "release"}, "/tags", "must be a list"),
        ({"tags": ["a,b"]}, "/tags/0", "must hold no comma"),
        ({"tags": ["fine", "x" * 61]}, "/tags/1", "at most 60 characters"),
        ({"tags": ["a\u2028b"]}, "/tags/0", "U+2028"),
        ({"tags": [str(number) for number in range(17)]}, "/tags", "at most 16 items"),
    ],
    ids=lambda value: str(value)[:30].encode("ascii", "backslashreplace").decode(),
)
def test_what_is_no_name_is_refused_everywhere(api_on_sqlite: Api, asked: dict[str, object], pointer: str, says: str) -> None:
    client, job = api_on_sqlite.client, api_on_sqlite.submit()
    for answer in (
        client.post("/v1/jobs", json=api_on_sqlite.body | asked),
        client.patch(f"/v1/jobs/{job}", json=asked),
        client.post(f"/v1/jobs/{job}/derive", json={"sparsity": 0.3} | asked),
    ):
        assert_problem(answer, 422, "invalid_request")
        (error,) = answer.json()["errors"]
        assert (error["pointer"], says in error["message"]) == (pointer, True), error


def test_half_a_character_is_refused(api_on_sqlite: Api) -> None:
    body = json.dumps(api_on_sqlite.body | {"name": "x"}).replace('"x"', '"\\ud83d"')
    answer = api_on_sqlite.client.post("/v1/jobs", content=body, headers={"Content-Type": "application/json"})
    assert 400 <= answer.status_code < 500


def test_a_job_is_renamed_whatever_it_does(api: Api) -> None:
    job = api.submit(name="first", tags=["old", "kept"], metadata={"old": ""})
    etag = api.client.get(f"/v1/jobs/{job}").headers["etag"]
    renamed = api.client.patch(f"/v1/jobs/{job}", json={"tags": ["kept", "new"]})
    assert (renamed.status_code, renamed.json()["name"], renamed.json()["tags"]) == (200, "first", ["kept", "new"])
    assert api.client.get(f"/v1/jobs/{job}").headers["etag"] != etag
    assert (found(api, tag="old"), found(api, tag=["new", "kept"])) == ([], ["first"])
    assert found(api, **{"metadata[old]": ""}) == ["first"]
    api.claim()
    assert api.client.patch(f"/v1/jobs/{job}", json={"name": NAME}).json()["status"] == "running"
    assert (found(api, name="first"), found(api, name="release")) == ([], [NAME])
    without = api.client.patch(f"/v1/jobs/{job}", json={"name": None, "tags": []}).json()
    assert (without["name"], without["tags"]) == (None, [])
    with api.database.read() as connection:
        assert list(connection.scalars(sa.select(job_labels.c.key))) == ["old"]
        actions = list(connection.scalars(sa.select(audit_events.c.action)))
    assert actions.count("job.renamed") == 3
    assert_problem(api.client.patch(f"/v1/jobs/{job}", json={}), 422, "invalid_request")
    assert_problem(api.client.patch(f"/v1/jobs/{job}", json={"seed": 1}), 422, "invalid_request")
    assert_problem(api.client.patch("/v1/jobs/job_none", json={"name": "x"}), 404, "job_not_found")


def test_a_name_is_part_of_the_request_and_a_later_one_is_not(api_on_sqlite: Api) -> None:
    client, body = api_on_sqlite.client, api_on_sqlite.body
    client.put("/v1/jobs/nightly", json=body | {"name": "first", "tags": ["a"]})
    for other in ({}, {"name": "second", "tags": ["a"]}, {"name": "first"}):
        assert_problem(client.put("/v1/jobs/nightly", json=body | other), 409, "job_exists")
    client.patch("/v1/jobs/nightly", json={"name": "renamed"})
    again = client.put("/v1/jobs/nightly", json=body | {"name": "first", "tags": ["a"]})
    assert (again.status_code, again.json()["name"]) == (202, "renamed")


def test_a_derived_job_has_a_name_of_its_own(api_on_sqlite: Api) -> None:
    api = api_on_sqlite
    job = api.submit(name="first", tags=["a"])
    derive = f"/v1/jobs/{job}/derive"
    plain = api.client.post(derive, json={"sparsity": 0.3}).json()
    assert (plain["name"], plain["tags"]) == (None, [])
    named = api.client.post(derive, json={"sparsity": 0.3, "name": "smaller", "tags": ["b"]}).json()
    assert (named["name"], named["tags"]) == ("smaller", ["b"])


def test_a_calibration_has_a_name_too(api_on_sqlite: Api) -> None:
    body = {key: value for key, value in api_on_sqlite.body.items() if key not in ("sparsity", "target")}
    made = api_on_sqlite.client.post("/v1/calibrations", json=body | {"name": "of mrpc", "tags": ["a"]})
    assert (made.json()["name"], made.json()["tags"]) == ("of mrpc", ["a"])


def test_pages_show_names_as_text(api_on_sqlite: Api) -> None:
    api = api_on_sqlite
    job = api.submit(name=NAME, tags=["<i>"])
    api.succeed()
    for place in ("/", f"/jobs/{job}", "/compare", f"/submit?like={job}"):
        page = api.client.get(place).text
        assert "Nightly &lt;b&gt;release&lt;/b&gt; &amp; \N{ROCKET}" in page, place
        assert "<b>release" not in page
        assert "<i>" not in page
    assert "No job is like that" in api.client.get("/", params={"name": "other"}).text
    assert "Nightly" in api.client.get("/", params={"name": "nightly", "tag": "<i>"}).text


def test_people_name_jobs_in_the_form_and_rename_them(api_on_sqlite: Api) -> None:
    api = api_on_sqlite
    form = filled_in(api.client.get(f"/submit?like={api.submit(name='first', tags=['a', 'b'])}").text)
    assert (form["name"], form["tags"]) == (["first"], ["a, b"])
    sent = api.client.post("/submit", data=form | {"name": ["second"], "tags": ["b, c ,"]}, follow_redirects=False)
    assert sent.status_code == 303, sent.text
    made = "/v1" + sent.headers["location"]
    assert (api.client.get(made).json()["name"], api.client.get(made).json()["tags"]) == ("second", ["b", "c"])
    refused = api.client.post("/submit", data=form | {"name": ["x" * 500]})
    assert refused.status_code == 422
    assert "must have at most 200 characters" in refused.text
    place = sent.headers["location"]
    renamed = api.client.post(f"{place}/name", data={"name": " third ", "tags": ""}, follow_redirects=False)
    assert (renamed.status_code, renamed.headers["location"]) == (303, place)
    assert (api.client.get(made).json()["name"], api.client.get(made).json()["tags"]) == ("third", [])
    wrong = api.client.post(f"{place}/name", data={"name": "x" * 500, "tags": ""})
    assert wrong.status_code == 422
    assert "must have at most 200 characters" in wrong.text
    api.client.post(f"{place}/name", data={"name": "", "tags": "d"})
    assert (api.client.get(made).json()["name"], api.client.get(made).json()["tags"]) == (None, ["d"])
