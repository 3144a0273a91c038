"""The sandbox of a job's process: what hostile code in it would reach. The code runs confined exactly as the runner is."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from app.jobs.records import Claim
from app.sandbox import landlock, seccomp
from app.settings import Sandbox, Settings
from pruning_core.errors import ModelUnreadable
from pruning_core.spec.prune import PruneSpec
from worker.child import Child
from worker.launching import Launching, _private, may_use_token
from worker.protocol import ChildRequest, Scratch
from worker.sandbox import host as hosts
from worker.sandbox import plan
from worker.sandbox.host import Host, SandboxMissing, examine, require

SECRET = "canary-7c1f" * 4
MEANS = {
    "bubblewrap": lambda host: replace(host, landlock=0, call_filter=False),
    "landlock": lambda host: replace(host, bubblewrap=""),
    "both": lambda host: host,
    "without a user of its own": lambda host: replace(host, switches_users=False),
    "landlock without a user of its own": lambda host: replace(host, bubblewrap="", switches_users=False),
}

# Each line is what a hostile model would try; what it gets is written down, errors by their names.
ATTACK = """
import ctypes, json, os, resource, socket, sys, time
from pathlib import Path
from worker import inside
from worker.protocol import ChildRequest, Scratch

scratch, parent = Scratch(Path(sys.argv[1])), int(sys.argv[3])
request = ChildRequest.model_validate_json(scratch.request.read_text())
outside = json.loads((scratch.folder / "outside.json").read_text())
inside.confine(request.confinement, parent)
found = {}

def attempt(name, action):
    try:
        found[name] = repr(action())
    except Exception as error:
        found[name] = type(error).__name__

def left(name, *arguments):
    found = getattr(ctypes.CDLL(None, use_errno=True), name)(*arguments)
    if found < 0:
        raise OSError(ctypes.get_errno(), name)
    return found

def live_on():
    if os.fork():
        return
    for step in (os.setsid, lambda: os.setpgid(0, 0)):
        try:
            step()
        except OSError:
            pass
    while True:
        (scratch.folder / "work" / "alive").write_text(str(time.time()))
        time.sleep(0.05)

for name, path in outside["files"].items():
    attempt(name, lambda: Path(path).read_bytes()[:200])
attempt("listing", lambda: os.listdir(outside["folder"]))
attempt("writing", lambda: Path(outside["folder"], "new").write_text("x"))
attempt("writing a model", lambda: Path(request.spec.model, "new").write_text("x"))
attempt("the supervisor's environment", lambda: Path(f"/proc/{parent}/environ").read_bytes())
attempt("the supervisor's memory", lambda: Path(f"/proc/{parent}/mem").open("rb").read(1))
attempt("a signal", lambda: os.kill(parent, 0) or os.getppid() != 1)
attempt("TCP", lambda: socket.create_connection(("127.0.0.1", outside["port"]), 2))
attempt("UDP", lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", ("127.0.0.1", outside["port"])))
attempt("a socket in the file system", lambda: socket.socket(socket.AF_UNIX).connect(outside["socket"]))
attempt("a link", lambda: os.symlink(outside["files"]["canary"], scratch.folder / "work" / "link"))
attempt("a hard link", lambda: os.link(outside["files"]["canary"], scratch.folder / "work" / "hard"))
attempt("root", lambda: os.setuid(0) if os.getuid() else None)
attempt("memory that processes share", lambda: open(outside["shared"], "r+").read())
attempt("the supervisor's limits", lambda: resource.prlimit(parent, resource.RLIMIT_CORE))
attempt("the supervisor's priority", lambda: os.setpriority(os.PRIO_PROCESS, parent, 1))
attempt("memory that outlives it", lambda: left("shmget", 0, 4096, 0o1600))
attempt("a queue that outlives it", lambda: left("msgget", 0, 0o1600))
found["environment"] = dict(os.environ)
found["folder"] = os.getcwd(), os.listdir(".")
found["user"] = os.getuid()
found["model"] = Path(request.spec.model, "config.json").read_text()
found["status"] = Path("/proc/self/status").read_text()
live_on()
(scratch.folder / "work" / "found.json").write_text(json.dumps(found))
(scratch.folder / "bundle").mkdir()
scratch.report.write_text("{}")
"""
OUT_OF_REACH = {
    "PermissionError",
    "FileNotFoundError",
    "NotADirectoryError",
    "OSError",
    "ProcessLookupError",
    "ConnectionRefusedError",
}


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[dict[str, Any]]:
    """What no job may reach: another tenant's upload, the server's secret, the database, and servers that listen."""
    folder = tmp_path / "outside"
    folder.mkdir()
    shared = Path(f"/dev/shm/coppice-test-{os.getpid()}")
    shared.write_text(SECRET)
    shared.chmod(0o666)
    for name in ("canary", "secret", "coppice.db"):
        (folder / name).write_text(SECRET)
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams,
        socket.socket(socket.AF_UNIX) as local,
    ):
        datagrams.bind(server.getsockname())
        # Paths of sockets are short.
        local.bind(f"/tmp/coppice-test-{os.getpid()}.sock")
        local.listen()
        yield {
            "folder": str(folder),
            "files": {
                "canary": str(folder / "canary"),
                "the server's secret": str(folder / "secret"),
                "the database": str(folder / "coppice.db"),
                "the list of users": "/etc/passwd",
                "passwords": "/etc/shadow",
                "the host's name": "/etc/hostname",
                "its own request's neighbour": str(tmp_path / "scratch" / "job_b.1" / "request.json"),
            },
            "port": server.getsockname()[1],
            "socket": local.getsockname(),
            "shared": str(shared),
        }
        datagrams.setblocking(False)
        with pytest.raises(BlockingIOError):
            datagrams.recv(1)
    Path(f"/tmp/coppice-test-{os.getpid()}.sock").unlink()
    shared.unlink()


@pytest.fixture
def inside_opt(outside: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host on which the server, too, is a program among programs, with the files of all tenants beside it."""
    (tmp_path / "program").write_text("a program")
    (tmp_path / "link").symlink_to(outside["folder"])
    (tmp_path / "link-inside").symlink_to(Path(outside["folder"], "canary"))
    (tmp_path / "link-around").symlink_to(tmp_path)
    monkeypatch.setattr("worker.sandbox.plan._SYSTEM", (*plan._SYSTEM, str(tmp_path)))
    monkeypatch.setattr("worker.launching._private", lambda _settings: (Path(outside["folder"]), tmp_path / "scratch"))


@pytest.mark.parametrize("means", MEANS)
def test_private_files_among_programs_are_out_of_reach(
    means: str, inside_opt: None, attacked: Callable[[Host], dict[str, Any]], outside: dict[str, Any], tmp_path: Path
) -> None:
    outside["files"]["a program"] = str(tmp_path / "program")
    for link in ("link/canary", "link-inside", "link-around/outside/canary"):
        outside["files"][link] = str(tmp_path / link)
    found = attacked(MEANS[means](examine()))
    assert found.pop("a program") == repr(b"a program")
    assert SECRET not in json.dumps(found)
    assert found["listing"] in OUT_OF_REACH


def test_the_services_own_folders_are_private(tmp_path: Path) -> None:
    key = tmp_path / "elsewhere" / "signing.pem"
    settings = Settings(data_dir=tmp_path / "data", uploads_dir=tmp_path / "uploads", signing_key=key)
    assert {tmp_path / "data", tmp_path / "uploads", tmp_path / "data" / "scratch", key} <= set(_private(settings))


@pytest.fixture
def attacked(tmp_path: Path, outside: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Callable[[Host], dict[str, Any]]:
    """Run the attack under given means, and return what it found."""
    model, data = tmp_path / "model", tmp_path / "data-set"
    for folder in (model, data, tmp_path / "scratch" / "job_a.1" / "work", tmp_path / "scratch" / "job_b.1"):
        folder.mkdir(parents=True)
    (model / "config.json").write_text("the model's own")
    (tmp_path / "scratch" / "job_b.1" / "request.json").write_text(SECRET)
    monkeypatch.setenv("COPPICE_SECRET", SECRET)
    monkeypatch.setenv("COPPICE_DATABASE_URL", f"postgresql://u:{SECRET}@h/d")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("HF_TOKEN", SECRET)
    script = tmp_path / "model" / "attack.py"  # a folder that it may read
    script.write_text(ATTACK)

    def run(host: Host) -> dict[str, Any]:
        if not (host.confines_files and host.confines_network):
            pytest.skip(f"this host has only: {examine().described()}")
        monkeypatch.setattr("worker.launching.examine", lambda: host)
        settings = Settings(data_dir=tmp_path / "data", allowed_roots=(tmp_path,), sandbox=Sandbox.REQUIRED)
        scratch = Scratch(tmp_path / "scratch" / "job_a.1")
        (scratch.folder / "outside.json").write_text(json.dumps(outside))
        launch = Launching(settings, claim(model, data), scratch).job()
        child = Child((sys.executable, "-P", str(script)), scratch.folder, launch, lambda _: None)
        assert child.wait(60) == 0
        child.close()
        return json.loads(scratch.read(scratch.work / "found.json"))

    return run


def is_still(path: Path) -> bool:
    before = path.read_text() if path.exists() else ""
    time.sleep(0.3)
    return before == (path.read_text() if path.exists() else "")


def claim(model: Path | str, data: Path | str, owner: str = "") -> Claim:
    spec = PruneSpec.model_validate({"model": str(model), "task": "glue/sst2", "data": str(data), "sparsity": 0.5})
    return Claim("job_a", 1, 1, spec, None, owner)


@pytest.mark.parametrize("means", MEANS)
def test_nothing_that_is_not_the_jobs_can_be_reached(
    means: str, attacked: Callable[[Host], dict[str, Any]], outside: dict[str, Any], tmp_path: Path
) -> None:
    host = MEANS[means](examine())
    found = attacked(host)
    tried = set(found) - {"environment", "folder", "user", "model", "status"}
    assert len(tried) == 17 + len(outside["files"])
    reached = {name: found[name] for name in tried if found[name] not in OUT_OF_REACH}
    if host.bubblewrap and not host.landlock:
        # The links of a job are refused when its bundle is stored, and its datagrams go nowhere, as the fixture finds.
        del reached["a link"], reached["UDP"]
        # Memory and queues of its own namespace end with it.
        del reached["memory that outlives it"], reached["a queue that outlives it"]
    if found["user"] == 0:
        del reached["root"]  # it is root already, and has none of root's rights
    assert not reached
    assert is_still(tmp_path / "scratch" / "job_a.1" / "work" / "alive"), "nothing that a job has started lives on"
    assert SECRET not in json.dumps(found["environment"])
    assert not [name for name in found["environment"] if name.startswith(("COPPICE_", "AWS_", "HF_TOKEN"))]
    assert found["folder"][1] == [], "an empty folder of its own"
    assert found["model"] == "the model's own"
    status = dict(line.split(":\t", 1) for line in found["status"].splitlines() if ":\t" in line)
    assert (status["NoNewPrivs"], int(status["CapEff"], 16), int(status["CapPrm"], 16)) == ("1", 0, 0)
    if host.switches_users and host.bubblewrap:
        assert found["user"] == 10002
    assert not [path for path in Path(outside["folder"]).iterdir() if path.name == "new"]


def test_a_host_without_means_runs_no_job_where_a_sandbox_is_required(tmp_path: Path) -> None:
    bare = Host()
    with pytest.raises(SandboxMissing, match="Install bubblewrap"):
        require(Settings(data_dir=tmp_path, sandbox=Sandbox.REQUIRED), bare)
    with pytest.raises(SandboxMissing):
        require(Settings(data_dir=tmp_path, auth=True), bare)  # tenants share it
    require(Settings(data_dir=tmp_path), bare)
    require(Settings(data_dir=tmp_path, sandbox=Sandbox.OFF, auth=True), bare)
    assert len(bare.lacks()) == 2
    assert not replace(bare, landlock=1, call_filter=True).lacks()


def test_a_worker_does_not_start_without_a_sandbox_that_it_must_have(tmp_path: Path) -> None:
    bare = "import sys; from worker import main as m; from worker.sandbox.host import Host; m.examine = Host; m.main([])"
    environment = os.environ | {"COPPICE_DATA_DIR": str(tmp_path), "COPPICE_SANDBOX": "required"}
    done = subprocess.run(
        [sys.executable, "-c", bare], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert "coppice: jobs cannot be kept from files" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_folder_that_has_become_a_link_since_the_submit_is_refused(tmp_path: Path) -> None:
    root, other = tmp_path / "root", tmp_path / "other"
    for folder in (root / "data-set", other):
        folder.mkdir(parents=True)
    (root / "model").symlink_to(other)
    settings = Settings(data_dir=tmp_path / "data", allowed_roots=(root,))
    with pytest.raises(ModelUnreadable, match="leads elsewhere"):
        Launching(settings, claim(root / "model", root / "data-set"), Scratch(tmp_path)).job()
    (root / "model").unlink()
    (root / "model").mkdir()
    (root / "model" / "config.json").symlink_to(other / "config.json")
    with pytest.raises(ModelUnreadable, match="leads elsewhere"):
        Launching(settings, claim(root / "model", root / "data-set"), Scratch(tmp_path)).job()


def test_what_links_within_the_allowed_folders_lead_to_may_be_read(tmp_path: Path) -> None:
    blobs, model, data = (tmp_path / "root" / name for name in ("blobs", "snapshot", "data-set"))
    for folder in (blobs, model, data):
        folder.mkdir(parents=True)
    (blobs / "1").write_text("{}")
    (model / "config.json").symlink_to("../blobs/1")
    scratch = Scratch(tmp_path / "scratch")
    scratch.folder.mkdir()
    settings = Settings(data_dir=tmp_path / "data", allowed_roots=(tmp_path / "root",))
    Launching(settings, claim(model, data), scratch).job()
    limits = ChildRequest.model_validate_json(scratch.request.read_text()).confinement
    assert limits is not None
    assert {model, data, blobs / "1"} <= set(limits.read)
    assert blobs not in limits.read


@pytest.mark.parametrize("asked", [{}, {"engines": ("vllm",)}, {"formats": ("safetensors", "gguf")}])
def test_environments_of_engines_may_be_read_by_jobs_that_run_engines(asked: dict[str, Any], tmp_path: Path) -> None:
    interpreter = tmp_path / "engines" / "vllm" / "bin" / "python"
    interpreter.parent.mkdir(parents=True)
    interpreter.symlink_to(Path(sys.executable).resolve())
    (tmp_path / "root").mkdir()
    scratch = Scratch(tmp_path / "scratch")
    scratch.folder.mkdir()
    settings = Settings(data_dir=tmp_path / "data", allowed_roots=(tmp_path / "root",), engines_dir=tmp_path / "engines")
    job = claim(tmp_path / "root", tmp_path / "root")
    artifacts = job.spec.artifacts.but(**asked)
    Launching(settings, replace(job, spec=job.spec.but(artifacts=artifacts)), scratch).job()
    request = ChildRequest.model_validate_json(scratch.request.read_text())
    assert request.confinement is not None
    assert (tmp_path / "engines" in request.confinement.read) == bool(asked)
    assert request.engines == (tmp_path / "engines" if asked else None)


def test_measurements_of_tenants_stand_apart(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path / "data", allowed_roots=(tmp_path,))
    caches: list[Path | None] = []
    for owner in ("acme", "rival", ""):
        scratch = Scratch(tmp_path / f"scratch-{owner}")
        scratch.folder.mkdir()
        Launching(settings, claim(tmp_path, tmp_path, owner), scratch).job()
        caches.append(ChildRequest.model_validate_json(scratch.request.read_text()).cache)
    assert len(set(caches)) == 3


def test_the_token_of_the_worker_is_for_those_who_are_named(tmp_path: Path) -> None:
    shared = Settings(data_dir=tmp_path)
    apart = Settings(data_dir=tmp_path, auth=True, hub_token_tenants=("acme",))
    assert may_use_token(shared, "")
    assert (may_use_token(apart, "acme"), may_use_token(apart, "rival")) == (True, False)
    assert may_use_token(apart.model_copy(update={"hub_token_tenants": ("*",)}), "rival")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has means")
def test_this_kernel_has_means() -> None:
    """Where they are missing, the tests above skip, and this one says so."""
    assert hosts.examine().described() != "nothing", f"Landlock {landlock.version()}, filter {seccomp.available()}"


@pytest.mark.skipif(not seccomp.available(), reason="no filter of system calls is known for this machine")
def test_who_may_use_the_network_opens_no_other_sockets() -> None:
    code = """
import socket
from app.sandbox import kernel, seccomp
kernel.renounce_privileges()
seccomp.deny_calls(sockets=True)
server = socket.create_server(("127.0.0.1", 0))
socket.create_connection(server.getsockname()).close()
assert socket.getaddrinfo("localhost", 80)
for family in (socket.AF_UNIX, socket.AF_VSOCK, socket.AF_ALG, socket.AF_PACKET):
    try:
        socket.socket(family)
    except PermissionError:
        continue
    raise AssertionError(family)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(not seccomp.available(), reason="no filter of system calls is known for this machine")
def test_a_job_that_may_not_leave_its_group_ends_what_it_has_started_all_the_same(tmp_path: Path) -> None:
    code = f"""
import sys, time
from pathlib import Path
from app.sandbox import kernel, seccomp
from pruning_core.artifacts.process import run_limited
kernel.renounce_privileges()
seccomp.deny_calls(sockets=False)
log = Path({str(tmp_path / "log")!r})
assert run_limited([sys.executable, "-c", "raise SystemExit(5)"], cwd=log.parent, env={{}}, log=log, limit_s=30) == 5
begin = time.monotonic()
assert run_limited([sys.executable, "-c", "import time; time.sleep(60)"], cwd=log.parent, env={{}}, log=log, limit_s=1) is None
assert time.monotonic() - begin < 20
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
