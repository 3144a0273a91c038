"""One contract for every store, and what is a folder's own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from app.settings import Settings
from app.storage import ArtifactMissing, ArtifactStore, LocalArtifactStore, StoreUnavailable, create_store
from tests import servers
from tests.store_contract import StoreContract, all_keys, source

__all__ = ["source"]  # a fixture


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


class TestStores(StoreContract):
    """Ours: a folder, a bucket and a prefix of one."""


def test_links_out_of_the_store_are_not_followed(local: LocalArtifactStore, tmp_path: Path, source: Path) -> None:
    local.put("jobs/a/1/f", source)
    (tmp_path / "store" / "jobs" / "b").symlink_to(tmp_path)
    with pytest.raises(ArtifactMissing):
        local.open("jobs/b/source", 0, 1)
    assert all_keys(local) == {"jobs/a/1/f", "jobs/b"}


def test_what_a_killed_put_has_left_is_listed_and_deleted(local: LocalArtifactStore, tmp_path: Path, source: Path) -> None:
    local.put("jobs/a/1/f", source)
    (tmp_path / "store" / "jobs" / "a" / "1" / ".f.0.tmp").write_bytes(b"012")
    assert all_keys(local) == {"jobs/a/1/f", "jobs/a/1/.f.0.tmp"}
    local.delete_prefix("jobs/a/1")
    assert all_keys(local) == set()
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
