"""What comes in otherwise than as a checkpoint: adapters, GGUF files and lists of tokens, by path and by upload, confined."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import transformers

from tests import gguf_models as made
from tests import tiny
from tests.contract.archives import TAR, contents, packed
from tests.contract.conftest import Api
from tests.contract.problems import assert_problem
from tests.gguf_models import LLAMA, export, model_of
from tests.unit.core.test_adapters import write_adapter

# PEFT itself uses what transformers is about to drop.
pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    """A base without a head, an adapter with one, data, a list of tokens, and a folder with a GGUF file."""
    root = tmp_path_factory.mktemp("incoming")
    tiny.write_model(root / "base", "bert", task="other")
    tiny.write_dataset(root / "data")
    tiny.write_jsonl(root / "texts")
    options = {"task_type": "SEQ_CLS", "target_modules": ["query"]}
    write_adapter(root / "lora", root / "base", "AutoModelForSequenceClassification", **options)
    (root / "tokens.txt").write_text("word59\n")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("COPPICE_ENGINES_DIR", str(root / "nothing"))
        dense = model_of(root / "llama", transformers.LlamaConfig(**made.GROUPED, **LLAMA), made.tokenizers()["pieces"])
        (row,) = export(root / "out", dense, dense, "F16")
    (root / "gguf").mkdir()
    shutil.move(root / "out" / row.path, root / "gguf/tiny.gguf")
    return root


def body_of(files: Path, **fields: object) -> dict[str, object]:
    return {"model": str(files / "base"), "task": "glue/sst2", "data": str(files / "data"), "sparsity": 0.5} | fields


def generation(files: Path, model: str) -> dict[str, object]:
    task = {"type": "text-generation", "columns": {"text": ["text"]}, "metric": "perplexity"}
    return body_of(files, model=model, task=task, data=str(files / "texts"))


def test_an_adapter_and_a_list_are_named_by_path(make_api: Callable[..., Api], files: Path) -> None:
    api = make_api("", allowed_roots=(files,))
    body = body_of(files, adapter=str(files / "lora"), vocabulary={"keep": str(files / "tokens.txt")})
    answer = api.client.post("/v1/jobs", json=body)
    assert answer.status_code == 202, answer.text
    spec = answer.json()["spec"]
    assert (spec["adapter"], spec["vocabulary"]["keep"]) == (body["adapter"], str(files / "tokens.txt"))
    plan = api.client.post("/v1/jobs", json=body | {"validate_only": True}).json()
    assert any("merged the adapter" in said for said in plan["found"]["not_looked_at"]), plan


@pytest.mark.parametrize("kind", ["SQLite", "PostgreSQL"])
def test_an_adapter_and_a_list_are_uploaded_and_needed_then(
    make_api: Callable[..., Api], files: Path, postgres_url, kind
) -> None:
    api = make_api("" if kind == "SQLite" else postgres_url, allowed_roots=(files,))
    listed = api.client.post("/v1/datasets", content=packed({"tokens.txt": b"word59\n"}), headers=TAR).json()["id"]
    answer = api.client.post("/v1/jobs", json=body_of(files, adapter=str(files / "lora"), vocabulary={"keep": listed}))
    assert answer.status_code == 202, answer.text
    assert answer.json()["spec"]["vocabulary"] == {"keep": listed, "texts": None}
    assert_problem(api.client.delete(f"/v1/datasets/{listed}"), 409, "upload_in_use")
    sent = api.client.post("/v1/models", content=packed(contents(files / "lora")), headers=TAR)
    assert sent.status_code in (200, 201), sent.text
    upload = sent.json()["id"]
    answer = api.client.post("/v1/jobs", json=body_of(files, adapter=upload))
    assert answer.status_code == 202, answer.text
    assert answer.json()["spec"]["adapter"] == upload, "not where the server keeps it"
    assert_problem(api.client.delete(f"/v1/models/{upload}"), 409, "upload_in_use")
    problem = assert_problem(api.client.post("/v1/jobs", json=body_of(files, model=upload)), 422, "model_unreadable")
    assert "give its base as the model and this folder as the adapter" in problem["detail"]


def test_a_gguf_file_is_named_by_path_and_by_upload(make_api: Callable[..., Api], files: Path) -> None:
    api = make_api("", allowed_roots=(files,))
    answer = api.client.post("/v1/jobs", json=generation(files, str(files / "gguf")))
    assert answer.status_code == 202, answer.text
    sent = api.client.post("/v1/models", content=packed(contents(files / "gguf")), headers=TAR)
    assert sent.status_code in (200, 201), sent.text
    assert api.client.post("/v1/jobs", json=generation(files, sent.json()["id"])).status_code == 202
    whole = (files / "gguf/tiny.gguf").read_bytes()
    cut = api.client.post("/v1/models", content=packed({"tiny.gguf": whole[: len(whole) // 2]}), headers=TAR)
    assert "is cut off" in assert_problem(cut, 422, "model_unreadable")["detail"]


@pytest.mark.parametrize(
    ("fields", "pointer", "code"),
    [
        ({"adapter": "/etc"}, "/adapter", "path_not_allowed"),
        ({"adapter": "lora"}, "/adapter", "invalid_request"),
        ({"adapter": "org/lora"}, "/adapter", "invalid_request"),
        ({"adapter": "mdl_" + "0" * 64}, "/adapter", "upload_not_found"),
        ({"vocabulary": {"keep": "/etc/hosts.txt"}}, "/vocabulary/keep", "path_not_allowed"),
        ({"vocabulary": {"texts": "/etc"}}, "/vocabulary/texts", "path_not_allowed"),
        ({"vocabulary": {"keep": ["xx"]}}, "/vocabulary/keep", "invalid_request"),
    ],
)
def test_other_places_are_refused_at_submit(make_api, files: Path, fields, pointer: str, code: str) -> None:
    api = make_api("", allowed_roots=(files,))
    answer = api.client.post("/v1/jobs", json=body_of(files, **({"adapter": str(files / "lora")} | fields)))
    problem = assert_problem(answer, 422, code)
    assert pointer in str(problem)
