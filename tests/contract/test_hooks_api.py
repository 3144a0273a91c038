"""What is said of hooks in a model's files: by the upload, the submit, a check beforehand, and the command line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from typer.testing import CliRunner

from coppice.cli import app
from tests.contract.archives import TAR, contents, packed
from tests.contract.conftest import Api
from tests.contract.problems import assert_problem
from tests.hooks import FOREIGN, KERNEL


def with_entries(model: dict[str, bytes], entries: dict[str, object]) -> dict[str, bytes]:
    return model | {"config.json": json.dumps(json.loads(model["config.json"]) | entries).encode()}


def test_an_upload_that_reaches_for_code_is_refused_with_key_and_file(api: Api, model: dict[str, bytes]) -> None:
    sent = packed(with_entries(model, {"attn_implementation": KERNEL}))
    found = assert_problem(api.client.post("/v1/models", content=sent, headers=TAR), 422, "model_unreadable")
    assert "config.json: attn_implementation must be eager, flex_attention, sdpa or absent" in found["detail"]


def test_what_is_left_out_is_said_before_the_job(api: Api, model: dict[str, bytes], tiny_sst2: Path) -> None:
    uploads = {}
    for name, entries in (("honest", {}), ("foreign", {"auto_map": FOREIGN})):
        answer = api.client.post("/v1/models", content=packed(with_entries(model, entries)), headers=TAR)
        assert answer.status_code == 201
        uploads[name] = answer.json()["id"]
    data = api.client.post("/v1/datasets", content=packed(contents(tiny_sst2)), headers=TAR).json()["id"]
    said = {}
    for name, upload in uploads.items():
        body = api.body | {"model": upload, "data": data, "validate_only": True}
        said[name] = api.client.post("/v1/jobs", json=body).json()["predicted"]["warnings"]
    assert said["honest"] == []
    assert len(said["foreign"]) == 1
    assert "config.json names code of its own (auto_map); it was left out" in said["foreign"][0]


def test_the_command_line_says_it_too(tiny_bert: Path, tiny_sst2: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_bert, tmp_path / "model")
    words = ["check", "--model", str(folder), "--task", "glue/sst2", "--data", str(tiny_sst2), "--macs-keep", "0.5"]

    def call(entries: dict[str, object]):
        config = json.loads((tiny_bert / "config.json").read_text()) | entries
        (folder / "config.json").write_text(json.dumps(config))
        return CliRunner().invoke(app, words, env={"TERM": "dumb", "COLUMNS": "300"})

    assert "code of its own" not in call({}).output
    told = call({"auto_map": FOREIGN})
    assert told.exit_code == 0
    assert "note: the model's config.json names code of its own (auto_map); it was left out" in told.output
    refused = call({"attn_implementation": KERNEL})
    assert refused.exit_code == 2
    assert "--model: config.json: attn_implementation must be" in refused.output
    none = call({"auto_map": FOREIGN, "model_type": "evil"})
    assert none.exit_code == 2
    assert "transformers has no native class for model type evil" in none.output
