"""What a model or a data set may be named by: an upload, a path under an allowed root, a Hub id. Nothing else is looked at."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import pytest

from app.inspection.references import resolve
from app.jobs.admission import PACKAGED_READERS
from app.refusals import Refused
from tests.contract.conftest import Api
from tests.contract.problems import assert_problem


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """Things that are there, but not under any root."""
    folder = tmp_path / "outside"
    (folder / "folder").mkdir(parents=True)
    (folder / "file").write_text("secret")
    (folder / "unreadable").mkdir(mode=0)
    (folder / "many").mkdir()
    for index in range(300):
        (folder / "many" / str(index)).touch()
    (folder / "loop").symlink_to(folder / "loop")
    (folder / "dangling").symlink_to(folder / "nothing")
    os.mkfifo(folder / "pipe")
    return folder


@pytest.fixture
def root(tmp_path: Path, tiny_bert: Path) -> Path:
    root = tmp_path / "root"
    shutil.copytree(tiny_bert, root / "model")
    return root


_THINGS = ("folder", "file", "unreadable", "many", "loop", "dangling", "pipe", "none", "file/below", "none/below", "pipe/below")


@pytest.mark.parametrize("field", ["model", "data"])
def test_what_lies_outside_is_told_by_nothing(
    make_api: Callable[..., Api], root: Path, outside: Path, tiny_sst2: Path, field: str
) -> None:
    api = make_api("", allowed_roots=(root, tiny_sst2))
    body = {"model": str(root / "model"), "task": "glue/sst2", "data": str(tiny_sst2), "sparsity": 0.5}
    told = set()
    for thing in _THINGS:
        link = root / f"to-{thing.replace('/', '-')}"
        link.symlink_to(outside / thing)
        for path in (outside / thing, link, root / "model" / ".." / ".." / "outside" / thing, f"{root}/../outside/{thing}/"):
            problem = assert_problem(api.client.post("/v1/jobs", json=body | {field: str(path)}), 422, "path_not_allowed")
            told.add((problem["detail"], problem["errors"][0]["pointer"]))
    assert len(told) == 1, told


def test_links_out_of_a_folder_are_told_by_nothing_either(root: Path, outside: Path) -> None:
    told = set()
    for thing in _THINGS:
        for place in ("link", "a/link", "a/b/c/d/e/f/link"):
            folder = root / uuid4().hex
            (folder / place).parent.mkdir(parents=True)
            (folder / place).symlink_to(outside / thing)
            with pytest.raises(Refused) as refused:
                resolve(str(folder), "/model", [root])
            told.add((refused.value.code, refused.value.message))
    assert len(told) == 1, told


@pytest.fixture
def touched(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every path that the system is asked about."""
    seen: list[str] = []
    for name in ("stat", "lstat", "readlink", "scandir", "listdir", "open"):
        real = getattr(os, name)

        def spy(path: object, *arguments: object, _real: Callable[..., object] = real, **named: object) -> object:
            seen.append(os.fspath(path))  # type: ignore[arg-type]
            return _real(path, *arguments, **named)

        monkeypatch.setattr(os, name, spy)
    return seen


def test_nothing_outside_is_looked_at(root: Path, outside: Path, touched: list[str]) -> None:
    (root / "direct").symlink_to(outside / "folder")
    (root / "model" / "deep").mkdir()
    (root / "model" / "deep" / "link").symlink_to(f"../../../{outside.name}/many/../file")
    for path in (outside / "folder", outside / "none", f"{root}/../outside/file", root / "direct" / "x", root / "model"):
        touched.clear()
        with pytest.raises(Refused):
            resolve(str(path), "/model", [root])
        assert not [own for own in touched if own.startswith(str(outside))], path


def test_paths_under_roots_and_links_between_them_are_taken(root: Path, tmp_path: Path) -> None:
    other = tmp_path / "blobs"
    other.mkdir()
    (other / "weights").write_bytes(b"x")
    (root / "snapshot").mkdir()
    (root / "snapshot" / "model.safetensors").symlink_to("../../blobs/weights")  # as the Hub's cache has it
    (root / "latest").symlink_to("snapshot")
    (tmp_path / "named").symlink_to(root)
    roots = [tmp_path / "named", other]
    found = root / "snapshot"
    for path in (
        found,
        root / "latest",
        tmp_path / "named" / "latest",
        f"{root}//./model/../snapshot/",
        f"{tmp_path}/named/snapshot",
    ):
        assert resolve(str(path), "/model", roots) == found
    assert resolve(str(root), "/model", [root.parent]) == root
    assert resolve(f"{root}/none/below", "/model", [root]) == root / "none" / "below"


def test_a_folder_is_looked_through_whole_or_not_taken(root: Path, outside: Path) -> None:
    assert resolve(str(root / "model"), "/model", [root], most_members=50) == root / "model"
    (root / "model" / "zz").mkdir()
    for index in range(60):
        (root / "model" / "zz" / str(index)).touch()
    with pytest.raises(Refused, match="more than 50 files"):
        resolve(str(root / "model"), "/model", [root], most_members=50)
    deep = root / "model" / "/".join("abcdefghij")
    deep.mkdir(parents=True)
    (deep / "link").symlink_to(outside / "file")
    with pytest.raises(Refused, match="leads out of the folders"):
        resolve(str(root / "model"), "/model", [root])


def test_what_a_linked_folder_holds_is_looked_at_too(root: Path, outside: Path) -> None:
    (root / "elsewhere").mkdir()
    (root / "elsewhere" / "up").symlink_to(outside)
    (root / "model" / "linked").symlink_to("../elsewhere")
    with pytest.raises(Refused, match="leads out of the folders"):
        resolve(str(root / "model"), "/model", [root])
    (root / "elsewhere" / "up").unlink()
    (root / "elsewhere" / "round").symlink_to("../model")
    assert resolve(str(root / "model"), "/model", [root])


@pytest.mark.parametrize("place", ["config.json", "sub/x.json"])
def test_pipes_and_sockets_are_not_opened(api_on_sqlite: Api, tiny_bert: Path, place: str) -> None:
    folder = Path(shutil.copytree(tiny_bert, tiny_bert.parent / f"piped-{uuid4().hex}"))
    (folder / "sub").mkdir()
    (folder / place).unlink(missing_ok=True)
    os.mkfifo(folder / place)
    body = api_on_sqlite.body | {"model": str(folder)}
    problem = assert_problem(api_on_sqlite.client.post("/v1/jobs", json=body), 422, "path_not_allowed")
    assert "pipes, sockets or devices" in problem["detail"]
    (folder / place).unlink()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.path.relpath(folder / place))
        assert_problem(api_on_sqlite.client.post("/v1/jobs", json=body), 422, "path_not_allowed")
    shutil.rmtree(folder)


def test_loops_and_endless_names_end(root: Path) -> None:
    (root / "loop").symlink_to("loop")
    (root / "a").symlink_to("b")
    (root / "b").symlink_to("a")
    for path in (root / "loop", root / "a", f"{root}/{'x' * 300}", f"{root}/{'x/' * 9000}"):
        with pytest.raises(Refused, match="cannot be resolved"):
            resolve(str(path), "/model", [root])
    for path in ("relative", "../up", f"{root}/\0", ""):
        with pytest.raises(Refused, match="must be absolute"):
            resolve(path, "/model", [root])


NO_HUB_IDS = [
    *("org//name", "/", "org/", "org/name/more", "org/../name", "..", "org/..", ".hidden", "-x", "org/-x", "org/.x", "a--b"),
    *(
        "name.",
        "org/name.git",
        "org/name-",
        "nämé",
        "org/ｎame",
        "org/na\u200bme",
        "org name",
        "org\\name",
        "C:\\x",
    ),
    *("file:///etc", "hf://org/name", "https://x/y", "org/name@", "org/name?x", "$HOME", "*", "{a}", "%2e%2e", "~"),
    *(
        "mdl_0",
        f"mdl_{'0' * 63}",
        f"mdl_{'0' * 65}",
        f"mdl_{'g' * 64}",
        f"mdl_{'A' * 64}",
        f"dst_{'0' * 63}/x",
        "mdl_x/name",
        "x" * 300,
    ),
]


@pytest.mark.parametrize("field", ["model", "data"])
def test_what_is_no_hub_id_is_refused(api_on_sqlite: Api, field: str) -> None:
    for reference in NO_HUB_IDS:
        response = api_on_sqlite.client.post("/v1/jobs", json=api_on_sqlite.body | {field: reference})
        assert response.status_code == 422, reference
        problem = assert_problem(response, 422, response.json()["code"])
        assert problem["code"] in {"invalid_request", "path_not_allowed"}, reference
        assert problem["errors"][0]["pointer"] == f"/{field}", reference


def test_formats_are_no_data_sets(api_on_sqlite: Api) -> None:
    from datasets.packaged_modules import _PACKAGED_DATASETS_MODULES

    assert set(_PACKAGED_DATASETS_MODULES) <= PACKAGED_READERS
    for name in ("csv", "imagefolder", "Parquet"):
        answer = api_on_sqlite.client.post("/v1/jobs", json=api_on_sqlite.body | {"data": name})
        assert "is a format and no data set" in assert_problem(answer, 422, "invalid_request")["detail"]
    assert api_on_sqlite.client.post("/v1/jobs", json=api_on_sqlite.body | {"data": "org/csv"}).status_code == 202


def test_a_hub_id_is_never_a_folder_of_the_server(api_on_sqlite: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "uploads").mkdir()
    monkeypatch.chdir(tmp_path)
    job = api_on_sqlite.client.post("/v1/jobs", json=api_on_sqlite.body | {"data": "uploads"})
    assert job.status_code == 202
    assert job.json()["spec"]["task"]["dataset"] == "uploads", "a name, and no path: the worker asks the Hub for it"
