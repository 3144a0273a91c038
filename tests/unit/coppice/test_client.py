"""The client against the real application over a real socket."""

from __future__ import annotations

import hashlib
import threading
from pathlib import Path

import pytest

from coppice import ApiError, Client, DownloadCorrupt, FolderTaken, ServiceUnreachable
from coppice.client import _target
from tests.servers import free_port
from tests.unit.coppice.conftest import FILES, Live


def test_a_job_from_submit_to_download(live: Live, tmp_path: Path) -> None:
    with Client(live.url) as client:
        job = client.submit(live.spec)
        assert (job.status, job.finished) == ("queued", False)
        threading.Timer(0.3, live.succeed).start()
        seen: list[str] = []
        done = client.wait(job.id, lambda now: seen.append(now.status))
        assert (done.status, seen[0], seen[-1]) == ("succeeded", "queued", "succeeded")
        told: list[tuple[int, int]] = []
        bundle = client.download(job.id, tmp_path / "bundle", lambda *numbers: told.append(numbers))
        assert client.report(job.id).target.achieved == 0.501
        assert [event.type for event in client.events(job.id)] == ["job.queued", "job.started", "job.succeeded"]
    assert {path: (bundle / path).read_bytes() for path in FILES} == FILES
    total = sum(map(len, FILES.values()))
    assert told[-1] == (total, total)
    assert not list(bundle.rglob("*.part"))


def test_the_same_key_gives_the_same_job(live: Live) -> None:
    with Client(live.url) as client:
        first, second = (client.submit(live.spec, idempotency_key="mine") for _ in range(2))
        other = client.submit(live.spec)
    assert first.id == second.id != other.id


def test_listing_follows_pages_and_filters(live: Live) -> None:
    with Client(live.url) as client:
        ids = [client.submit(live.spec).id for _ in range(5)]
        client.cancel(ids[2])
        assert [job.id for job in client.list(limit=4)] == ids[:0:-1]
        assert [job.id for job in client.list(statuses=["cancelled"])] == [ids[2]]


def test_a_broken_download_goes_on_where_it_stopped(live: Live, tmp_path: Path) -> None:
    job_id = _succeeded(live)
    content = FILES["model.safetensors"]
    part = tmp_path / "bundle" / "model.safetensors.part"
    part.parent.mkdir()
    part.write_bytes(content[:200_000])
    sizes: list[int] = []
    with Client(live.url) as client:
        client.download(job_id, tmp_path / "bundle", lambda done, _total: sizes.append(done))
    assert (tmp_path / "bundle" / "model.safetensors").read_bytes() == content
    reached = [size for size in sizes if size > len(FILES["1_Pooling/config.json"])]
    assert min(reached) > 200_000, "the first bytes were not fetched again"


def test_another_bundle_is_never_overwritten(live: Live, tmp_path: Path) -> None:
    job_id = _succeeded(live)
    other = tmp_path / "bundle" / "1_Pooling" / "config.json"
    other.parent.mkdir(parents=True)
    other.write_text("of another bundle")
    with Client(live.url) as client, pytest.raises(FolderTaken, match=r"holds another 1_Pooling/config\.json"):
        client.download(job_id, tmp_path / "bundle")
    assert other.read_text() == "of another bundle"
    assert [path for path in (tmp_path / "bundle").rglob("*") if path.is_file()] == [other]


def test_what_arrives_damaged_is_not_kept(live: Live, tmp_path: Path) -> None:
    job_id = _succeeded(live)
    part = tmp_path / "bundle" / "model.safetensors.part"
    part.parent.mkdir()
    part.write_bytes(b"not the beginning of this file")
    with Client(live.url) as client:
        with pytest.raises(DownloadCorrupt):
            client.download(job_id, tmp_path / "bundle")
        assert not part.exists()
        assert not (tmp_path / "bundle" / "model.safetensors").exists()
        bundle = client.download(job_id, tmp_path / "bundle")
    assert (
        hashlib.sha256((bundle / "model.safetensors").read_bytes()).digest()
        == hashlib.sha256(FILES["model.safetensors"]).digest()
    )


@pytest.mark.parametrize("path", ["../evil", "/etc/evil", "a/../../evil", ""])
def test_a_service_cannot_write_outside_the_bundle(path: str, tmp_path: Path) -> None:
    with pytest.raises(DownloadCorrupt):
        _target(tmp_path, path)


def test_a_problem_is_an_error_with_its_code(live: Live) -> None:
    with Client(live.url) as client:
        with pytest.raises(ApiError) as missing:
            client.get("job_nothing")
        assert (missing.value.status, missing.value.code) == (404, "job_not_found")
        assert missing.value.request_id
        with pytest.raises(ApiError) as refused:
            client.submit({"model": "org/name", "task": "glue/sst2", "sparsity": 1.5})
        assert (refused.value.status, "must be > 0 and < 1, got 1.5" in str(refused.value)) == (422, True)


def test_no_service_is_said_plainly() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    with Client(url, retry_for_s=0.2) as client, pytest.raises(ServiceUnreachable, match="is it running"):
        client.list()


def test_a_proxy_of_the_environment_does_not_stand_before_loopback(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    nowhere = f"http://127.0.0.1:{free_port()}"
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, nowhere)
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    with Client(live.url, retry_for_s=0.2) as client:
        assert client.list() == []


def _succeeded(live: Live) -> str:
    with Client(live.url) as client:
        job = client.submit(live.spec)
    live.succeed()
    return job.id
