"""The form's controls of slices, further evaluation sets and the ledger: what they send, carry over, and say of bad input."""

from __future__ import annotations

from collections.abc import Callable
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from app.web.evaluated import control_of
from app.web.specs import body_of, empty_form, form_of
from pruning_core.spec.prune import PruneSpec
from tests import tiny
from tests.contract.conftest import Api
from tests.contract.test_form import filled_in, own_task
from tests.unit.core.test_ledger import write_decoder
from tests.unit.core.test_ledger_inputs import TEXT

SETS = [
    {"name": "again", "split": "train"},
    {"name": "reviews", "data": "/data/reviews.csv", "columns": {"text": ["a", "b"], "label": "c"}, "max_samples": 7},
    {"name": "hub", "data": "org/own", "config": "de", "revision": "v1", "metric": "f1", "type": "text-classification"},
]
LEDGERS = [
    True,
    {"items": 100},
    {"texts": {"German": "/data/german.txt", "plain text": "/data/x=y.txt"}, "lm_eval": "/data/tasks"},
]


def body(kind: str = "text-classification", metric: str = "accuracy", **evaluation: Any) -> dict[str, Any]:
    columns = {"text": ["x"]} | ({} if kind == "text-generation" else {"label": "z"})
    task = {"type": kind, "dataset": "a/b", "columns": columns, "metric": metric}
    return {"model": "org/name", "task": task, "target": {"metric": "macs", "keep": 0.5}, "evaluation": evaluation}


@pytest.mark.parametrize(
    "given",
    [
        body(slices=["source", "a, b"], also=SETS, max_samples=9),
        *(body("text-generation", "perplexity", ledger=own) for own in LEDGERS),
        body("image-classification", also=[{"name": "x", "data": "/d", "columns": {"image": "photo", "label": "kind"}}])
        | {"task": body()["task"] | {"type": "image-classification", "columns": {"image": "i", "label": "z"}}},
    ],
)
def test_every_evaluation_survives_the_form(given: dict[str, Any]) -> None:
    spec = PruneSpec.model_validate(given)
    assert PruneSpec.model_validate(body_of(form_of(spec.model_dump(mode="json")))) == spec


def test_a_form_left_alone_asks_for_none_of_it() -> None:
    assert "evaluation" not in body_of(empty_form())


def test_sets_are_filled_in_one_by_one_and_submitted(api_on_sqlite: Api, tiny_sst2: Path) -> None:
    api = api_on_sqlite
    values = filled_in(api.client.get("/submit").text) | {"model": [api.body["model"]], "data": [api.body["data"]]}
    assert "also.0.name" in values
    assert "also.1.name" not in values
    more = api.client.post("/submit", data=values | {"also.0.name": ["first"], "also.0.split": ["train"], "do": ["more"]})
    assert more.status_code == 200
    values = filled_in(more.text)
    assert (values["also.0.name"], values["also.1.name"]) == (["first"], [""])
    assert api.client.get("/v1/jobs").json()["data"] == [], "one more set to fill in is no job"
    second = {"also.1.name": ["second"], "also.1.data": [str(tiny_sst2)], "also.1.max_samples": ["5"], "also.1.metric": ["f1"]}
    values |= second | {"slices": [" label \r\nidx\r\n"]}
    answer = api.client.post("/submit", data=values, follow_redirects=False)
    assert answer.status_code == 303, answer.text
    found = api.client.get(f"/v1{answer.headers['location']}").json()["spec"]["evaluation"]
    assert found["slices"] == ["label", "idx"]
    sets = [(own["name"], own["data"], own["split"], own["metric"], own["max_samples"]) for own in found["also"]]
    assert sets == [("first", None, "train", None, None), ("second", str(tiny_sst2), None, "f1", 5)]
    again = filled_in(api.client.get("/submit", params={"like": answer.headers["location"].rpartition("/")[2]}).text)
    assert (again["slices"], again["also.1.data"]) == (["label\nidx"], [str(tiny_sst2)])
    assert "also.2.name" not in again, "there is a button for one more"


def test_what_is_wrong_with_a_set_stands_beside_it_though_one_before_it_was_left_empty(api_on_sqlite: Api) -> None:
    api = api_on_sqlite
    values = filled_in(api.client.get("/submit").text) | {"model": [api.body["model"]], "data": [api.body["data"]]}
    wrong = {"also.3.name": ["two words"], "also.3.split": ["train"], "also.5.name": ["x"], "also.5.max_samples": ["many"]}
    answer = api.client.post("/submit", data=values | wrong | {"also.5.split": ["train"], "slices": ["lable"]})
    assert answer.status_code == 422
    text = unescape(answer.text)
    summary = text[text.index('id="problems"') : text.index("<form class")]
    for control, label in (("also.0.name", "Set 1: name"), ("also.1.max_samples", "Set 2: rows")):
        assert f'href="#f-{control}">{label}' in summary
        assert f'id="f-{control}"' in text
    kept = filled_in(answer.text)
    assert (kept["also.0.name"], kept["also.1.max_samples"]) == (["two words"], ["many"])
    right = {"also.3.name": ["words"], "also.5.max_samples": ["3"]}
    answer = api.client.post("/submit", data=values | wrong | right | {"also.5.split": ["tset"], "slices": ["lable"]})
    text = unescape(answer.text)
    summary = text[text.index('id="problems"') : text.index("<form class")]
    assert 'href="#f-slices">Slices by columns' in summary
    assert "did you mean label?" in summary
    assert 'href="#f-also.1.split">Set 2: split' in summary


def test_a_ledger_is_asked_for_by_the_form(
    make_api: Callable[..., Api], tmp_path: Path, tiny_bert: Path, tiny_sst2: Path
) -> None:
    files = tmp_path / "inputs"
    files.mkdir()
    api = make_api("", allowed_roots=(files, tiny_bert, tiny_sst2))
    task = {"type": "text-generation", "columns": {"text": ["text"]}, "metric": "perplexity"}
    model, data = write_decoder(files / "model"), tiny.write_jsonl(files / "data")
    (files / "german.txt").write_text(TEXT, encoding="utf-8")
    values = filled_in(api.client.get("/submit").text) | own_task(task | {"dataset": str(data)}) | {"model": [str(model)]}
    values |= {"calibration.max_length": ["32"], "evaluation.max_length": ["32"], "latency.length": ["32"]}
    named = {"ledger.texts": [f"German = {files / 'german.txt'}\r\n"], "ledger.items": ["20"]}
    answer = api.client.post("/submit", data=values | named, follow_redirects=False)
    assert answer.status_code == 303, answer.text[: answer.text.index("<form class")]
    ledger = api.client.get(f"/v1{answer.headers['location']}").json()["spec"]["evaluation"]["ledger"]
    assert (ledger["texts"], ledger["items"]) == ({"German": str(files / "german.txt")}, 20)
    for changes, control, said in (
        ({"ledger.texts": ["German=/etc/passwd"]}, "ledger.texts", "COPPICE_ALLOWED_ROOTS"),
        ({"ledger.texts": ["no name"]}, "ledger.texts", "Texts of the ledger"),
        ({"ledger": ["on"], "ledger.items": ["3"]}, "ledger.items", "greater than or equal to 12"),
        ({"ledger.lm_eval": [str(files / "none")]}, "ledger.lm_eval", "Tasks of lm-eval"),
    ):
        answer = api.client.post("/submit", data=values | changes)
        assert answer.status_code == 422
        text = unescape(answer.text)
        summary = text[text.index('id="problems"') : text.index("<form class")]
        assert f'href="#f-{control}"' in summary, summary
        assert said in summary
    encoder = filled_in(api.client.get("/submit").text) | {"model": [api.body["model"]], "data": [api.body["data"]]}
    text = unescape(api.client.post("/submit", data=encoder | {"ledger": ["on"]}).text)
    assert 'href="#f-ledger">' in text
    assert "a ledger is for decoders and embedders" in text


def test_places_in_the_body_are_of_controls() -> None:
    found = {
        "/evaluation/slices/0": "slices",
        "/evaluation/also/2": "also.2.name",
        "/evaluation/also/2/columns": "also.2.text_column",
        "/evaluation/also/2/columns/label": "also.2.label_column",
        "/evaluation/also/0/revision": "also.0.revision",
        "/evaluation/ledger": "ledger",
        "/evaluation/ledger/texts/German": "ledger.texts",
        "/evaluation/max_samples": None,
        "/task/columns": None,
    }
    assert {pointer: control_of(pointer) for pointer in found} == found
