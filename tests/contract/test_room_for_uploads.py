"""Room for uploads: asked for before a body comes, counted as it comes, by all processes alike."""

from __future__ import annotations

import contextlib
import io
import json
import os
import socket
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
from structlog.testing import capture_logs

from app.inspection.content import unpack
from app.inspection.records import UploadKind
from app.keys.records import Caller, Scope
from app.refusals import NoRoom
from tests.contract.archives import TAR, TAR_TYPE, packed
from tests.contract.conftest import Api, drafts
from tests.contract.problems import assert_problem
from tests.contract.test_security import head, listening, raw
from tests.servers import wait_until


def expecting(length: int) -> bytes:
    return head("/v1/models", length, TAR_TYPE).replace(b"Host: a", b"Host: a\r\nExpect: 100-continue")


@pytest.mark.parametrize(
    ("changes", "length", "status", "code"),
    [
        ({"max_uploads_bytes": 2**20}, 100 * 2**20, 429, b"quota_exceeded"),
        ({"max_upload_bytes": 2**20}, 2 * 2**20, 413, b"body_too_large"),
        ({"min_free_bytes": 2**62}, 1000, 507, b"storage_full"),
        ({}, 32 * 2**30, 507, b"storage_full"),
    ],
)
def test_what_there_is_no_room_for_is_refused_before_it_comes(
    api_on_sqlite: Api, changes: dict[str, object], length: int, status: int, code: bytes
) -> None:
    if length == 32 * 2**30:
        changes = {"min_free_bytes": psutil.disk_usage(str(api_on_sqlite.scratch)).free - 10 * 2**30}
    settings = api_on_sqlite.client.app.state.settings.model_copy(update=changes)
    with listening(settings) as port:
        answer = raw(port, expecting(length))
        assert answer.startswith(f"HTTP/1.1 {status}".encode()), answer
        assert code in answer
        assert b"connection: close" in answer.lower()
        assert b"100 Continue" not in answer
    assert drafts(api_on_sqlite) == []


def test_a_body_is_asked_for_when_there_is_room(api_on_sqlite: Api, model: dict[str, bytes]) -> None:
    archive = packed(model)
    with (
        listening(api_on_sqlite.client.app.state.settings) as port,
        socket.create_connection(("127.0.0.1", port), timeout=20) as connection,
    ):
        connection.sendall(expecting(len(archive)))
        assert connection.recv(1000).startswith(b"HTTP/1.1 100 Continue")
        connection.sendall(archive)
        assert connection.recv(1000).startswith(b"HTTP/1.1 201")


def test_a_stream_without_a_length_is_counted_as_it_comes(make_api: Callable[..., Api]) -> None:
    api = make_api("", max_uploads_bytes=2**20)
    largest = 0

    def pieces():
        nonlocal largest
        for _ in range(64):
            sizes = [path.stat().st_size for folder in drafts(api) for path in folder.glob("archive")]
            largest = max(largest, *sizes, 0)
            yield bytes(2**20)

    assert_problem(api.client.post("/v1/models", content=pieces(), headers=TAR), 429, "quota_exceeded")
    assert largest < 6 * 2**20, "the quota, and what an archive may have beyond its files"
    assert drafts(api) == []


def test_uploads_under_way_count_in_every_process(api_on_sqlite: Api) -> None:
    settings = api_on_sqlite.client.app.state.settings.model_copy(update={"uploads_at_once": 2, "max_uploads_bytes": 10**8})
    with listening(settings) as one, listening(settings) as other:
        held = []
        for port in (one, other):
            connection = socket.create_connection(("127.0.0.1", port), timeout=20)
            connection.sendall(head("/v1/models", 4 * 10**7, TAR_TYPE) + b"x" * 1000)
            held.append(connection)
            wait_until(lambda: len(drafts(api_on_sqlite)) == len(held), "the upload to be under way")
        assert b"uploads are under way" in raw(one, head("/v1/models", 1000, TAR_TYPE))
        held.pop().close()
        wait_until(lambda: len(drafts(api_on_sqlite)) == 1, "the upload to end")
        answer = raw(one, head("/v1/models", 7 * 10**7, TAR_TYPE))
        assert b"quota_exceeded" in answer, "what another process has announced"
        held.pop().close()
        wait_until(lambda: not drafts(api_on_sqlite), "the uploads to end")


def test_what_a_killed_process_had_announced_counts_for_nothing(api_on_sqlite: Api, model: dict[str, bytes]) -> None:
    settings = api_on_sqlite.client.app.state.settings
    for index in range(settings.uploads_at_once + 1):
        left = settings.resolved_uploads_dir / ".incoming" / f"{index:032x}"
        left.mkdir(parents=True)
        claim = {"owner": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", "declared": 10**15}
        (left / "claim").write_text(json.dumps(claim))
    assert api_on_sqlite.client.post("/v1/models", content=packed(model), headers=TAR).status_code == 201


@pytest.mark.long
def test_an_archive_unpacks_to_no_more_than_the_quota(make_api: Callable[..., Api], model: dict[str, bytes]) -> None:
    api = make_api("", max_uploads_bytes=2**20)
    noise = os.urandom(2**20) * 40  # a small archive, and forty times the quota
    archive = packed(model | {"more.safetensors": noise}, "w:gz")
    most = 0
    ended = threading.Event()

    def watch() -> None:
        nonlocal most
        while not ended.is_set():
            with contextlib.suppress(FileNotFoundError):  # it has ended in this moment
                sizes = [path.stat().st_size for folder in drafts(api) for path in folder.rglob("*.safetensors")]
                most = max(most, sum(sizes))

    with ThreadPoolExecutor(1) as pool:
        watching = pool.submit(watch)
        answer = api.client.post("/v1/models", content=archive, headers=TAR)
        ended.set()
        watching.result()
    assert_problem(answer, 429, "quota_exceeded")
    assert most < 6 * 2**20


def test_unpacking_leaves_the_disk_what_must_stay_free(tmp_path: Path, model: dict[str, bytes]) -> None:
    room = psutil.disk_usage(str(tmp_path)).free
    unpack(io.BytesIO(packed(model)), UploadKind.MODEL, _made(tmp_path / "a"), max_bytes=10**9, min_free_bytes=room // 2)
    with pytest.raises(NoRoom):
        unpack(io.BytesIO(packed(model)), UploadKind.MODEL, _made(tmp_path / "b"), max_bytes=10**9, min_free_bytes=2 * room)
    assert not [path for path in (tmp_path / "b").iterdir() if path.stat().st_size]


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def test_what_one_owner_announces_takes_nothing_from_others(make_api: Callable[..., Api], model: dict[str, bytes]) -> None:
    api = make_api("", auth=True)
    keys = api.client.app.state.keys
    tokens = {
        owner: keys.create(owner=owner, name="", scopes=frozenset(Scope), lives_s=None, caller=Caller())[1] for owner in "ab"
    }
    room = psutil.disk_usage(str(api.scratch)).free // 2 - 2**30
    settings = api.client.app.state.settings.model_copy(update={"max_upload_bytes": 2**60, "max_uploads_bytes": 2**60})
    begin = head("/v1/models", room, TAR_TYPE).replace(b"Host: a", f"Host: a\r\nAuthorization: Bearer {tokens['a']}".encode())
    archive = packed(model)
    other = head("/v1/models", len(archive), TAR_TYPE)
    other = other.replace(b"Host: a", f"Host: a\r\nConnection: close\r\nAuthorization: Bearer {tokens['b']}".encode())
    with listening(settings) as port, contextlib.ExitStack() as held:
        for count in range(1, 4):
            connection = held.enter_context(socket.create_connection(("127.0.0.1", port), timeout=20))
            connection.sendall(begin + b"x" * 1000)
            wait_until(lambda count=count: len(drafts(api)) == count, "the upload to be under way")
        assert raw(port, other + archive).startswith(b"HTTP/1.1 201")
    assert drafts(api) == []


def test_a_client_that_leaves_in_the_middle_is_no_error_of_the_server(api_on_sqlite: Api) -> None:
    """Else whoever leaves often fills the log, and keeps the event loop busy with traces."""
    with capture_logs() as logs, listening(api_on_sqlite.client.app.state.settings) as port:
        with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
            connection.sendall(head("/v1/models", 10_000, TAR_TYPE) + b"x" * 1000)
            wait_until(lambda: len(drafts(api_on_sqlite)) == 1, "the upload to be under way")
        wait_until(lambda: not drafts(api_on_sqlite), "the upload to end")
    assert not [line for line in logs if line["log_level"] == "error"]
