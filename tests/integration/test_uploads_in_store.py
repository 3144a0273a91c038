"""Uploads in an object store, without a folder that API and workers share."""

from __future__ import annotations

import errno
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.db import Database
from app.inspection.records import UploadKind
from app.keys.records import Caller
from app.settings import Settings
from app.storage import create_store
from app.uploads import contents as module
from app.uploads.contents import StoreContents
from app.uploads.records import Upload
from app.uploads.service import UploadService
from migrations import upgrade
from pruning_core.spec.prune import PruneSpec
from tests.integration.service import Backend, Service
from tests.tiny import tiny_spec

SIZE = 400_000


def never() -> bool:
    return False


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    found = Database(f"sqlite+pysqlite:///{tmp_path / 'coppice.db'}")
    upgrade(found)
    yield found
    found.close()


def host(folder: Path, bucket: str, **changes: int) -> Settings:
    """Settings of one host, whose folders no other has."""
    return Settings(data_dir=folder, artifacts_url=f"s3://{bucket}/prefix", **changes)


def kept(uploads: UploadService, content: bytes, *, owner: str = "acme") -> Upload:
    """Upload a model of one file and another."""
    draft = uploads.draft()
    folder = draft / "content"
    (folder / "sub").mkdir(parents=True)
    files = []
    for path, data in (("model.bin", content * (SIZE // len(content))), ("sub/config.json", b"{}")):
        (folder / path).write_bytes(data)
        files.append(module.UploadedFile(path, len(data), module.hashlib.sha256(data).hexdigest()))
    upload, _new = uploads.keep(UploadKind.MODEL, files, folder, caller=Caller(owner))
    uploads.discard(draft)
    return upload


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.long
def test_a_job_reads_uploads_on_a_host_that_shares_nothing_but_the_store(
    s3_bucket: str, postgres_url: str, redis_url: str, tmp_path: Path, tiny_bert: Path, tiny_sst2: Path
) -> None:
    backend = Backend("scaled", tmp_path / "api", postgres_url, redis_url)
    service = Service(backend, tmp_path, settings={"COPPICE_ARTIFACTS_URL": f"s3://{s3_bucket}"})
    spec = tiny_spec(tiny_bert, tiny_sst2).model_dump(mode="json")
    elsewhere = {"COPPICE_DATA_DIR": str(tmp_path / "worker")}
    with service.api() as client, service.process("worker", "-m", "coppice.cli", "worker", changes=elsewhere):
        model, data = client.upload_model(tiny_bert), client.upload_dataset(tiny_sst2)
        spec["model"], spec["task"]["dataset"] = model.id, data.id
        done = client.wait(client.submit(PruneSpec.model_validate(spec)).id)
        assert done.status == "succeeded", done.error
        cache = tmp_path / "worker" / "artifacts" / "uploads"
        assert {model.id, data.id} <= {path.name for path in cache.iterdir()}
        assert not (tmp_path / "worker" / "coppice.db").exists()
        report = client.report(done.id).model_dump_json()
        assert str(tmp_path / "worker") not in report
        assert str(tmp_path / "api") not in report
        assert "model.safetensors" in {artifact.path for artifact in client.get(done.id).artifacts}
        client.delete(done.id)


def test_content_is_fetched_once_and_checked(s3_bucket: str, database: Database, tmp_path: Path) -> None:
    here, there = (UploadService(host(tmp_path / name, s3_bucket), database) for name in ("api", "worker"))
    upload = kept(here, b"abcd")
    with there.in_use(upload.id, owner="acme", interrupted=never) as folder:
        assert folder is not None
        assert folder.is_relative_to(tmp_path / "worker")
        assert (folder / "sub" / "config.json").read_bytes() == b"{}"
        assert (folder / "model.bin").stat().st_size == SIZE
    with there.in_use(upload.id, owner="rival", interrupted=never) as folder:
        assert folder is None, "another tenant has no such upload"
    other = UploadService(host(tmp_path / "third", s3_bucket), database)
    with pytest.raises(InterruptedError), other.in_use(upload.id, owner="acme", interrupted=lambda: True):
        pass
    forged = tmp_path / "forged"
    forged.write_bytes(b"x" * SIZE)
    create_store(host(tmp_path / "api", s3_bucket)).put(f"uploads/{upload.id}/model.bin", forged)
    with (
        pytest.raises(OSError, match="not the one that was uploaded"),
        other.in_use(upload.id, owner="acme", interrupted=never),
    ):
        pass
    assert not any((tmp_path / "third").rglob("model.bin")), "nothing half or wrong is left"


def test_the_cache_is_bounded_and_keeps_what_is_in_use(
    s3_bucket: str, database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_JUST_USED_S", -1.0)
    api = UploadService(host(tmp_path / "api", s3_bucket), database)
    first, second, third = (kept(api, content) for content in (b"1", b"2", b"3"))
    root = tmp_path / "worker" / "artifacts" / "uploads"
    worker = UploadService(host(tmp_path / "worker", s3_bucket, uploads_cache_bytes=2**20), database)  # two of the three

    def cached() -> set[str]:
        return {path.name for path in root.iterdir() if not path.name.startswith(".")}

    with worker.in_use(first.id, owner="acme", interrupted=never) as held:
        with worker.in_use(second.id, owner="acme", interrupted=never):
            pass
        time.sleep(0.05)
        with worker.in_use(third.id, owner="acme", interrupted=never) as last:
            assert cached() == {first.id, third.id}, "the one that nobody uses has gone, though it was used later"
            assert held.is_dir()
            assert last.is_dir()
            with pytest.raises(OSError, match="COPPICE_UPLOADS_CACHE_BYTES") as full:
                worker.finder("acme")(second.id, UploadKind.MODEL)
            assert full.value.errno == errno.ENOSPC
    assert worker.finder("acme")(second.id, UploadKind.MODEL).is_dir()
    assert len(cached()) == 2


def test_deleting_takes_content_from_the_store_and_sweeping_from_other_hosts(
    s3_bucket: str, database: Database, tmp_path: Path
) -> None:
    api, worker = (UploadService(host(tmp_path / name, s3_bucket), database) for name in ("api", "worker"))
    upload, shared = kept(api, b"gone"), kept(api, b"both")
    kept(api, b"both", owner="rival")
    for one in (upload, shared):
        worker.finder("acme")(one.id, UploadKind.MODEL)
        api.delete(UploadKind.MODEL, one.id, caller=Caller("acme"))
    store = create_store(host(tmp_path / "api", s3_bucket))
    left = {key.split("/")[1] for key in store.keys("uploads", after="", limit=99)}
    assert left == {shared.id}
    root = tmp_path / "worker" / "artifacts" / "uploads"
    assert (root / upload.id).is_dir()
    worker.sweep()
    assert not (root / upload.id).exists()
    assert (root / shared.id).is_dir()


def test_content_that_is_deleted_while_it_is_stored_again_is_stored_again(
    s3_bucket: str, database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    api, other = (UploadService(host(tmp_path / name, s3_bucket), database) for name in ("api", "other"))
    rival = kept(other, b"same", owner="rival")
    put, tries = StoreContents.store, []

    def put_then_lose(self, upload_id, files, folder):
        put(self, upload_id, files, folder)
        tries.append(upload_id)
        if len(tries) == 1:
            other.delete(UploadKind.MODEL, upload_id, caller=Caller("rival"))

    monkeypatch.setattr(StoreContents, "store", put_then_lose)
    upload = kept(api, b"same")
    assert tries == [rival.id, rival.id]
    third = UploadService(host(tmp_path / "third", s3_bucket), database)
    assert third.finder("acme")(upload.id, UploadKind.MODEL).is_dir()
