"""One contract for every store, and what is a folder's own."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import uuid4

import pytest

from app.settings import Settings
from app.storage import ArtifactMissing, ArtifactStore, LocalArtifactStore, StoreUnavailable, create_store
from tests import servers


@pytest.fixture(params=["folder", "bucket", "prefix of a bucket"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ArtifactStore]:
    if request.param == "folder":
        yield create_store(Settings(data_dir=tmp_path))
        return
    bucket = request.getfixturevalue("s3_bucket")
    prefix = "" if request.param == "bucket" else "/some/where"
    yield create_store(Settings(data_dir=tmp_path, artifacts_url=f"s3://{bucket}{prefix}"))


@pytest.fixture
def local(tmp_path: Path) -> LocalArtifactStore:
    return LocalArtifactStore(tmp_path / "store")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.write_bytes(b"0123456789")
    return path


def _all(store: ArtifactStore, prefix: str = "jobs") -> set[str]:
    return set(store.keys(prefix, after="", limit=100))


def test_what_is_put_comes_back(store: ArtifactStore, source: Path) -> None:
    store.check()
    assert store.put("jobs/a/1/x/y.bin", source) == (10, hashlib.sha256(b"0123456789").hexdigest())
    assert b"".join(store.open("jobs/a/1/x/y.bin", 0, 10)) == b"0123456789"
    assert b"".join(store.open("jobs/a/1/x/y.bin", 3, 6)) == b"345"
    assert b"".join(store.open("jobs/a/1/x/y.bin", 9, 10)) == b"9"
    assert _all(store) == {"jobs/a/1/x/y.bin"}


def test_an_empty_file_is_a_file(store: ArtifactStore, tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    assert store.put("jobs/a/1/empty", tmp_path / "empty")[0] == 0
    assert list(store.open("jobs/a/1/empty", 0, 0)) == []


def test_a_large_file_comes_back_whole(store: ArtifactStore, tmp_path: Path) -> None:
    content = random.Random(0).randbytes(9_000_001)  # boto3 sends this in parts
    (tmp_path / "large").write_bytes(content)
    assert store.put("jobs/a/1/large", tmp_path / "large") == (len(content), hashlib.sha256(content).hexdigest())
    assert b"".join(store.open("jobs/a/1/large", 1_000_000, 9_000_000)) == content[1_000_000:9_000_000]


def test_a_second_put_replaces_the_first(store: ArtifactStore, source: Path) -> None:
    store.put("jobs/a/1/f", source)
    source.write_bytes(b"new")
    store.put("jobs/a/1/f", source)
    assert b"".join(store.open("jobs/a/1/f", 0, 3)) == b"new"


@pytest.mark.parametrize("key", ["../x", "jobs/../../x", "/etc/passwd", "", ".", "a\0b"])
def test_keys_stay_inside(store: ArtifactStore, source: Path, key: str) -> None:
    with pytest.raises(ArtifactMissing):
        store.put(key, source)
    with pytest.raises(ArtifactMissing):
        store.open(key, 0, 1)


@pytest.mark.parametrize("stop", [0, 1])
def test_a_missing_file_is_said_at_once(store: ArtifactStore, stop: int) -> None:
    with pytest.raises(ArtifactMissing):
        store.open("jobs/a/1/none", 0, stop)


def test_a_put_that_fails_leaves_nothing(store: ArtifactStore, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        store.put("jobs/a/1/f", tmp_path / "none")
    assert _all(store) == set()


def test_keys_come_page_by_page_each_once(store: ArtifactStore, source: Path) -> None:
    expected = {f"jobs/{job}/{fence}/{name}" for job in ("a", "a-b", "b") for fence in (1, 10, 2) for name in ("d/f", "d.f")}
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda key: store.put(key, source), expected))
    for size in (1, 4, 100):
        seen: list[str] = []
        while page := store.keys("jobs", after=seen[-1] if seen else "", limit=size):
            assert len(page) <= size
            seen += page
        assert sorted(seen) == sorted(expected)


def test_deleting_is_thorough_exact_and_patient(store: ArtifactStore, source: Path) -> None:
    for key in ("jobs/a/1/f", "jobs/a/1/d/g", "jobs/a/10/f", "jobs/a/2/f", "jobs/ab/1/f"):
        store.put(key, source)
    store.delete_prefix("jobs/a/1")
    store.delete_prefix("jobs/a/1")
    assert _all(store) == {"jobs/a/10/f", "jobs/a/2/f", "jobs/ab/1/f"}
    store.delete_prefix("jobs/a")
    assert _all(store) == {"jobs/ab/1/f"}


def test_links_out_of_the_store_are_not_followed(local: LocalArtifactStore, tmp_path: Path, source: Path) -> None:
    local.put("jobs/a/1/f", source)
    (tmp_path / "store" / "jobs" / "b").symlink_to(tmp_path)
    with pytest.raises(ArtifactMissing):
        local.open("jobs/b/source", 0, 1)
    assert _all(local) == {"jobs/a/1/f", "jobs/b"}


def test_what_a_killed_put_has_left_is_listed_and_deleted(local: LocalArtifactStore, tmp_path: Path, source: Path) -> None:
    local.put("jobs/a/1/f", source)
    (tmp_path / "store" / "jobs" / "a" / "1" / ".f.0.tmp").write_bytes(b"012")
    assert _all(local) == {"jobs/a/1/f", "jobs/a/1/.f.0.tmp"}
    local.delete_prefix("jobs/a/1")
    assert _all(local) == set()
    assert list((tmp_path / "store" / "jobs").iterdir()) == []


@pytest.mark.usefixtures("s3_bucket")
def test_a_service_that_is_not_there_is_unavailable(monkeypatch: pytest.MonkeyPatch, source: Path) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{servers.free_port()}")
    _assert_unavailable(create_store(Settings(artifacts_url="s3://bucket")), source)


@pytest.mark.usefixtures("s3_bucket")
def test_a_bucket_that_is_not_there_is_unavailable(source: Path) -> None:
    _assert_unavailable(create_store(Settings(artifacts_url=f"s3://none-{uuid4().hex}")), source)


def _assert_unavailable(store: ArtifactStore, source: Path) -> None:
    for act in (
        store.check,
        lambda: store.put("jobs/a/1/f", source),
        lambda: store.open("jobs/a/1/f", 0, 1),
        lambda: store.keys("jobs", after="", limit=1),
        lambda: store.delete_prefix("jobs/a"),
    ):
        with pytest.raises(StoreUnavailable):
            act()
