"""Uploads: what is taken, what is refused, and that nothing half-checked is ever left."""

from __future__ import annotations

import gzip
import io
import json
import os
import pickle
import shutil
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.contract.archives import TAR, contents, packed
from tests.contract.conftest import Api
from tests.contract.problems import assert_problem


def kept(api: Api) -> list[str]:
    """What lies in the folder of uploads, drafts included."""
    root = api.client.app.state.settings.resolved_uploads_dir
    return [str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()] if root.exists() else []


def test_an_uploaded_model_and_data_set_can_be_named_by_a_job(api: Api, model: dict[str, bytes], tiny_sst2: Path) -> None:
    response = api.client.post("/v1/models", content=packed(model), headers=TAR)
    assert response.status_code == 201
    uploaded = response.json()
    assert response.headers["location"] == f"/v1/models/{uploaded['id']}"
    assert {file["path"] for file in uploaded["files"]} == set(model)
    data = api.client.post("/v1/datasets", content=packed(contents(tiny_sst2)), headers=TAR).json()
    job = api.client.post("/v1/jobs", json=api.body | {"model": uploaded["id"], "data": data["id"]})
    assert job.status_code == 202, job.text
    spec = job.json()["spec"]
    assert (spec["model"], spec["task"]["dataset"]) == (uploaded["id"], data["id"]), "not where the server keeps them"
    job_id, _fence = api.claim()
    assert job_id == job.json()["id"]
    assert_problem(api.client.delete(f"/v1/models/{uploaded['id']}"), 409, "upload_in_use")


def test_the_same_content_has_the_same_id_however_it_is_packed(api: Api, model: dict[str, bytes]) -> None:
    in_folder = {f"./minilm/{path}": content for path, content in reversed(model.items())}
    packings = [packed(model), packed(model, "w:gz"), packed(in_folder), gzip.compress(packed(in_folder))]
    answers = [api.client.post("/v1/models", content=content, headers=TAR) for content in packings]
    assert [answer.status_code for answer in answers] == [201, 200, 200, 200]
    (upload_id,) = {answer.json()["id"] for answer in answers}
    assert [item["id"] for item in api.client.get("/v1/models").json()["data"]] == [upload_id]
    assert api.client.get("/v1/datasets").json()["data"] == []
    assert_problem(api.client.get(f"/v1/datasets/{upload_id}"), 404, "upload_not_found")
    assert api.client.delete(f"/v1/models/{upload_id}").status_code == 204
    assert_problem(api.client.get(f"/v1/models/{upload_id}"), 404, "upload_not_found")
    assert kept(api) == []


def _with(model: dict[str, bytes], **files: bytes) -> dict[str, bytes]:
    return model | {name.replace("__", "/"): content for name, content in files.items()}


def _linked(kind: bytes, target: str) -> Callable[[dict[str, bytes]], bytes]:
    def make(model: dict[str, bytes]) -> bytes:
        buffer = io.BytesIO(packed(model))
        with tarfile.open(fileobj=buffer, mode="a") as archive:
            entry = tarfile.TarInfo("vocab2.txt")
            entry.type, entry.linkname = kind, target
            archive.addfile(entry)
        return buffer.getvalue()

    return make


def _named(name: str, content: bytes = b"x") -> Callable[[dict[str, bytes]], bytes]:
    return lambda model: packed(model | {name: content})


def _long_header(model: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT, pax_headers={"comment": "x" * 200_000}) as archive:
        entry = tarfile.TarInfo("config.json")
        archive.addfile(entry)
    return buffer.getvalue()


HOSTILE = {
    "up": _named("../evil.json"),
    "deep up": _named("a/../../evil.json"),
    "absolute": _named("/etc/evil.json"),
    "backslash": _named("..\\evil.json"),
    "hidden": _named(".ssh/authorized.json"),
    "NUL": _named("a\udcff.json"),
    "control": _named("a\n.json"),
    "too deep": _named("a/b/c/d/e.json"),
    "symbolic link": _linked(tarfile.SYMTYPE, "/etc/passwd"),
    "hard link": _linked(tarfile.LNKTYPE, "config.json"),
    "device": _linked(tarfile.CHRTYPE, ""),
    "fifo": _linked(tarfile.FIFOTYPE, ""),
    "pickle by name": _named("pytorch_model.bin", pickle.dumps({"a": 1})),
    "pickle by name, other case": _named("model.PKL", pickle.dumps({"a": 1})),
    "pickle as weights": lambda model: packed(model | {"model.safetensors": pickle.dumps({"a": 1})}),
    "remote code": _named("modeling_x.py", b"import os"),
    "file and folder": lambda model: packed(model | {"a.json": b"{}", "a.json/b.json": b"{}"}),
    "twice": lambda model: packed(model)[:-1024] + packed({"config.json": b"{}"}),
    "no weights": lambda model: packed({name: value for name, value in model.items() if name != "model.safetensors"}),
    "truncated weights": lambda model: packed(model | {"model.safetensors": model["model.safetensors"][:-5]}),
    "nested config": lambda model: packed(model | {"config.json": b"[" * 200_000}),
    "config is no object": lambda model: packed(model | {"config.json": b"[]"}),
    "truncated": lambda model: packed(model)[:-5000],
    "truncated gzip": lambda model: gzip.compress(packed(model))[:-50],
    "broken gzip": lambda model: b"\x1f\x8b" + b"\0" * 600,
    "no archive": lambda model: b"PK\x03\x04" + b"x" * 2000,
    "empty": lambda model: b"",
    "empty archive": lambda model: packed({}),
    "long header": _long_header,
    "many files": lambda model: packed({f"f{number}.json": b"" for number in range(1001)}),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_archives_are_refused_and_leave_nothing(api_on_sqlite: Api, model: dict[str, bytes], name: str) -> None:
    api = api_on_sqlite
    response = api.client.post("/v1/models", content=HOSTILE[name](model), headers=TAR)
    assert response.status_code == 422, response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["code"] in {"upload_invalid", "model_unreadable"}
    assert str(api.scratch) not in response.text
    assert kept(api) == []
    assert not (api.scratch / "evil.json").exists()


def test_bombs_go_off_before_they_are_unpacked(
    api_on_sqlite: Api, make_api: Callable[..., Api], model: dict[str, bytes]
) -> None:
    api = make_api("", max_upload_bytes=200_000)
    bomb = packed(model | {"bomb.safetensors": bytes(50_000_000)}, "w:gz")
    assert len(bomb) < 200_000
    assert_problem(api.client.post("/v1/models", content=bomb, headers=TAR), 422, "upload_too_large")
    large = packed(model | {"more.safetensors": bytes(300_000)})
    assert_problem(api.client.post("/v1/models", content=large, headers=TAR), 413, "body_too_large")
    assert_problem(api.client.post("/v1/models", content=iter([large]), headers=TAR), 413, "body_too_large")
    tokenizer = packed(model | {"tokenizer.json": bytes(65 * 2**20)}, "w:gz")
    refused = assert_problem(api_on_sqlite.client.post("/v1/models", content=tokenizer, headers=TAR), 422, "upload_invalid")
    assert "only weights may have" in refused["detail"]
    assert kept(api) == kept(api_on_sqlite) == []


def test_uploads_of_one_owner_have_an_end(make_api: Callable[..., Api], model: dict[str, bytes]) -> None:
    size = sum(map(len, model.values()))
    api = make_api("", max_uploads_bytes=size + 100)
    assert api.client.post("/v1/models", content=packed(model), headers=TAR).status_code == 201
    other = packed(model | {"README.md": b"x" * 200})
    assert_problem(api.client.post("/v1/models", content=other, headers=TAR), 429, "quota_exceeded")
    assert api.client.post("/v1/models", content=packed(model), headers=TAR).status_code == 200


def test_other_media_types_are_refused(api_on_sqlite: Api) -> None:
    for kind in ("application/zip", "application/json", "multipart/form-data; boundary=x", "text/plain"):
        response = api_on_sqlite.client.post("/v1/models", content=b"x", headers={"content-type": kind})
        assert_problem(response, 415, "unsupported_media_type")


def test_data_sets_hold_splits(api_on_sqlite: Api, tiny_sst2: Path) -> None:
    api = api_on_sqlite
    good = contents(tiny_sst2)
    for files in (
        {"README.md": b"hello"},
        good | {"load.py": b"import os"},
        good | {"train.pkl": b"x"},
        good | {"train.pkl.gz": b"x"},
        good | {"train.tar.gz": b"x"},
        {"dataset_info.json": b"{}", "c.md": b""},
    ):
        assert_problem(api.client.post("/v1/datasets", content=packed(files), headers=TAR), 422, "upload_invalid")
    rows = [{"sentence": "a b", "label": 1}] * 20
    lines = "\n".join(json.dumps(row) for row in rows).encode()
    uploaded = api.client.post("/v1/datasets", content=packed({"train.jsonl": lines, "validation.jsonl": lines}), headers=TAR)
    assert uploaded.status_code == 201
    assert api.client.post("/v1/jobs", json=api.body | {"data": uploaded.json()["id"]}).status_code == 202


def test_a_model_is_no_data_set(api_on_sqlite: Api, model: dict[str, bytes]) -> None:
    api = api_on_sqlite
    upload_id = api.client.post("/v1/models", content=packed(model), headers=TAR).json()["id"]
    assert_problem(api.client.post("/v1/jobs", json=api.body | {"data": upload_id}), 422, "upload_not_found")
    assert_problem(api.client.post("/v1/jobs", json=api.body | {"model": "mdl_" + "0" * 64}), 422, "upload_not_found")


def test_lists_of_uploads_go_page_by_page(api: Api, model: dict[str, bytes]) -> None:
    ids = [
        api.client.post("/v1/models", content=packed(model | {"README.md": str(n).encode()}), headers=TAR).json()["id"]
        for n in range(3)
    ]
    first = api.client.get("/v1/models", params={"limit": 2}).json()
    rest = api.client.get("/v1/models", params={"limit": 2, "after": first["next"]}).json()
    assert sorted(item["id"] for item in first["data"] + rest["data"]) == sorted(ids)
    assert not rest["has_more"]
    assert_problem(api.client.get("/v1/models", params={"after": "mdl_0"}), 422, "invalid_request")


def test_what_a_killed_service_has_left_is_swept_and_nothing_else(api: Api, model: dict[str, bytes]) -> None:
    state = api.client.app.state
    upload_id = api.client.post("/v1/models", content=packed(model), headers=TAR).json()["id"]
    root = state.settings.resolved_uploads_dir
    orphan = f"mdl_{'0' * 64}"
    shutil.copytree(root / upload_id, root / orphan)  # moved there, and killed before the commit
    fresh, dead = state.uploads.draft(), state.uploads.draft()
    for draft in (fresh, dead):
        (draft / "archive").write_bytes(b"half of it")
    long_ago = time.time() - 2 * 86_400
    for path in (dead / "archive", dead):
        os.utime(path, (long_ago, long_ago))
    (root / "mine").mkdir()
    for _ in range(2):
        state.uploads.sweep()
        assert {path.name for path in root.iterdir()} == {upload_id, ".incoming", "mine"}
        assert [path.name for path in (root / ".incoming").iterdir()] == [fresh.name]
    assert api.client.get(f"/v1/models/{upload_id}").status_code == 200
    assert api.submit(model=upload_id)
