import hashlib

import pytest

from app.storage import ArtifactMissing, LocalArtifactStore


@pytest.fixture
def store(tmp_path):
    return LocalArtifactStore(tmp_path / "store")


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "source"
    path.write_bytes(b"0123456789")
    return path


def test_what_is_put_comes_back(store, source):
    assert store.put("jobs/a/1/x/y.bin", source) == (10, hashlib.sha256(b"0123456789").hexdigest())
    assert b"".join(store.open("jobs/a/1/x/y.bin", 0, 10)) == b"0123456789"
    assert b"".join(store.open("jobs/a/1/x/y.bin", 3, 6)) == b"345"
    assert store.keys("jobs/a", after="", limit=10) == ["jobs/a/1/x/y.bin"]


@pytest.mark.parametrize("key", ["../x", "jobs/../../x", "/etc/passwd", "", "."])
def test_keys_stay_inside(store, source, key):
    with pytest.raises(ArtifactMissing):
        store.put(key, source)
    with pytest.raises(ArtifactMissing):
        store.open(key, 0, 1)


def test_links_out_of_the_store_are_not_followed(store, tmp_path, source):
    store.put("jobs/a/1/f", source)
    (tmp_path / "store" / "jobs" / "b").symlink_to(tmp_path)
    with pytest.raises(ArtifactMissing):
        store.open("jobs/b/source", 0, 1)


def test_a_missing_file_is_said_at_once(store):
    with pytest.raises(ArtifactMissing):
        store.open("jobs/a/1/none", 0, 1)


def test_a_put_that_fails_leaves_nothing(store, tmp_path):
    with pytest.raises(FileNotFoundError):
        store.put("jobs/a/1/f", tmp_path / "none")
    assert store.keys("jobs/a", after="", limit=10) == []


def test_deleting_is_thorough_and_patient(store, source):
    store.put("jobs/a/1/f", source)
    store.put("jobs/a/2/f", source)
    store.delete_prefix("jobs/a/1")
    store.delete_prefix("jobs/a/1")
    assert store.keys("jobs", after="", limit=10) == ["jobs/a/2/f"]
