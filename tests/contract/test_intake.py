"""What strangers send: read by other processes under limits, and asked for only where there is room."""

from __future__ import annotations

import json
import os
import signal
import socket
import tarfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from app.inspection.process import Zygote
from app.inspection.records import Limits
from app.inspection.zygote import FATE
from tests.contract import hostile
from tests.contract.archives import TAR, packed
from tests.contract.conftest import Api, drafts
from tests.contract.problems import assert_problem
from tests.servers import wait_until

ARCHIVES = {
    "a million folders": (lambda model: hostile.many_folders(), "upload_invalid", "more than 8000 entries"),
    "extended headers": (lambda model: hostile.many_extensions(), "upload_invalid", "more than 8000 entries"),
    "global headers": (lambda model: hostile.many_extensions(kind=tarfile.XGLTYPE), "upload_invalid", "more than 8000 entries"),
    "long names": (
        lambda model: hostile.many_extensions(kind=tarfile.GNUTYPE_LONGNAME),
        "upload_invalid",
        "more than 8000 entries",
    ),
    "long extended headers": (lambda model: hostile.huge_extensions(), "upload_invalid", "headers for the most part"),
    "zeros": (
        lambda model: hostile.model_with(model, bytes(100 * 2**20)),
        "upload_invalid",
        "more than 200 times its size",
    ),
    "digits": (lambda model: hostile.model_with(model, hostile.many_digits(3000)), "model_unreadable", "64 digits"),
    "floats": (
        lambda model: hostile.model_with(model, hostile.safetensors({"w": hostile.tensor([1e999])})),
        "model_unreadable",
        "no number",
    ),
    "lists": (lambda model: hostile.model_with(model, hostile.many_lists()), "model_unreadable", "more memory or time"),
    "lists in config": (
        lambda model: packed(model | {"config.json": b'{"a":[' + b"[]," * 5_000_000 + b"1]}"}, "w:gz"),
        "model_unreadable",
        "more memory or time",
    ),
    "goes on after its end": (lambda model: packed(model) + b"x" * 512, "upload_invalid", "goes on after its end"),
    "zeros without end": (lambda model: packed(model) + bytes(3 * 2**20), "upload_invalid", "goes on after its end"),
    "gzip and more": (
        lambda model: hostile.empty_members(packed(model), 2) + b"x" * 99,
        "upload_invalid",
        "damaged or was cut off",
    ),
    "two spellings": (lambda model: packed(model | {"Config.json": b"{}"}), "upload_invalid", "capital and in small"),
    "two spellings of a folder": (
        lambda model: packed(model | {"a/x.json": b"{}", "A/y.json": b"{}"}),
        "upload_invalid",
        "capital and in small",
    ),
    "name with a dot at its end": (lambda model: packed(model | {"a./x.json": b"{}"}), "upload_invalid", "a name that is not"),
    "name with a space at its end": (
        lambda model: packed(model | {"a /x.json": b"{}"}),
        "upload_invalid",
        "a name that is not",
    ),
    "full-width dots": (lambda model: packed(model | {"．．/x.json": b"{}"}), "upload_invalid", "a name that is not"),
    "composed letters": (lambda model: packed(model | {"e\u0301.json": b"{}"}), "upload_invalid", "a name that is not"),
    "size of its own in a header": (
        lambda model: _with_pax(model, {"size": "9" * 30}),
        "upload_invalid",
        "damaged",
    ),
    "sparse by pax": (lambda model: _with_pax(model, {"GNU.sparse.major": "1"}), "upload_invalid", "sparse"),
    "name by pax": (lambda model: _with_pax(model, {"path": "../x.json"}), "upload_invalid", "a name that is not"),
}


def _with_pax(model: dict[str, bytes], headers: dict[str, str]) -> bytes:
    record = b""
    for key, value in headers.items():
        body = f" {key}={value}\n".encode()
        length = len(body) + 2 if len(body) + 2 < 100 else len(body) + 3
        record += str(length).encode() + body
    ends = packed(model)
    extended = hostile.entries(("x", tarfile.XHDTYPE, record, ""), ("y.json", tarfile.REGTYPE, b"{}", ""))
    return extended[: 4 * tarfile.BLOCKSIZE] + ends


@pytest.mark.parametrize("name", ARCHIVES)
def test_archives_that_are_small_to_send_and_large_to_read_are_refused(
    api_on_sqlite: Api, model: dict[str, bytes], name: str
) -> None:
    make, code, says = ARCHIVES[name]
    archive = make(model)
    began = time.monotonic()
    problem = assert_problem(api_on_sqlite.client.post("/v1/models", content=archive, headers=TAR), 422, code)
    assert says in problem["detail"]
    assert time.monotonic() - began < 15
    assert len(problem["detail"]) < 1000
    assert drafts(api_on_sqlite) == []


def test_what_clients_and_tar_make_is_still_taken(api_on_sqlite: Api, model: dict[str, bytes], tmp_path: Path) -> None:
    from coppice.files import pack

    folder = tmp_path / "minilm"
    for path, content in (model | {"1_Pooling/config.json": b"{}"}).items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    pack(folder, tmp_path / "client.tar")
    (tmp_path / "gnu.tar").write_bytes(_tarred(folder, tarfile.GNU_FORMAT))
    (tmp_path / "ustar.tar").write_bytes(_tarred(folder, tarfile.USTAR_FORMAT))
    archives = [path.read_bytes() for path in sorted(tmp_path.glob("*.tar"))]
    archives.append(hostile.empty_members(archives[0], 3))
    archives.append(archives[0] + bytes(2**20))  # as tapes have it
    answers = [api_on_sqlite.client.post("/v1/models", content=archive, headers=TAR) for archive in archives]
    assert [answer.status_code for answer in answers] == [201, 200, 200, 200, 200]


def _tarred(folder: Path, form: int) -> bytes:
    target = folder.parent / "made"
    with tarfile.open(target, "w", format=form) as archive:
        archive.add(folder, "minilm")
    return target.read_bytes()


def child_of(zygote: Zygote) -> psutil.Process | None:
    found = psutil.Process(zygote.pid).children() if zygote.pid else []
    return found[0] if found else None


def ordered(zygote: Zygote, limits: Limits) -> tuple[psutil.Process, socket.socket, int]:
    """Have a child forked that waits for its question."""
    ours, theirs = socket.socketpair()
    fate, their_fate = os.pipe()
    zygote.order(limits, theirs, their_fate)
    theirs.close()
    os.close(their_fate)
    wait_until(lambda: child_of(zygote) is not None, "the child to be forked")
    child = child_of(zygote)
    assert child is not None
    return child, ours, fate


@pytest.fixture
def own_zygote(monkeypatch: pytest.MonkeyPatch):
    for name in ("COPPICE_SECRET", "COPPICE_DATABASE_URL", "HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "PGPASSWORD", "OTHER"):
        monkeypatch.setenv(name, "canary-of-the-environment")
    zygote = Zygote()
    yield zygote
    zygote.close()


def test_an_inspection_has_limits_and_knows_nothing(own_zygote: Zygote, tmp_path: Path) -> None:
    open_here = (tmp_path / "secret").open("wb")
    os.set_inheritable(open_here.fileno(), True)
    child, ours, fate = ordered(own_zygote, Limits(2**26, 7, 60, 1000))
    wait_until(lambda: child.rlimit(psutil.RLIMIT_CPU) == (7, 7), "the child to limit itself")
    assert child.rlimit(psutil.RLIMIT_FSIZE) == (1000, 1000)
    assert child.rlimit(psutil.RLIMIT_CORE) == (0, 0)
    assert child.rlimit(psutil.RLIMIT_NPROC) == (0, 0)
    wait_until(lambda: child.rlimit(psutil.RLIMIT_NOFILE)[0] == 64, "all limits")
    assert 2**26 < child.rlimit(psutil.RLIMIT_AS)[0] < 2**26 + 2**28
    for pid in (own_zygote.pid, child.pid):
        assert b"canary" not in Path(f"/proc/{pid}/environ").read_bytes()
        assert "NoNewPrivs:\t1" in Path(f"/proc/{pid}/status").read_text()
        files = {str(path.readlink()) for path in Path(f"/proc/{pid}/fd").iterdir()}
        assert str(tmp_path / "secret") not in files
        assert Path(f"/proc/{pid}/cwd").readlink() == Path("/")
    descriptors = {path.name for path in Path(f"/proc/{child.pid}/fd").iterdir()}
    assert len(descriptors - {"0", "1", "2"}) <= 2, "its own socket, and the selector's"
    networks = {Path(f"/proc/{pid}/ns/net").readlink() for pid in ("self", child.pid)}
    if os.geteuid() == 0:
        assert len(networks) == 2, "no interface to speak over"
    ours.shutdown(socket.SHUT_WR)
    assert json.loads(ours.recv(2**20))["why"] == "unexpected", "no question is no question"
    assert FATE.unpack(os.read(fate, 4)) == (0,)
    ours.close()
    os.close(fate)
    open_here.close()


def test_an_inspection_that_takes_too_long_is_killed(own_zygote: Zygote) -> None:
    child, ours, fate = ordered(own_zygote, Limits(2**26, 7, 1))
    began = time.monotonic()
    assert FATE.unpack(os.read(fate, 4)) == (-signal.SIGKILL,)
    assert time.monotonic() - began < 5
    assert not child.is_running()
    ours.close()
    os.close(fate)


def test_who_reads_files_ends_with_who_asked(own_zygote: Zygote) -> None:
    child, ours, fate = ordered(own_zygote, Limits(2**26, 7, 60))
    zygote = psutil.Process(own_zygote.pid)
    os.kill(zygote.pid, signal.SIGKILL)
    wait_until(lambda: not child.is_running(), "the child to die with what it was forked from")
    own_zygote.start()
    assert own_zygote.pid != zygote.pid
    another = psutil.Process(own_zygote.pid)
    own_zygote.close()
    assert not another.is_running()
    ours.close()
    os.close(fate)


@pytest.mark.long
def test_a_killed_zygote_costs_nobody_an_answer(api_on_sqlite: Api, model: dict[str, bytes], zygote: Zygote) -> None:
    slow = hostile.model_with(model, hostile.many_keys())  # valid, and of no known architecture
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(api_on_sqlite.client.post, "/v1/models", content=slow, headers=TAR)
        wait_until(lambda: zygote.pid is not None and child_of(zygote) is not None, "the inspection to begin")
        assert zygote.pid is not None
        os.kill(zygote.pid, signal.SIGKILL)
        assert_problem(asked.result(), 422, "unsupported_architecture")
    assert api_on_sqlite.submit()


def test_a_killed_inspection_is_a_refusal(api_on_sqlite: Api, model: dict[str, bytes], zygote: Zygote) -> None:
    slow = hostile.model_with(model, hostile.many_keys())
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(api_on_sqlite.client.post, "/v1/models", content=slow, headers=TAR)

        def killed() -> bool:
            child = child_of(zygote)
            if child is not None:
                child.kill()
            return asked.done()

        wait_until(killed, "the answer")
        problem = assert_problem(asked.result(), 422, asked.result().json()["code"])
    assert problem["code"] in {"upload_invalid", "model_unreadable"}
    assert "more memory or time" in problem["detail"]
    assert drafts(api_on_sqlite) == []


@pytest.mark.long
def test_whoever_waits_too_long_for_a_turn_is_told_so(make_api: Callable[..., Api], model: dict[str, bytes]) -> None:
    api = make_api("", inspection_wait_s=0.2)
    slow = hostile.model_with(model, hostile.many_keys())
    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(lambda _n: api.client.post("/v1/models", content=slow, headers=TAR), range(2)))
    assert sorted(answer.status_code for answer in answers) == [422, 429]
    busy = next(answer for answer in answers if answer.status_code == 429)
    assert_problem(busy, 429, "busy")
    assert int(busy.headers["retry-after"]) > 0
