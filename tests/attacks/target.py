"""The service under attack: a real API with keys and two tenants, a real worker where asked for, and the watch beside them."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from tests import servers
from tests.attacks import wire
from tests.attacks.wire import Answer
from tests.contract.archives import TAR, contents, packed
from tests.integration.service import Backend, Service

LIMIT_BYTES = 2**30  # of deploy/kubernetes/api.yaml
CANARY = "canary-7c1f0a52e6"  # what nobody but its owner may ever read
SECRET = "0123456789abcdef-attacks-secret-0123456789abcdef"
SETTINGS = {
    "COPPICE_AUTH": "true",
    "COPPICE_SECRET": SECRET,
    "COPPICE_REQUESTS_PER_MINUTE": "100000",
    "COPPICE_MAX_UPLOAD_BYTES": str(256 * 2**20),
    "COPPICE_MAX_UPLOADS_BYTES": str(512 * 2**20),
    "COPPICE_BODY_PATIENCE_S": "3",
    "COPPICE_HEAD_PATIENCE_S": "3",
    "COPPICE_SEND_PATIENCE_S": "3",
    "COPPICE_JOB_MEMORY_BYTES": str(3 * 2**30),
    "COPPICE_JOB_TIMEOUT_S": "60",
    "COPPICE_MAX_ATTEMPTS": "1",
}


@dataclass(frozen=True, slots=True)
class Window:
    """What the watch saw while an attack went on.

    Attributes:
        worst_s: Longest /healthz.
        late_s: By how much the watch itself was late at most: the host's share.
        peak_bytes: Most memory of the API and its children.
        samples: Number of times that /healthz was asked for.
    """

    worst_s: float
    late_s: float
    peak_bytes: int
    samples: int


@dataclass
class Target:
    """The running service, as the attacks know it."""

    service: Service
    folder: Path
    root: Path
    keys: dict[str, str] = field(default_factory=dict)
    ids: dict[str, str] = field(default_factory=dict)
    restarts: int = 0
    worker: psutil.Process | None = None
    _stack: ExitStack = field(default_factory=ExitStack)
    _log: Path | None = None

    @property
    def port(self) -> int:
        """Port of the API."""
        return int(self.service.url.rpartition(":")[2])

    def start(self) -> None:
        """Start the API and the watch, and wait until both do what they are for."""
        self._stack.enter_context(self.service.api())
        self._log = self.folder / f"watch{self.restarts}.log"
        command = [sys.executable, "-P", str(Path(__file__).with_name("watch.py"))]
        words = [str(self.port), str(self.api_pid()), str(self._log), str(LIMIT_BYTES)]
        watch = subprocess.Popen([*command, *words], stdin=subprocess.PIPE)
        self._stack.callback(watch.wait)
        self._stack.callback(watch.stdin.close)
        log = self._log
        servers.wait_until(lambda: log.exists() and "h " in log.read_text(), "the watch")

    def stop(self) -> None:
        """End both, whatever state they are in."""
        with contextlib.suppress(subprocess.TimeoutExpired, AssertionError):
            self._stack.close()
        self._stack = ExitStack()

    def restart_if_silent(self) -> bool:
        """Start the API anew where it no longer answers; return whether that was needed."""
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                if wire.ask(self.port, "GET", "/healthz", timeout_s=2).status == 200:
                    return False
            time.sleep(0.2)
        for one in self.processes():
            with contextlib.suppress(psutil.Error):
                one.kill()
        self.stop()
        self.restarts += 1
        self.start()
        return True

    def api_pid(self) -> int:
        """The API's process: of our children, the one that listens."""
        for child in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if any(one.laddr.port == self.port and one.status == "LISTEN" for one in child.net_connections("tcp")):
                    return child.pid
        raise AssertionError("nothing listens")

    def processes(self) -> list[psutil.Process]:
        """The API and its children; none where it is dead."""
        with contextlib.suppress(AssertionError, psutil.Error):
            api = psutil.Process(self.api_pid())
            return [api, *api.children(recursive=True)]
        return []

    def window(self, began: float, ended: float) -> Window:
        """Read what the watch saw in a span of time. The sample that was under way at its end counts."""
        assert self._log is not None
        deadline = time.monotonic() + 12
        healths: list[tuple[float, float, float]] = []
        sizes: list[int] = []
        while time.monotonic() < deadline:
            healths, sizes = [], []
            after = False
            for line in self._log.read_text().splitlines():
                words = line.split()
                moment = float(words[1])
                if words[0] == "h" and len(words) == 4:
                    after = after or moment > ended
                    if moment + float(words[2]) >= began and moment <= ended:
                        healths.append((moment, float(words[2]), float(words[3])))
                elif words[0] == "m" and len(words) == 3 and began <= moment <= ended + 0.1:
                    sizes.append(int(words[2]))
            if after:
                break
            time.sleep(0.05)
        worst = max((took for _, took, _ in healths), default=wire.SILENT)
        late = max((late for _, _, late in healths), default=0.0)
        return Window(worst if after else 10.0, late, max(sizes, default=0), len(healths))

    def headers(self, tenant: str = "acme", extra: Mapping[str, str] | None = None) -> dict[str, str]:
        """Headers of a tenant's request."""
        return {"Authorization": f"Bearer {self.keys[tenant]}"} | dict(extra or {})

    def ask(
        self, method: str, path: str, body: Any = b"", *, tenant: str = "acme", timeout_s: float = 30, **extra: str
    ) -> Answer:
        """Send a request as a tenant. A dict goes as JSON; names of headers have ``_`` for ``-``."""
        given = {name.replace("_", "-"): value for name, value in extra.items()}
        if isinstance(body, dict | list):
            body, given = json.dumps(body).encode(), {"Content-Type": "application/json"} | given
        return wire.ask(self.port, method, path, self.headers(tenant, given), body, timeout_s=timeout_s)

    def upload(self, kind: str, archive: Any, *, tenant: str = "acme", timeout_s: float = 30, **extra: str) -> Answer:
        """Send an archive as a model or a data set."""
        given = {"Content_Type": TAR["content-type"]} | extra
        return self.ask("POST", f"/v1/{kind}", archive, tenant=tenant, timeout_s=timeout_s, **given)

    def spec(self, **changes: Any) -> dict[str, Any]:
        """The body of an honest job."""
        sizes = {"calibration": {"samples": 32, "max_length": 32, "batch_tokens": 256}}
        body = {"model": str(self.root / "model"), "task": "glue/sst2", "data": str(self.root / "data"), "sparsity": 0.3}
        return body | sizes | {"latency": {"batch": 1, "length": 8, "repeats": 3}} | changes

    def honest(self) -> None:
        """An honest tenant's upload, submit and cancel: they work."""
        model = self.upload("models", packed(contents(self.root / "model")))
        assert model.status in (200, 201), (model.status, model.body[:500])
        job = self.ask("POST", "/v1/jobs", self.spec(model=model.document["id"]))
        assert job.status == 202, (job.status, job.body[:500])
        assert self.ask("GET", f"/v1/jobs/{job.document['id']}").status == 200
        assert self.ask("POST", f"/v1/jobs/{job.document['id']}/cancel").status in (200, 202)

    def leaks(self, text: bytes) -> str | None:
        """Return what of the server's inside is in an answer, or None."""
        inside = [str(self.service.backend.data_dir), CANARY, SECRET, "Traceback (most recent", "site-packages", 'File "/']
        return next((found for found in inside if found.encode() in text), None)


@contextmanager
def running(folder: Path, model: Path, data: Path, *, worker: bool) -> Iterator[Target]:
    """Run the service with two tenants, of whom one has a canary in an upload; with PostgreSQL and Redis where installed."""
    root = folder / "root"
    shutil.copytree(model, root / "model")
    shutil.copytree(data, root / "data")
    _lay_traps(folder, root)
    with ExitStack() as stack:
        database, broker = "", ""
        if any(Path("/usr/lib/postgresql").glob("*/bin/postgres")) and shutil.which("redis-server"):
            database = servers.new_database(stack.enter_context(servers.postgres()).port)
            broker = f"redis://127.0.0.1:{stack.enter_context(servers.redis()).port}/0"
        backend = Backend("attacked", folder / "data", database, broker)
        target = Target(Service(backend, folder, root, settings=SETTINGS), folder, root)
        target.keys = {tenant: _key(target.service, tenant) for tenant in ("acme", "rival")}
        os.environ["COPPICE_API_KEY"] = target.keys["acme"]  # of the client that waits for the API to answer
        stack.callback(os.environ.pop, "COPPICE_API_KEY", None)
        stack.callback(target.stop)
        target.start()
        if worker:
            target.worker = stack.enter_context(target.service.worker())
        _fill(target)
        yield target


def _key(service: Service, tenant: str) -> str:
    command = [sys.executable, "-m", "coppice.cli", "keys", "create", "--tenant", tenant]
    done = subprocess.run(command, env=service._environment, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def _lay_traps(folder: Path, root: Path) -> None:
    """Links under the allowed root that lead out of it, a FIFO, and a file outside that nobody may read."""
    outside = folder / "outside"
    shutil.copytree(root / "data", outside)
    (outside / "canary.txt").write_text(CANARY)
    (outside / "train.jsonl").write_text(json.dumps({"sentence": CANARY, "label": 0}) + "\n")
    (outside / "loop").symlink_to(outside / "loop")
    (root / "link").symlink_to(outside)
    (root / "chain").symlink_to(root / "link")
    (root / "loop").symlink_to(root / "loop")
    os.mkfifo(root / "fifo")
    shutil.copytree(root / "data", root / "linked")
    (root / "linked" / "train.parquet").unlink()
    (root / "linked" / "train.parquet").symlink_to(outside / "train.parquet")
    shutil.copytree(root / "model", root / "piped")
    (root / "piped" / "config.json").unlink()
    os.mkfifo(root / "piped" / "config.json")


def _fill(target: Target) -> None:
    """Give the rival an upload with a canary in it, and a job."""
    rows = "".join(json.dumps({"sentence": f"{CANARY} word1", "label": index % 2}) + "\n" for index in range(8))
    files = {"train.jsonl": rows.encode(), "validation.jsonl": rows.encode()}
    made = target.upload("datasets", packed(files), tenant="rival")
    assert made.status == 201, made.body
    target.ids["dataset"] = made.document["id"]
    job = target.ask("POST", "/v1/jobs", target.spec(metadata={"name": CANARY}), tenant="rival")
    assert job.status == 202, job.body
    target.ids["job"] = job.document["id"]
    assert target.ask("POST", f"/v1/jobs/{target.ids['job']}/cancel", tenant="rival").status in (200, 202)
