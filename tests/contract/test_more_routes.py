"""Ids of the client's own, plans, retries, archives, filters, capabilities."""

from __future__ import annotations

import asyncio
import hashlib
import io
import shutil
import tarfile
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import jsonschema
import pytest
import sqlalchemy as sa

from app.jobs.models import idempotency_keys, jobs
from app.jobs.records import JobError
from app.jobs.schemas import JobCreate
from app.keys.records import Caller
from app.refusals import Conflict, Refused
from tests.contract.conftest import FILES, Api
from tests.contract.problems import assert_problem

_TASK = {"type": "text-classification", "dataset": "replaced by data", "metric": "accuracy"}


def test_putting_a_job_twice_is_putting_it_once(api: Api) -> None:
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda _i: api.client.put("/v1/jobs/nightly-7", json=api.body), range(6)))
    assert {answer.status_code for answer in answers} == {202}
    assert {answer.json()["id"] for answer in answers} == {"nightly-7"}
    assert answers[0].headers["location"] == "/v1/jobs/nightly-7"
    assert len(api.client.get("/v1/jobs").json()["data"]) == 1
    assert_problem(api.client.put("/v1/jobs/nightly-7", json=api.body | {"seed": 1}), 409, "job_exists")


@pytest.mark.parametrize("name", ["id", "key"])
def test_the_same_body_is_the_same_request_however_it_is_written(api: Api, name: str) -> None:
    first = _ask(api, name, api.body | {"seed": 1, "metadata": {"run": "7"}})
    assert first.status_code == 202
    target = {"metric": "sparsity", "sparsity": 0.5}
    spelled = {key: value for key, value in api.body.items() if key not in ("sparsity", "data")}
    task = {"name": "glue/sst2", "dataset": api.body["data"]}
    for same in (
        api.body | {"metadata": {"run": "7"}, "seed": 1.0},
        api.body | {"seed": 1, "metadata": {"run": "7"}, "priority": 0, "method": "fisher-cg"},
        spelled | {"seed": 1, "metadata": {"run": "7"}, "target": target, "task": task},
    ):
        again = _ask(api, name, same)
        assert (again.status_code, again.json()["id"]) == (202, first.json()["id"])
    for other in ({"seed": 2}, {"metadata": {"run": "8"}}, {"metadata": {}}, {"priority": 1}, {"sparsity": 0.4}):
        response = _ask(api, name, api.body | {"seed": 1, "metadata": {"run": "7"}} | other)
        assert_problem(response, *(409, "job_exists") if name == "id" else (422, "idempotency_key_reused"))
    assert len(api.client.get("/v1/jobs").json()["data"]) == 1


@pytest.mark.parametrize("name", ["id", "key"])
def test_a_later_version_with_one_more_field_knows_the_requests_of_this_one(api: Api, name: str) -> None:
    class Later(JobCreate):
        """The model of a version to come."""

        colour: str = "green"

    body = api.body | {"model": str(shutil.copytree(api.body["model"], api.scratch / "model"))}
    first = _ask(api, name, body).json()["id"]
    shutil.rmtree(body["model"])  # nothing but the request itself can tell now
    service, caller = api.client.app.state.service, Caller()

    def again(**more: object) -> str:
        sent = body | more
        request = Later.model_validate(sent)
        if name == "id":
            return asyncio.run(service.put("mine", request, sent, caller=caller)).job.public_id
        return asyncio.run(service.submit(request, sent, caller=caller, idempotency_key="mine")).job.public_id

    assert again() == first
    with pytest.raises((Conflict, Refused), match="another body"):
        again(colour="red")


@pytest.mark.parametrize("name", ["id", "key"])
def test_the_digests_of_earlier_versions_are_still_known(api: Api, name: str) -> None:
    """Their rows hold the digest of the whole model with its defaults, and know fewer fields."""
    body = api.body | {"model": str(shutil.copytree(api.body["model"], api.scratch / "model"))}
    first = _ask(api, name, body).json()["id"]
    model = JobCreate.model_validate(body)
    younger = {"name", "tags", "memory", "needs", "max_attempts", "timeout_s", "calibration_id"}
    digest = hashlib.sha256(model.model_dump_json(exclude=younger).encode()).hexdigest()
    with api.database.write() as connection:
        spec = connection.execute(sa.select(jobs.c.spec)).scalar_one()
        del spec["memory"]
        connection.execute(jobs.update().values(spec=spec, body_sha256=digest if name == "id" else None))
        connection.execute(idempotency_keys.update().values(body_sha256=digest))
    shutil.rmtree(body["model"])
    again = _ask(api, name, body)
    assert (again.status_code, again.json()["id"]) == (202, first)
    assert _ask(api, name, body | {"memory": {"weights": "paged"}}).status_code in (409, 422)
    assert _ask(api, name, body | {"seed": 1}).status_code in (409, 422)


def _ask(api: Api, name: str, body: dict[str, Any]) -> httpx2.Response:
    if name == "id":
        return api.client.put("/v1/jobs/mine", json=body)
    return api.client.post("/v1/jobs", json=body, headers={"Idempotency-Key": "mine"})


def test_a_job_goes_by_its_own_id_everywhere(api: Api) -> None:
    api.client.put("/v1/jobs/mine", json=api.body)
    api.succeed()
    job = api.client.get("/v1/jobs/mine").json()
    assert (job["id"], job["status"]) == ("mine", "succeeded")
    assert set(job["links"]) == {"self", "events", "artifacts", "report", "download"}
    for link in job["links"].values():
        assert link.startswith("/v1/jobs/mine")
        assert api.client.get(link).status_code == 200
    for artifact in job["artifacts"]:
        assert api.client.get(artifact["url"]).content == FILES[artifact["path"]]
    page = api.client.get("/v1/jobs", params={"after": "mine"}).json()
    assert page["data"] == []


@pytest.mark.parametrize("job_id", ["job_1", "a b", "a/b", "..", "x" * 65, "a%00", "ü"])
def test_ids_that_cannot_be_chosen(api_on_sqlite: Api, job_id: str) -> None:
    response = api_on_sqlite.client.put(f"/v1/jobs/{job_id}", json=api_on_sqlite.body)
    assert response.status_code in (404, 405, 422)
    assert response.headers["content-type"] == "application/problem+json"


def test_a_plan_says_what_would_come_and_submits_nothing(api: Api) -> None:
    for method, path in (("POST", "/v1/jobs"), ("PUT", "/v1/jobs/planned")):
        response = api.client.request(method, path, json=api.body | {"validate_only": True})
        assert response.status_code == 200
        plan = response.json()
        assert (plan["object"], plan["spec"]["model"]) == ("pruning.plan", api.body["model"])
        sizes = plan["predicted"]
        assert 0 < sizes["parameters"]["pruned"] < sizes["parameters"]["dense"]
        assert 0 < sizes["bytes"]["pruned"] < sizes["bytes"]["dense"]
        assert sizes["memory_bytes"] > sizes["bytes"]["dense"]
        assert sizes["seconds"] > 0
    refused = api.client.post("/v1/jobs", json=api.body | {"validate_only": True, "sparsity": 0.99})
    assert_problem(refused, 422, "target_unreachable")
    hub = api.client.post("/v1/jobs", json={"model": "org/name", "task": "glue/sst2", "sparsity": 0.5, "validate_only": True})
    assert hub.json()["predicted"] is None
    assert api.client.get("/v1/jobs").json()["data"] == []


def test_a_failed_job_can_be_tried_again(api: Api) -> None:
    job_id = api.submit()
    assert_problem(api.client.post(f"/v1/jobs/{job_id}/retry"), 409, "not_failed")
    api.fail(JobError("target_missed", "too coarse"), with_files=True)
    assert "retry" in api.client.get(f"/v1/jobs/{job_id}").json()["links"]
    again = api.client.post(f"/v1/jobs/{job_id}/retry")
    assert again.status_code == 202
    job = again.json()
    assert (job["status"], job["error"], job["finished_at"], job["achieved"], job["artifacts"]) == (
        "queued",
        None,
        None,
        None,
        [],
    )
    assert_problem(api.client.post(f"/v1/jobs/{job_id}/retry"), 409, "not_failed")
    assert api.succeed() == job_id
    assert api.client.get(f"/v1/jobs/{job_id}").json()["attempt"] == 2
    events = [event["type"] for event in api.client.get(f"/v1/jobs/{job_id}/events").json()["data"]]
    assert events == ["job.queued", "job.started", "job.failed", "job.retried", "job.started", "job.succeeded"]
    stream = api.client.get(f"/v1/jobs/{job_id}/events", headers={"accept": "text/event-stream"})
    assert [line[7:] for line in stream.text.splitlines() if line.startswith("event: ")] == events, (
        "not only up to its first end"
    )


def test_the_archive_is_the_bundle(api: Api) -> None:
    job_id = api.submit()
    assert_problem(api.client.get(f"/v1/jobs/{job_id}/download"), 404, "not_finished")
    api.succeed()
    response = api.client.get(f"/v1/jobs/{job_id}/download")
    assert response.headers["content-type"] == "application/x-tar"
    assert int(response.headers["content-length"]) == len(response.content)
    with tarfile.open(fileobj=io.BytesIO(response.content)) as archive:
        found = {entry.name: archive.extractfile(entry).read() for entry in archive.getmembers()}
    assert found == {f"{job_id}/{path}": content for path, content in FILES.items()}
    assert api.client.get(f"/v1/jobs/{job_id}/download").content == response.content
    unchanged = api.client.get(f"/v1/jobs/{job_id}/download", headers={"If-None-Match": response.headers["etag"]})
    assert (unchanged.status_code, unchanged.content) == (304, b"")
    api.store.delete_prefix(f"jobs/{job_id}")
    assert_problem(api.client.get(f"/v1/jobs/{job_id}/download"), 404, "artifact_gone")


def test_a_job_without_files_has_no_archive(api: Api) -> None:
    job_id = api.submit()
    api.fail(JobError("oom", "too large"))
    assert_problem(api.client.get(f"/v1/jobs/{job_id}/download"), 404, "no_files")


def test_jobs_are_found_by_their_metadata(api: Api) -> None:
    ids = {}
    for run, stage in (("1", "a.b"), ("1", "c"), ("2", "c")):
        ids[run, stage] = api.submit(metadata={"run": run, "stage.name": stage})
    api.submit()

    def found(**wanted: str) -> set[str]:
        query = {f"metadata[{key.replace('_', '.')}]": value for key, value in wanted.items()}
        return {job["id"] for job in api.client.get("/v1/jobs", params=query).json()["data"]}

    assert found(run="1") == {ids["1", "a.b"], ids["1", "c"]}
    assert found(run="1", stage_name="c") == {ids["1", "c"]}
    assert found(run="3") == found(other="1") == set()
    assert found(run="1' OR '1'='1") == set()
    for query in ("metadata=1", "metadata[a b]=1", "metadata[a]=1&metadata[a]=2", "metadata[]=1", "metadata[a]=" + "x" * 513):
        assert_problem(api.client.get(f"/v1/jobs?{query}"), 422, "invalid_request")


def test_filtered_lists_go_page_by_page(api: Api) -> None:
    wanted = [api.submit(metadata={"run": "7"}) if number % 2 else api.submit() for number in range(6)][1::2]
    seen, after = [], None
    while True:
        query = {"limit": 1, "metadata[run]": "7"} | ({"after": after} if after else {})
        page = api.client.get("/v1/jobs", params=query).json()
        seen += [job["id"] for job in page["data"]]
        after = page["next"]
        if after is None:
            break
    assert sorted(seen) == sorted(wanted)


def test_what_the_server_can_do_is_what_it_takes(api_on_sqlite: Api) -> None:
    api = api_on_sqlite
    for method in api.client.get("/v1/methods").json()["data"]:
        jsonschema.Draft202012Validator.check_schema(method["options"])
        jsonschema.validate({"name": method["name"]}, method["options"])
        assert method["description"]
        assert api.client.post("/v1/jobs", json=api.body | {"method": method["name"]}).status_code == 202
    tasks = api.client.get("/v1/tasks").json()["data"]
    assert {"glue/sst2", "feature-extraction"} <= {task["name"] for task in tasks}
    for task in tasks:
        jsonschema.Draft202012Validator.check_schema(task["options"])
        if task["task"] is not None:
            jsonschema.validate(task["task"], task["options"])
    assert {"bert", "distilbert"} <= {found["name"] for found in api.client.get("/v1/architectures").json()["data"]}


def test_problems_point_into_what_was_sent(api_on_sqlite: Api, tiny_bert) -> None:
    api = api_on_sqlite
    for body, pointer in (
        (api.body | {"data": "/etc"}, "/data"),
        ({"model": api.body["model"], "task": {"name": "glue/sst2", "dataset": "/etc"}, "sparsity": 0.5}, "/task/dataset"),
        (api.body | {"data": str(tiny_bert)}, "/data"),
        (api.body | {"sparsity": 0.99}, "/sparsity"),
        (api.body | {"task": "glue/mrpc"}, "/task"),  # whose columns the data set has not
        (api.body | {"task": _TASK | {"columns": {"text": ["sentence"], "label": "lable"}}}, "/task/columns"),
        (api.body | {"task": _TASK | {"columns": {"text": ["sentence"], "label": "idx"}}}, "/task/columns/label"),
        (
            {name: value for name, value in api.body.items() if name != "sparsity"}
            | {"target": {"metric": "params", "keep": 0.01}},
            "/target/keep",
        ),
    ):
        for response in (api.client.post("/v1/jobs", json=body), api.client.put("/v1/jobs/a", json=body)):
            assert response.status_code == 422
            assert [error["pointer"] for error in response.json()["errors"]] == [pointer]
