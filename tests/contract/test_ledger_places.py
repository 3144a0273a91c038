"""Texts and tasks of a ledger are named as data is: an upload, or a path under an allowed root. Nothing else is looked at."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests import tiny
from tests.contract.archives import TAR, packed
from tests.contract.conftest import Api
from tests.contract.problems import assert_problem
from tests.unit.core.test_ledger import write_decoder
from tests.unit.core.test_ledger_inputs import TEXT, write_task

POINTER = "/evaluation/ledger/texts/german"


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    """A decoder, its data, texts and a task, all in one folder."""
    root = tmp_path_factory.mktemp("ledger")
    write_decoder(root / "model")
    tiny.write_jsonl(root / "data")
    (root / "texts").mkdir()
    (root / "texts" / "german.txt").write_text(TEXT)
    (root / "empty.txt").write_text("")
    write_task(root / "tasks")
    write_task(root / "code", text="task: x\ndoc_to_text: !function utils.f\n")
    return root


def body_of(root: Path, ledger: object) -> dict[str, object]:
    task = {"type": "text-generation", "columns": {"text": ["text"]}, "metric": "perplexity"}
    fields = {"model": str(root / "model"), "task": task, "data": str(root / "data"), "sparsity": 0.5}
    return fields | {"evaluation": {"ledger": ledger}}


def test_a_job_names_texts_and_tasks_by_path(make_api: Callable[..., Api], files: Path) -> None:
    api = make_api("", allowed_roots=(files,))
    ledger = {"texts": {"german": str(files / "texts" / "german.txt"), "folder": str(files / "texts")}}
    answer = api.client.post("/v1/jobs", json=body_of(files, ledger | {"lm_eval": str(files / "tasks")}))
    assert answer.status_code == 202, answer.text
    assert answer.json()["spec"]["evaluation"]["ledger"]["texts"] == ledger["texts"]
    assert api.client.post("/v1/jobs", json=body_of(files, True)).status_code == 202


def test_texts_are_named_by_upload_and_the_upload_is_needed_then(make_api, files: Path, postgres_url: str) -> None:
    for url in ("", postgres_url):
        api = make_api(url, allowed_roots=(files,))
        sent = api.client.post("/v1/datasets", content=packed({"german.txt": TEXT.encode()}), headers=TAR)
        assert sent.status_code in (200, 201), sent.text
        upload = sent.json()["id"]
        answer = api.client.post("/v1/jobs", json=body_of(files, {"texts": {"german": upload}}))
        assert answer.status_code == 202, answer.text
        assert answer.json()["spec"]["evaluation"]["ledger"]["texts"] == {"german": upload}, "not where the server keeps it"
        assert_problem(api.client.delete(f"/v1/datasets/{upload}"), 409, "upload_in_use")
        other = api.client.post("/v1/datasets", content=packed({"other.txt": TEXT.encode() * 2}), headers=TAR).json()["id"]
        assert api.client.delete(f"/v1/datasets/{other}").status_code == 204, "no job names it"


@pytest.mark.parametrize(
    ("place", "code", "said"),
    [
        ("/etc/passwd", "path_not_allowed", "COPPICE_ALLOWED_ROOTS"),
        ("{root}/../../etc/hosts.txt", "path_not_allowed", "COPPICE_ALLOWED_ROOTS"),
        ("german.txt", "invalid_request", "must be an absolute path, or the id of an upload"),
        ("org/german", "invalid_request", "must be an absolute path, or the id of an upload"),
        ("dst_" + "0" * 64, "upload_not_found", ""),
        ("{root}/none.txt", "dataset_invalid", "no such file or folder of text"),
        ("{root}/empty.txt", "dataset_invalid", "is empty"),
        ("{root}/model/config.json", "dataset_invalid", "must end in .txt or .jsonl"),
    ],
)
def test_other_places_are_refused_at_submit(make_api, files: Path, place: str, code: str, said: str) -> None:
    api = make_api("", allowed_roots=(files,))
    body = body_of(files, {"texts": {"german": place.format(root=files)}})
    problem = assert_problem(api.client.post("/v1/jobs", json=body), 422, code)
    assert said in problem["detail"]
    assert problem["errors"][0]["pointer"] == POINTER
    assert str(files) not in problem["detail"]


def test_a_task_that_names_code_is_refused_at_submit(make_api: Callable[..., Api], files: Path) -> None:
    api = make_api("", allowed_roots=(files,))
    body = body_of(files, {"lm_eval": str(files / "code")})
    problem = assert_problem(api.client.post("/v1/jobs", json=body), 422, "dataset_invalid")
    assert "names code (!function utils.f)" in problem["detail"]
    assert problem["errors"][0]["pointer"] == "/evaluation/ledger/lm_eval"
