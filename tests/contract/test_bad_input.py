"""Bad input: each a problem of its own that says where it is and what would be right."""

import json
import shutil
from pathlib import Path
from uuid import uuid4

import pytest

from tests.contract.problems import assert_problem

JSON = {"content-type": "application/json"}


@pytest.mark.parametrize(
    ("change", "pointer", "says"),
    [
        ({"sparsity": 0}, "/sparsity", "sparsity must be > 0 and < 1, got 0"),
        ({"sparsity": 1}, "/sparsity", "sparsity must be > 0 and < 1, got 1"),
        ({"sparsity": 1.5}, "/sparsity", "sparsity must be > 0 and < 1, got 1.5"),
        ({"sparsity": -1}, "/sparsity", "sparsity must be > 0 and < 1, got -1"),
        ({"sparsity": "half"}, "/sparsity", "sparsity must be a number > 0 and < 1, got text"),
        ({"sparsity": float("nan")}, "/sparsity", "sparsity must be > 0 and < 1, got nan"),
        ({"method": "prune-harder"}, "/method", "unknown method; known methods are fisher-cg"),
        (
            {"method": {"name": "fisher-cg", "rearange": True}},
            "/method/rearange",
            "rearange is no known field; did you mean rearrange?",
        ),
        ({"task": "glue/nothing"}, "/task", "unknown task; known names are glue/cola"),
        ({"model": "no spaces please"}, "/model", "must be a Hub id such as org/name"),
        ({"model": "../up"}, "/model", "a path must be absolute"),
        ({"model": "/etc"}, "/model", "COPPICE_ALLOWED_ROOTS"),
        ({"data": "/etc"}, "/data", "COPPICE_ALLOWED_ROOTS"),
        ({"data": None, "task": {"name": "glue/sst2", "dataset": "/etc"}}, "/task/dataset", "COPPICE_ALLOWED_ROOTS"),
        ({"data": None, "task": "glue/sst2", "model": "/etc"}, "/model", "COPPICE_ALLOWED_ROOTS"),
        ({"metadata": {"a": "\0"}}, "/metadata/a", "must hold no NUL character"),
        ({"sparcity": 0.5}, "/sparcity", "sparcity is no known field; did you mean sparsity?"),
        ({"calibration": {"samples": 1}}, "/calibration/samples", "greater than or equal to 8"),
        ({"metadata": {"a b": "c"}}, "/metadata/a b", "may hold only letters, digits and _ . -"),
        ({"priority": 10}, "/priority", "less than or equal to 9"),
        (
            {"data": None, "task": {"type": "fill-mask", "dataset": "org/d", "columns": {"text": "line"}, "metric": "loss"}},
            "/task/columns/text",
            'text must be a list, such as ["a"]',
        ),
        ({"sparsity": 0.99}, "/sparsity", "of the prunable weights can be removed"),
    ],
)
def test_bad_specs_are_refused_with_the_place_and_the_remedy(api_on_sqlite, change, pointer, says):
    api = api_on_sqlite
    body = {name: value for name, value in (api.body | change).items() if value is not None}
    response = api.client.post("/v1/jobs", content=json.dumps(body), headers=JSON)
    assert response.status_code == 422
    body = response.json()
    assert [error["pointer"] for error in body["errors"]] == [pointer], body
    assert says in body["errors"][0]["message"]
    assert str(api.scratch) not in response.text


def test_links_out_of_the_allowed_roots_are_refused(api, tmp_path):
    link = Path(api.body["model"]).parent / f"link-{tmp_path.name}"
    link.symlink_to("/etc")
    body = assert_problem(api.client.post("/v1/jobs", json=api.body | {"model": str(link)}), 422, "path_not_allowed")
    assert body["errors"][0]["pointer"] == "/model"


def test_unreadable_models_and_data_are_refused_at_submit(api, tiny_bert, tiny_sst2):
    root = api.body["model"].rpartition("/")[0]
    assert_problem(api.client.post("/v1/jobs", json=api.body | {"model": f"{root}/none"}), 422, "model_unreadable")
    assert_problem(api.client.post("/v1/jobs", json=api.body | {"model": str(tiny_sst2)}), 422, "model_unreadable")
    assert_problem(api.client.post("/v1/jobs", json=api.body | {"data": str(tiny_bert)}), 422, "dataset_invalid")


@pytest.mark.parametrize(
    ("content", "status", "code"),
    [
        (b'{"model":', 400, "invalid_json"),
        (b"", 422, "invalid_request"),
        (b"[]", 422, "invalid_request"),
        (b'"text"', 422, "invalid_request"),
        (b'"\xff\xfe"', 400, "malformed_request"),
        (b"[" * 100_000, 400, "malformed_request"),
        (b"x" * 10_000_000, 413, "body_too_large"),
    ],
)
def test_bad_bodies_are_clean_problems(api, content, status, code):
    assert_problem(api.client.post("/v1/jobs", content=content, headers=JSON), status, code)


_HUGE = "1" + "0" * 400
_ODD = [
    *("1e400", "NaN", _HUGE, "1" + "0" * 5000, "7.5", "[1]", "{}", '"../.."', '{"name": []}', '{"metric": {}}'),
    *('"\\ud800"', '{"\\ud800": 1}', '{"a":' * 500 + "1" + "}" * 500, '"' + "x" * 2000 + '"'),
    f'{{"metric": "macs", "keep": {_HUGE}}}',
]
_FIELDS = ["model", "task", "data", "sparsity", "method", "recovery", "target", "seed", "metadata", "priority", "revision"]


@pytest.mark.parametrize("field", [*_FIELDS, "unknown"])
def test_odd_values_are_refused_and_break_nothing(api_on_sqlite, field):
    api = api_on_sqlite
    replaced = {field, "sparsity"} if field == "target" else {field}
    given = {name: value for name, value in api.body.items() if name not in replaced}
    for value in _ODD:
        if value == "{}" and field in {"recovery", "metadata"}:
            continue
        body = f'{json.dumps(given)[:-1]}, "{field}": {value}}}'
        response = api.client.post("/v1/jobs", content=body, headers=JSON)
        assert response.status_code in {400, 422}, (value, response.text)
        assert response.headers["content-type"] == "application/problem+json"
        assert len(response.text) < 1500, "no echo of the input"


def test_what_only_one_database_dislikes_is_refused_alike(api):
    assert_problem(api.client.post("/v1/jobs", json=api.body | {"metadata": {"a": "\0"}}), 422, "invalid_request")
    assert_problem(api.client.get("/v1/jobs", params={"metadata[a]": "\0"}), 422, "invalid_request")
    assert_problem(api.client.get("/v1/jobs", params={"after": "\0"}), 422, "invalid_request")
    assert_problem(api.client.get("/v1/jobs/job_%00"), 422, "invalid_request")
    assert api.client.post("/v1/jobs", json=api.body, headers={"Idempotency-Key": "a'b; \x7f"}).status_code == 202


def test_bodies_without_a_length_are_bounded_too(api):
    chunks = (b"x" * 10_000 for _ in range(1000))
    response = api.client.post("/v1/jobs", content=chunks, headers=JSON)
    assert_problem(response, 413, "body_too_large")


def test_other_media_types_are_refused(api):
    assert_problem(api.client.post("/v1/jobs", data={"model": "a"}), 415, "unsupported_media_type")


def test_unknown_things_are_problems(api):
    assert_problem(api.client.get("/v1/jobs/job_nope"), 404, "job_not_found")
    assert_problem(api.client.get("/v1/jobs/job_nope/events"), 404, "job_not_found")
    assert_problem(api.client.get("/v1/jobs/job_nope/events", headers={"accept": "text/event-stream"}), 404, "job_not_found")
    assert_problem(api.client.post("/v1/jobs/job_nope/cancel"), 404, "job_not_found")
    assert_problem(api.client.get("/v1/jobs/job_nope/artifacts"), 404, "job_not_found")
    assert_problem(api.client.get("/v1/jobs/job_nope/report"), 404, "job_not_found")
    assert_problem(api.client.get("/nothing"), 404, "not_found")
    assert_problem(api.client.delete("/v1/jobs"), 405, "method_not_allowed")


def test_links_inside_a_model_folder_are_refused_too(api, tiny_bert):
    folder = tiny_bert.parent / f"linked-{uuid4().hex}"
    shutil.copytree(tiny_bert, folder)
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").symlink_to("/etc/hostname")
    assert_problem(api.client.post("/v1/jobs", json=api.body | {"model": str(folder)}), 422, "path_not_allowed")
    (folder / "1_Pooling" / "config.json").unlink()
    (folder / "vocab.txt").symlink_to(folder / "tokenizer.json")  # as the Hub's cache does, and harmless
    assert api.client.post("/v1/jobs", json=api.body | {"model": str(folder)}).status_code == 202


def test_data_sets_that_do_not_fit_are_refused_at_submit(api_on_sqlite, tiny_sst2):
    api = api_on_sqlite
    task = {"type": "text-classification", "dataset": str(tiny_sst2), "metric": "accuracy"}
    for columns, says in (
        ({"text": ["sentence"], "label": "lable"}, "no column 'lable'; it has idx, label, sentence"),
        ({"text": ["sentence"], "label": "sentence"}, "no class of the model, which has LABEL_0, LABEL_1; the data has"),
        ({"text": ["sentence"], "label": "idx"}, "label 2 is no class of the model, which has 2"),
        ({"text": ["idx"], "label": "label"}, "column 'idx' of the train split holds numbers"),
    ):
        body = {name: value for name, value in api.body.items() if name != "data"} | {"task": task | {"columns": columns}}
        problem = assert_problem(api.client.post("/v1/jobs", json=body), 422, "dataset_invalid")
        assert says in problem["detail"]
    one_output = api.body | {"task": task | {"type": "regression", "columns": columns, "metric": "spearman"}}
    assert "one output" in assert_problem(api.client.post("/v1/jobs", json=one_output), 422, "dataset_invalid")["detail"]
    root = tiny_sst2.parent / f"cut-{uuid4().hex}"
    shutil.copytree(tiny_sst2, root)
    whole = (root / "validation.parquet").read_bytes()
    (root / "validation.parquet").write_bytes(whole[: len(whole) // 2])
    cut = assert_problem(api.client.post("/v1/jobs", json=api.body | {"data": str(root)}), 422, "dataset_invalid")
    assert "validation.parquet cannot be read: it is corrupt or truncated" in cut["detail"]
    (root / "validation.parquet").unlink()
    held_out = api.client.post("/v1/jobs", json=api.body | {"data": str(root), "validate_only": True})
    assert any("held out" in note for note in held_out.json()["found"]["notes"]), held_out.text
    (root / "train.parquet").unlink()
    gone = assert_problem(api.client.post("/v1/jobs", json=api.body | {"data": str(root)}), 422, "dataset_invalid")
    assert "has no train split" in gone["detail"]


def test_a_path_that_is_not_allowed_says_what_would_be(api_on_sqlite, make_api):
    body = api_on_sqlite.body | {"model": "/etc"}
    says = assert_problem(api_on_sqlite.client.post("/v1/jobs", json=body), 422, "path_not_allowed")["detail"]
    assert "leads out of the folders" in says
    assert "--allow-root" in says
    assert "upload the folder" in says
    api = make_api("", allowed_roots=())
    problem = assert_problem(api.client.post("/v1/jobs", json=api.body), 422, "path_not_allowed")
    assert "reads no folders" in problem["detail"]
