"""Further evaluation sets and slices through the API: their data obeys the task's rules; Compare keeps to the headline."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import sqlalchemy as sa

from app.jobs.models import jobs as jobs_table
from tests.contract.archives import TAR, contents, packed
from tests.contract.conftest import Api
from tests.contract.problems import assert_problem
from tests.contract.test_form import filled_in

DATA = "/evaluation/also/0/data"


def refused(api: Api, code: str, *also: dict[str, object], **evaluation: object) -> dict[str, str]:
    body = api.body | {"evaluation": evaluation | ({"also": list(also)} if also else {})}
    problem = assert_problem(api.client.post("/v1/jobs", json=body), 422, code)
    return {error["pointer"]: error["message"] for error in problem["errors"]}


def test_data_of_a_set_is_confined_as_that_of_the_task(
    make_api: Callable[..., Api], tiny_bert: Path, tiny_sst2: Path, tmp_path: Path
) -> None:
    outside, root = tmp_path / "outside", tmp_path / "root"
    outside.mkdir()
    root.mkdir()
    (outside / "validation.jsonl").write_text(json.dumps({"sentence": "a", "label": 1}))
    (root / "link-out").symlink_to(outside)
    api = make_api("", allowed_roots=(tiny_bert, tiny_sst2, root))
    paths = (outside, root / "link-out", tmp_path / "no", f"{root}/../outside")
    told = [refused(api, "path_not_allowed", {"name": "x", "data": str(path)}) for path in paths]
    assert [list(one) for one in told] == [[DATA]] * 4
    assert len({one[DATA] for one in told}) == 1, "what lies outside is told by nothing"
    assert list(refused(api, "invalid_request", {"name": "x", "data": "./relative"})) == [DATA]
    assert list(refused(api, "invalid_request", {"name": "x", "data": "csv"})) == [DATA]
    assert list(refused(api, "invalid_request", {"name": "x", "data": "org/own", "revision": "../x"})) == [
        "/evaluation/also/0/revision"
    ]
    assert list(refused(api, "upload_not_found", {"name": "x", "data": f"dst_{'0' * 64}"})) == [DATA]
    assert list(refused(api, "invalid_request", {"name": "x", "split": "train", "max_samples": 2**60})) == [
        "/evaluation/also/0/max_samples"
    ]


def test_a_set_of_an_upload_is_read_and_shown_by_its_id(api_on_sqlite: Api, tiny_sst2: Path) -> None:
    api = api_on_sqlite
    upload = api.client.post("/v1/datasets", content=packed(contents(tiny_sst2)), headers=TAR).json()["id"]
    job = api.submit(evaluation={"also": [{"name": "mine", "data": upload}], "slices": ["label"]})
    shown = api.client.get(f"/v1/jobs/{job}").json()["spec"]["evaluation"]
    assert shown["also"][0]["data"] == upload
    assert shown["also"][0]["columns"] == {"text": ["sentence"], "image": None, "label": "label"}
    assert shown["slices"] == ["label"]
    again = filled_in(api.client.get("/submit", params={"like": job}).text)
    assert (again["slices"], again["also.0.name"], again["also.0.data"]) == (["label"], ["mine"], [upload])
    assert (again["also.0.text_column"], again["also.0.label_column"]) == (["sentence"], ["label"])
    with api.database.read() as connection:
        stored = connection.execute(sa.select(jobs_table.c.spec)).scalar_one()
    assert stored["evaluation"]["also"][0]["data"].endswith(f"/{upload}"), "the worker opens what was checked"


def test_what_does_not_fit_is_told_at_its_field(api_on_sqlite: Api) -> None:
    api = api_on_sqlite
    sets = [{"name": "a", "split": "tset"}, {"name": "b", "split": "train", "columns": {"text": ["words"], "label": "label"}}]
    told = refused(api, "dataset_invalid", *sets, slices=["lable"])
    assert list(told) == ["/evaluation/slices", "/evaluation/also/0/split", "/evaluation/also/1/columns"]
    assert told["/evaluation/slices"].endswith("did you mean label?")
    assert "evaluation set a: the data folder has no tset split" in told["/evaluation/also/0/split"]
    other = refused(api, "invalid_request", {"name": "x", "split": "train", "type": "regression"})
    assert "does not answer regression" in other["/evaluation/also/0/type"]


def compared(api: Api) -> list[int]:
    """Return how many checkpoints each comparison of the page holds."""
    page = api.client.get("/compare").text
    return sorted(
        len(re.findall(r'<tr role="row"><td role="cell">\d', part))
        for part in page.split('aria-label="glue/sst2 in numbers"')[1:]
    )


def test_compare_never_mixes_evaluations(make_api: Callable[..., Api]) -> None:
    api = make_api("")
    also = {"also": [{"name": "again", "split": "train"}], "slices": ["label"], "examples": 0}
    for changes in (
        {},
        {"evaluation": also},
        {"seed": 7},
        {"evaluation": {"max_samples": 5}},
        {"evaluation": {"max_length": 64}},
    ):
        api.submit(**changes)
        job = api.succeed()
        if "evaluation" in changes and "also" in changes["evaluation"]:
            with_sets(api, job)
    assert compared(api) == [1, 1, 3], "further sets, slices, examples and the seed change nothing about the headline's rows"
    assert "0.1234" not in api.client.get("/compare").text, "figures of further sets are no headline"
    floors = {"sparsity": None, "quality_floor": {"value": 0.9}}
    for seed in (0, 0, 1):
        body = {name: value for name, value in (api.body | floors | {"seed": seed}).items() if value is not None}
        assert api.client.post("/v1/jobs", json=body).status_code == 202
        api.succeed()
    assert compared(api) == [1, 1, 1, 2, 3], "the seed draws the half that a search for a floor is judged on"


def with_sets(api: Api, job: str) -> None:
    quality = {"metric": "accuracy", "dense": 0.1234, "pruned": 0.1234, "samples": 10}
    sets = [{"name": "again", "task": "text-classification", "metric": "accuracy", "samples": 10, "quality": quality}]
    where = jobs_table.c.id == job
    with api.database.write() as connection:
        report = dict(connection.execute(sa.select(jobs_table.c.report).where(where)).scalar_one())
        connection.execute(jobs_table.update().where(where).values(report=report | {"also": sets}))
    assert "0.1234" in api.client.get(f"/jobs/{job}").text, "the job's own page tells of them"
