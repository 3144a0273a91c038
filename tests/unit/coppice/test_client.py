"""The client against the real application over a real socket."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from coppice import ApiError, Artifact, Client, DownloadCorrupt, FolderTaken, JobUnsuccessful, ServiceUnreachable
from coppice.files import Fetch, target_of
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
        target_of(tmp_path, path)


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


def test_one_line_from_folders_to_a_bundle(live: Live, tiny_bert: Path, tiny_sst2: Path, tmp_path: Path) -> None:
    threading.Thread(target=live.succeed).start()
    with Client(live.url) as client:
        done = client.prune(tiny_bert, "glue/sst2", sparsity=0.5, data=tiny_sst2, options={"seed": 3}).wait()
        bundle = done.download(tmp_path / "bundle")
        again = client.upload_model(tiny_bert)
    assert done.latest.spec["model"] == again.id
    assert done.latest.spec["seed"] == 3
    assert {path: (bundle / path).read_bytes() for path in FILES} == FILES


def test_waiting_for_success_raises_where_there_is_none(live: Live) -> None:
    with Client(live.url) as client:
        handle = client.job(client.submit(live.spec).id)
        live.fail()
        with pytest.raises(JobUnsuccessful, match="too coarse") as ended:
            handle.wait()
        assert ended.value.job.status == "failed"
        assert handle.retry().latest.status == "queued"
        threading.Thread(target=live.succeed).start()
        assert [event.type for event in handle.events()][-1] == "job.succeeded"


def test_a_job_is_deleted(live: Live) -> None:
    with Client(live.url) as client:
        job = client.submit(live.spec, job_id="nightly")
        client.delete(job.id)
        assert client.list() == []
        with pytest.raises(ApiError) as refused:
            client.delete(job.id)
        assert refused.value.code == "job_not_found"


def test_a_job_under_an_id_of_ones_own_is_one_job(live: Live) -> None:
    with Client(live.url) as client:
        assert {client.submit(live.spec, job_id="nightly").id for _ in range(2)} == {"nightly"}
        assert len(client.list()) == 1


def test_a_plan_submits_nothing(live: Live) -> None:
    with Client(live.url) as client:
        plan = client.plan(live.spec)
        assert plan.predicted is not None
        assert plan.predicted.parameters.pruned < plan.predicted.parameters.dense
        assert client.list() == []


def test_the_key_is_shown_and_kept_to_its_service(guarded: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    with Client(guarded.url) as client, pytest.raises(ApiError) as refused:
        client.list()
    assert refused.value.status == 401
    with Client(guarded.url, api_key=guarded.key()) as client:
        assert client.list() == []
    monkeypatch.setenv("COPPICE_API_KEY", guarded.key())
    with Client(guarded.url) as client:
        assert client.list() == []
    elsewhere = Artifact(path="a", size=1, sha256="0" * 64, url="http://elsewhere.example/a")
    for url in (elsewhere.url, "//elsewhere.example/a"):
        with pytest.raises(DownloadCorrupt, match="another host"):
            Fetch(elsewhere.model_copy(update={"url": url}), Path("a"), print).path  # noqa: B018 - the look is the test


def test_a_service_that_sends_without_end_fills_no_disk(tmp_path: Path) -> None:
    fetch = Fetch(Artifact(path="a\x1b", size=4, sha256="0" * 64, url="/a"), tmp_path / "a.part", lambda _size: None)
    with fetch.open(200) as file:
        fetch.write(file, b"abc")
        with pytest.raises(DownloadCorrupt, match=r"more of 'a\\x1b' than the 4 bytes"):
            fetch.write(file, b"de")
    assert fetch.partial.read_bytes() == b"abc"


class Answers(BaseHTTPRequestHandler):
    """Gives canned answers, then a job; counts and keeps what it was asked."""

    asked: ClassVar[list[tuple[str, str | None]]]
    canned: ClassVar[list[int]]

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"] or 0))
        self.asked.append((self.path, self.headers["idempotency-key"]))
        status = self.canned.pop(0) if self.canned else 202
        job = {"id": "job_1", "status": "queued", "created_at": "2026-01-01T00:00:00Z", "spec": {}, "attempt": 0}
        body = json.dumps(job if status < 400 else {"code": "busy", "detail": "later"}).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        if status == 429:
            self.send_header("retry-after", "1")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_arguments: object) -> None:
        pass


@pytest.fixture
def flaky() -> Iterator[str]:
    Answers.asked, Answers.canned = [], []
    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_busy_service_is_asked_again_with_the_same_key_and_not_before_it_says(flaky: str) -> None:
    Answers.canned = [503, 429, 502]
    with Client(flaky) as client:
        began = time.monotonic()
        assert client.submit({"model": "a"}).id == "job_1"
    assert time.monotonic() - began >= 1
    assert len(Answers.asked) == 4
    assert len({key for _path, key in Answers.asked}) == 1


def test_what_must_not_happen_twice_is_not_sent_twice(flaky: str) -> None:
    Answers.canned = [503, 502]
    with Client(flaky) as client, pytest.raises(ApiError) as refused:
        client.retry("job_1")
    assert refused.value.status == 502
    assert len(Answers.asked) == 2
