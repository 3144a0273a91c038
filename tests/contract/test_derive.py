"""Jobs derived from others: what changes, what stays, what is refused, and whose job it must be."""

from __future__ import annotations

from typing import Any

import pytest

from tests.contract.archives import TAR, packed
from tests.contract.conftest import Api
from tests.contract.problems import assert_problem


def _derive(api: Api, job_id: str, **changes: Any) -> Any:
    return api.client.post(f"/v1/jobs/{job_id}/derive", json=changes)


def _job(api: Api, job_id: str) -> dict[str, Any]:
    return api.client.get(f"/v1/jobs/{job_id}").json()


def test_a_derived_job_has_other_targets_and_artifacts_and_all_else_as_before(api: Api) -> None:
    parent = _job(api, api.submit(seed=7, priority=3, metadata={"run": "1"}, quality_floor=0.9, calibration={"samples": 64}))
    answer = _derive(api, parent["id"], target={"metric": "macs", "keep": 0.3}, artifacts={"layout": "stock"})
    assert answer.status_code == 202, answer.text
    made = answer.json()
    assert made["id"] != parent["id"]
    assert answer.headers["location"] == f"/v1/jobs/{made['id']}"
    wanted = parent["spec"] | {"target": made["spec"]["target"], "quality_floor": None}
    wanted["artifacts"] = parent["spec"]["artifacts"] | {"layout": "stock"}
    assert made["spec"] == wanted
    assert made["requested"] == {"metric": "macs", "value": 0.3, "tolerance": 0.01}
    assert made["metadata"] == {"derived_from": parent["id"]}
    assert made["priority"] == 3
    found = api.client.get(f"/v1/jobs?metadata[derived_from]={parent['id']}").json()["data"]
    assert [own["id"] for own in found] == [made["id"]]


def test_artifacts_alone_keep_the_targets(api_on_sqlite: Api) -> None:
    api = api_on_sqlite
    parent = _job(api, api.submit())
    made = _derive(api, parent["id"], artifacts={"formats": ["safetensors", "onnx"]}).json()
    assert made["spec"]["target"] == parent["spec"]["target"]
    assert made["spec"]["artifacts"]["formats"] == ["safetensors", "onnx"]


@pytest.mark.parametrize(
    ("asked", "fields"),
    [
        ({"sparsity": 0.2}, {"target": ("sparsity", 0.2)}),
        ({"targets": [{"metric": "macs", "keep": 0.6}, {"metric": "macs", "keep": 0.4}]}, {"targets": 2}),
        ({"quality_floor": 0.95}, {"quality_floor": 0.95}),
    ],
    ids=["sparsity", "targets", "floor"],
)
def test_what_is_asked_for_takes_the_place_of_all_that_was(
    api_on_sqlite: Api, asked: dict[str, Any], fields: dict[str, Any]
) -> None:
    api = api_on_sqlite
    spec = _derive(api, api.submit(quality_floor=0.9), **asked).json()["spec"]
    assert (spec["target"] is not None) == ("target" in fields)
    assert len(spec["targets"]) == fields.get("targets", 0)
    assert (spec["quality_floor"] and spec["quality_floor"]["value"]) == fields.get("quality_floor")


def test_an_id_of_ones_own_and_uploads_are_named_as_they_are(api: Api, model: dict[str, bytes]) -> None:
    upload = api.client.post("/v1/models", content=packed(model), headers=TAR).json()["id"]
    api.client.put("/v1/jobs/nightly-7", json=api.body | {"model": upload})
    made = _derive(api, "nightly-7", sparsity=0.25).json()
    assert made["spec"]["model"] == upload
    assert made["metadata"] == {"derived_from": "nightly-7"}


def test_a_repeated_request_makes_no_second_job(api_on_sqlite: Api) -> None:
    api = api_on_sqlite
    parent = api.submit()
    headers = {"Idempotency-Key": "again"}
    first, second = (
        api.client.post(f"/v1/jobs/{parent}/derive", json={"sparsity": 0.4}, headers=headers).json() for _ in range(2)
    )
    assert first["id"] == second["id"]
    other = api.client.post(f"/v1/jobs/{parent}/derive", json={"sparsity": 0.3}, headers=headers)
    assert_problem(other, 422, "idempotency_key_reused")


def test_a_plan_submits_nothing(api_on_sqlite: Api) -> None:
    api = api_on_sqlite
    parent = api.submit()
    plan = _derive(api, parent, sparsity=0.4, validate_only=True)
    assert plan.status_code == 200
    assert plan.json()["object"] == "pruning.plan"
    assert len(api.client.get("/v1/jobs").json()["data"]) == 1


@pytest.mark.parametrize(
    ("asked", "pointer", "says"),
    [
        ({}, None, "name what is to be different"),
        ({"priority": 3}, None, "name what is to be different"),
        ({"seed": 3, "sparsity": 0.4}, "/seed", "seed"),
        ({"sparsity": 1.5}, "/sparsity", "sparsity must be"),
        ({"sparsity": 0.4, "target": {"metric": "macs", "keep": 0.4}}, None, "give either sparsity or target"),
        ({"target": {"metric": "macs", "keep": 2}}, "/target/keep", "keep must be"),
        ({"artifacts": {"layout": "serve"}}, "/artifacts", "layout serve follows the engines"),
        ({"artifacts": {"layuot": "stock"}}, "/artifacts/layuot", "did you mean layout"),
    ],
)
def test_what_cannot_be_derived_is_told(api_on_sqlite: Api, asked: dict[str, Any], pointer: str | None, says: str) -> None:
    answer = _derive(api_on_sqlite, api_on_sqlite.submit(), **asked)
    assert answer.status_code == 422
    assert says in answer.json()["detail"]
    if pointer is not None:
        assert answer.json()["errors"][0]["pointer"] == pointer


def test_there_must_be_such_a_job(api_on_sqlite: Api) -> None:
    assert_problem(_derive(api_on_sqlite, "job_0", sparsity=0.4), 404, "job_not_found")
