"""What every artifact store must do. A test class of a store inherits it, and says in a fixture how the store is built."""

from __future__ import annotations

import hashlib
import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from app.storage import ArtifactMissing, ArtifactStore


def all_keys(store: ArtifactStore, prefix: str = "jobs") -> set[str]:
    return set(store.keys(prefix, after="", limit=100))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.write_bytes(b"0123456789")
    return path


class StoreContract:
    """The contract. Whoever inherits it has a fixture `store`."""

    def test_what_is_put_comes_back(self, store: ArtifactStore, source: Path) -> None:
        store.check()
        assert store.put("jobs/a/1/x/y.bin", source) == (10, hashlib.sha256(b"0123456789").hexdigest())
        assert b"".join(store.open("jobs/a/1/x/y.bin", 0, 10)) == b"0123456789"
        assert b"".join(store.open("jobs/a/1/x/y.bin", 3, 6)) == b"345"
        assert b"".join(store.open("jobs/a/1/x/y.bin", 9, 10)) == b"9"
        assert all_keys(store) == {"jobs/a/1/x/y.bin"}

    def test_an_empty_file_is_a_file(self, store: ArtifactStore, tmp_path: Path) -> None:
        (tmp_path / "empty").touch()
        assert store.put("jobs/a/1/empty", tmp_path / "empty")[0] == 0
        assert list(store.open("jobs/a/1/empty", 0, 0)) == []

    def test_a_large_file_comes_back_whole(self, store: ArtifactStore, tmp_path: Path) -> None:
        content = random.Random(0).randbytes(9_000_001)  # boto3 sends this in parts
        (tmp_path / "large").write_bytes(content)
        assert store.put("jobs/a/1/large", tmp_path / "large") == (len(content), hashlib.sha256(content).hexdigest())
        assert b"".join(store.open("jobs/a/1/large", 1_000_000, 9_000_000)) == content[1_000_000:9_000_000]

    def test_a_second_put_replaces_the_first(self, store: ArtifactStore, source: Path) -> None:
        store.put("jobs/a/1/f", source)
        source.write_bytes(b"new")
        store.put("jobs/a/1/f", source)
        assert b"".join(store.open("jobs/a/1/f", 0, 3)) == b"new"

    @pytest.mark.parametrize("key", ["../x", "jobs/../../x", "/etc/passwd", "", ".", "a\0b"])
    def test_keys_stay_inside(self, store: ArtifactStore, source: Path, key: str) -> None:
        with pytest.raises(ArtifactMissing):
            store.put(key, source)
        with pytest.raises(ArtifactMissing):
            store.open(key, 0, 1)

    @pytest.mark.parametrize("stop", [0, 1])
    def test_a_missing_file_is_said_at_once(self, store: ArtifactStore, stop: int) -> None:
        with pytest.raises(ArtifactMissing):
            store.open("jobs/a/1/none", 0, stop)

    def test_a_put_that_fails_leaves_nothing(self, store: ArtifactStore, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError):
            store.put("jobs/a/1/f", tmp_path / "none")
        assert all_keys(store) == set()

    def test_keys_come_page_by_page_each_once(self, store: ArtifactStore, source: Path) -> None:
        expected = {
            f"jobs/{job}/{fence}/{name}" for job in ("a", "a-b", "b") for fence in (1, 10, 2) for name in ("d/f", "d.f")
        }
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda key: store.put(key, source), expected))
        for size in (1, 4, 100):
            seen: list[str] = []
            while page := store.keys("jobs", after=seen[-1] if seen else "", limit=size):
                assert len(page) <= size
                seen += page
            assert sorted(seen) == sorted(expected)

    def test_deleting_is_thorough_exact_and_patient(self, store: ArtifactStore, source: Path) -> None:
        for key in ("jobs/a/1/f", "jobs/a/1/d/g", "jobs/a/10/f", "jobs/a/2/f", "jobs/ab/1/f"):
            store.put(key, source)
        store.delete_prefix("jobs/a/1")
        store.delete_prefix("jobs/a/1")
        assert all_keys(store) == {"jobs/a/10/f", "jobs/a/2/f", "jobs/ab/1/f"}
        store.delete_prefix("jobs/a")
        assert all_keys(store) == {"jobs/ab/1/f"}
