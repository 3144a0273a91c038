"""The submit form without a browser: what it offers, what it sends, and what it says of bad input."""

from __future__ import annotations

import json
import re
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from app.web.specs import body_of, empty_form, form_of
from pruning_core.spec.method import METHODS
from pruning_core.spec.prune import PruneSpec, TaskSpec
from pruning_core.spec.tasks import KINDS, TaskType
from tests import tasks
from tests.contract.conftest import Api
from tests.families import ARCHITECTURES
from tests.matrix import SHOWN_ON


def filled_in(page: str) -> dict[str, list[str]]:
    """Read a form's fields as a browser would send them."""
    page = page[page.index('action="/submit"') :]
    values: dict[str, list[str]] = {}
    for tag in re.findall(r"<input[^>]*>", page):
        given = dict(re.findall(r'([\w-]+)="([^"]*)"', tag))
        if "name" not in given or (given.get("type") in ("checkbox", "radio") and not re.search(r"\schecked", tag)):
            continue
        values.setdefault(given["name"], []).append(unescape(given.get("value", "")))
    for name, options in re.findall(r'<select[^>]*name="([^"]+)"[^>]*>(.*?)</select>', page, re.DOTALL):
        chosen = re.search(r'<option(?: value="([^"]*)")? selected>([^<]*)', options)
        first = re.search(r'<option(?: value="([^"]*)")?>([^<]*)', options)
        found = chosen or first
        values[name] = [unescape(found[1] if found[1] is not None else found[2])]
    for name, written in re.findall(r'<textarea[^>]*name="([^"]+)"[^>]*>(.*?)</textarea>', page, re.DOTALL):
        values[name] = [unescape(written)]
    return values


def test_the_form_offers_what_the_methods_declare(api_on_sqlite: Api) -> None:
    page = api_on_sqlite.client.get("/submit").text
    for method in api_on_sqlite.client.get("/v1/methods").json()["data"]:
        assert f'value="{method["name"]}"' in page
        options = dict(method["options"]["properties"])
        if "training" in options:
            inner = method["options"]["$defs"][options.pop("training")["$ref"].rpartition("/")[2]]
            options |= {f"training.{name}": option for name, option in inner["properties"].items()}
        for name, option in options.items():
            if "const" not in option:
                assert f'name="method.{method["name"]}.{name}"' in page
                assert option.get("description", "").partition("null")[0][:40] in unescape(page)  # null is "empty" to people
    for task in api_on_sqlite.client.get("/v1/tasks").json()["data"]:
        assert f">{task['name']}</option>" in page


def test_a_form_left_alone_means_the_defaults(api_on_sqlite: Api) -> None:
    api = api_on_sqlite
    values = filled_in(api.client.get("/submit").text)
    values |= {"model": [api.body["model"]], "data": [api.body["data"]]}
    answer = api.client.post("/submit", data=values, follow_redirects=False)
    assert answer.status_code == 303, answer.text
    location = answer.headers["location"]
    spec = api.client.get(f"/v1{location}").json()["spec"]
    assert spec == json.loads(
        PruneSpec.model_validate(
            {k: v for k, v in api.body.items() if k != "sparsity"} | {"target": {"metric": "macs", "keep": 0.5}}
        ).model_dump_json()
    )
    again = api.client.post("/submit", data=values, follow_redirects=False)
    assert again.headers["location"] == location, "a form that is sent twice submits once"
    changed = api.client.post("/submit", data=values | {"seed": ["1"]}, follow_redirects=False)
    assert changed.headers["location"] not in ("", location)
    like = filled_in(api.client.get(f"/submit?like={location.rpartition('/')[2]}").text)
    # The same again, and what is left to the spec's defaults is spelt out.
    said = {"once": values["once"], "seed": [""], "tolerance": [""]}
    assert like | said == values | said


def test_a_preset_is_chosen_in_the_form_and_stands_in_the_job_as_what_it_means(api_on_sqlite: Api) -> None:
    api = api_on_sqlite
    values = filled_in(api.client.get("/submit").text) | {"model": [api.body["model"]], "data": [api.body["data"]]}
    values["method.fisher-cg.preset"] = ["paper"]
    refused = unescape(api.client.post("/submit", data=values | {"recovery.kind": ["none"]}).text)
    assert "preset paper sets recovery.kind to masks, got none" in refused
    answer = api.client.post("/submit", data=values, follow_redirects=False)
    assert answer.status_code == 303, answer.text
    spec = PruneSpec.model_validate(api.client.get(f"/v1{answer.headers['location']}").json()["spec"])
    assert (spec.preset, spec.recovery.kind, spec.method.labels) == ("paper", "masks", "use")
    assert "fisher-cg, paper" in api.client.get(answer.headers["location"]).text


def test_healing_is_turned_on_in_the_form(api_on_sqlite: Api) -> None:
    api = api_on_sqlite
    values = filled_in(api.client.get("/submit").text) | {"model": [api.body["model"]], "data": [api.body["data"]]}
    refused = unescape(api.client.post("/submit", data=values | {"recovery.heal.minutes": ["3"]}).text)
    assert "settings of recovery.heal are given, and its kind is none" in refused
    values |= {"recovery.heal.kind": ["distil"], "recovery.heal.minutes": ["3"]}
    answer = api.client.post("/submit", data=values, follow_redirects=False)
    assert answer.status_code == 303, answer.text
    spec = api.client.get(f"/v1{answer.headers['location']}").json()["spec"]
    assert (spec["recovery"]["heal"]["kind"], spec["recovery"]["heal"]["minutes"]) == ("distil", 3)
    page = api.client.get(answer.headers["location"]).text
    assert re.search(r"\btrain\b", page), "the stages of the job have its training"
    like = filled_in(api.client.get(f"/submit?like={answer.headers['location'].rpartition('/')[2]}").text)
    assert (like["recovery.heal.kind"], like["recovery.heal.minutes"]) == (["distil"], ["3.0"])


def own_task(task: dict[str, Any]) -> dict[str, list[str]]:
    """Fill in what the form asks of a task of one's own."""
    columns = task["columns"]
    inputs = [columns["image"]] if "image" in columns else columns["text"]
    said = {"task": task["type"], "text_column": ", ".join(inputs), "label_column": columns.get("label", "")}
    return {name: [value] for name, value in (said | {"task_metric": task["metric"], "data": task["dataset"]}).items()}


QUICK = ("regression", "question-answering", "summarization", "image-classification")


@pytest.mark.parametrize("task_type", [own if own in QUICK else pytest.param(own, marks=pytest.mark.matrix) for own in KINDS])
def test_every_type_of_task_is_submitted_by_the_form(api_on_sqlite: Api, task_type: TaskType, tmp_path: Path) -> None:
    api = api_on_sqlite
    model = ARCHITECTURES[SHOWN_ON[task_type]].write_for(task_type, tmp_path / "model")
    task = tasks.task_of(task_type, tasks.write_task_data(tmp_path / "rows", task_type, rows=4))
    values = filled_in(api.client.get("/submit").text) | own_task(task) | {"model": [str(model)]}
    answer = api.client.post("/submit", data=values, follow_redirects=False)
    assert answer.status_code == 303, answer.text
    spec = api.client.get(f"/v1{answer.headers['location']}").json()["spec"]
    assert TaskSpec.model_validate(spec["task"]) == TaskSpec.model_validate(task)


def test_a_task_that_a_model_cannot_do_is_said_beside_the_task(api_on_sqlite: Api, tmp_path: Path) -> None:
    api = api_on_sqlite
    model = ARCHITECTURES["gpt2"].write_for("text-generation", tmp_path / "model")
    task = tasks.task_of("fill-mask", tasks.write_task_data(tmp_path / "rows", "fill-mask", rows=4))
    values = filled_in(api.client.get("/submit").text) | own_task(task) | {"model": [str(model)]}
    text = unescape(api.client.post("/submit", data=values).text)
    summary = text[text.index('id="problems"') : text.index("<form class")]
    assert "model type 'gpt2' cannot do fill-mask" in summary
    assert 'href="#f-task"' in summary


@pytest.mark.parametrize("method", METHODS)
def test_every_spec_survives_the_form(method: str) -> None:
    options = {
        "fisher-cg": {"rearrange": True, "labels": "use"},
        "admm-pattern": {"pattern": "1:4", "pool": None, "iterations": 5},
        "block-lasso": {"block": "32x16", "segment": "column", "threshold": "uniform"},
    }
    latency = [{"metric": "latency", "keep": keep, "tolerance": 0.02} for keep in (0.5, 0.3)]
    sparsities = [{"metric": "sparsity", "sparsity": sparsity} for sparsity in (0.5, 0.8)]
    zeroes = method in {"admm-pattern", "block-lasso"}
    spec = PruneSpec.model_validate(
        {
            "model": "org/name",
            "task": {
                "type": "regression",
                "dataset": "a/b",
                "columns": {"text": ["x", "y"], "label": "z"},
                "metric": "spearman",
                "revision": "v1",
                "validation_share": 0.25,
            },
            "targets": {"admm-pattern": [], "block-lasso": sparsities}.get(method, latency),
            "quality_floor": {"kind": "absolute", "value": 0.8},
            "method": {"name": method} | options.get(method, {}),
            "recovery": {"kind": "none" if zeroes else "masks", "damping": 0.5},
            "calibration": {"batch_tokens": 256, "memory_mb": 64},
            "artifacts": {"formats": ["safetensors", "onnx"], "strict": True},
            "seed": 3,
        }
    )
    assert PruneSpec.model_validate(body_of(form_of(spec.model_dump(mode="json")))) == spec
    assert body_of(empty_form())["target"] == {"metric": "macs", "keep": 0.5}


@pytest.mark.parametrize(
    ("changes", "field", "said"),
    [
        ({"amount": "1.5"}, "amount", "Value must be > 0 and < 1, got 1.5"),
        ({"amount": "half"}, "amount", "Value must be a number > 0 and < 1"),
        ({"amount": ""}, "amount", "is required"),
        ({"amount": "0.5, 0.5"}, "", "targets must differ"),
        ({"metric": "floor", "floor": ""}, "", "quality_floor"),
        ({"model": "/etc"}, "model", "the path, or a link in it, leads out"),
        ({"model": ""}, "model", "model"),
        ({"task": "glue/none"}, "task", "unknown task"),
        ({"task": "regression"}, "task_metric", "must be one of spearman"),
        ({"method.fisher-cg.representation": "NaN"}, "method.fisher-cg.representation", "representation"),
        ({"calibration.samples": "1"}, "calibration.samples", "samples"),
        ({"seed": "-1"}, "seed", "seed"),
        ({"priority": "10"}, "priority", "priority"),
        ({"metadata": "no pair"}, "metadata", "metadata"),
        ({"metadata": "two words=1"}, "metadata", "metadata"),
        ({"tolerance": "3"}, "tolerance", "tolerance"),
        ({"floor": "2"}, "floor", "must be > 0 and <= 1"),
        ({"method": "none"}, "method", "unknown method"),
        ({"data": "/etc"}, "data", "the path, or a link in it, leads out"),
    ],
)
def test_what_is_wrong_stands_beside_its_field(api_on_sqlite: Api, changes: dict[str, str], field: str, said: str) -> None:
    api = api_on_sqlite
    values = filled_in(api.client.get("/submit").text) | {"model": [api.body["model"]], "data": [api.body["data"]]}
    answer = api.client.post("/submit", data=values | {name: [value] for name, value in changes.items()})
    assert answer.status_code == 422
    text = unescape(answer.text)
    summary = text[text.index('id="problems"') : text.index("<form class")]
    assert said in summary
    if field:
        assert f'href="#f-{field}"' in summary
        for name, value in changes.items():
            if name not in ("metric", "task", "method", "metadata"):
                assert f'value="{value}"' in text, "what was typed is kept"
    assert api.client.get("/v1/jobs").json()["data"] == []


def test_a_job_is_submitted_with_its_priority_and_metadata_and_again_like_it(api_on_sqlite: Api) -> None:
    page = api_on_sqlite.client.get("/submit").text
    values = filled_in(page) | {"model": [api_on_sqlite.body["model"]], "data": [api_on_sqlite.body["data"]]}
    values |= {"priority": ["7"], "metadata": ["run = 7\r\nteam=a=b\r\n"]}
    answer = api_on_sqlite.client.post("/submit", data=values, follow_redirects=False)
    assert answer.status_code == 303, answer.text
    job = api_on_sqlite.client.get("/v1" + answer.headers["location"]).json()
    assert (job["priority"], job["metadata"]) == (7, {"run": "7", "team": "a=b"})
    again = filled_in(api_on_sqlite.client.get("/submit", params={"like": job["id"]}).text)
    assert (again["priority"], again["metadata"]) == (["7"], ["run=7\nteam=a=b"])


def test_checking_tells_the_plan_and_submits_nothing(api_on_sqlite: Api) -> None:
    api = api_on_sqlite
    values = filled_in(api.client.get("/submit").text) | {"model": [api.body["model"]], "data": [api.body["data"]]}
    answer = api.client.post("/submit", data=values | {"do": ["check"]})
    assert "This would be accepted" in answer.text
    assert "parameters" in answer.text
    assert api.client.get("/v1/jobs").json()["data"] == []
