"""A supervisor over a real database, a real store and real child processes: small scripts that speak the runner's protocol."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

import pytest
import sqlalchemy as sa

from app.db import Database
from app.jobs.limits import NO_LIMITS, JobLimits
from app.jobs.models import jobs
from app.jobs.repository import JobRepository
from app.settings import Sandbox, Settings
from app.storage import LocalArtifactStore
from migrations import upgrade
from pruning_core.spec.prune import PruneSpec
from tests.servers import wait_until
from tests.unit.app.sample import REPORT
from worker.supervisor import Supervisor

MODEL = "/models/name"
SPEC = PruneSpec.model_validate({"model": MODEL, "task": "glue/sst2", "data": "/data/sst2", "sparsity": 0.5})

# What every script begins with: the arguments, and the pieces that most of them need.
PRELUDE = f"""
import json, os, signal, subprocess, sys, time
from pathlib import Path
scratch, progress = Path(sys.argv[1]), os.fdopen(int(sys.argv[2]), "w", buffering=1)
(NOTES / "pid.part").write_text(str(os.getpid()))
(NOTES / "pid.part").rename(NOTES / "pid")  # whole: a test may look at once
def tell(stage, step, total):
    progress.write(json.dumps({{"stage": stage, "step": step, "total": total}}) + "\\n")
def succeed():
    (scratch / "bundle" / "deep").mkdir(parents=True)
    (scratch / "bundle" / "model.safetensors").write_bytes(b"weights")
    (scratch / "bundle" / "deep" / "config.json").write_text("{{}}")
    (scratch / "result.json").write_text({json.dumps(json.dumps(REPORT))})
def fail(**error):
    (scratch / "error.json").write_text(json.dumps(error))
    sys.exit(3)
"""


@dataclass
class Bench:
    """Everything that a test of the supervisor looks at."""

    settings: Settings
    database: Database
    store: LocalArtifactStore
    notes: Path
    stopping: threading.Event = field(default_factory=threading.Event)

    def submit(self, limits: JobLimits = NO_LIMITS) -> str:
        job_id = f"job_{uuid4().hex}"
        with self.database.write() as connection:
            JobRepository(connection).insert(job_id, owner="", spec=SPEC, metadata={}, priority=0, limits=limits)
        return job_id

    def supervisor(self, script: str) -> Supervisor:
        path = self.notes / "child.py"
        path.write_text(f"NOTES = __import__('pathlib').Path({str(self.notes)!r})\n{PRELUDE}{script}")
        command = (sys.executable, str(path))
        stopping = self.stopping.is_set
        return Supervisor(self.settings, self.database, self.store, worker="w", stopping=stopping, command=command)

    def run(self, script: str) -> bool:
        return self.supervisor(script).run_next()

    def run_while(self, script: str, action: Callable[[], None]) -> None:
        """Run a job, and do something to it once its child has begun."""
        thread = threading.Thread(target=self.run, args=(script,))
        thread.start()
        try:
            wait_until(lambda: (self.notes / "pid").is_file() and (self.notes / "pid").read_text() != "", "the child to begin")
            action()
        finally:
            thread.join(30)
        assert not thread.is_alive()

    def row(self, job_id: str) -> sa.Row:
        with self.database.read() as connection:
            return connection.execute(sa.select(jobs).where(jobs.c.id == job_id)).one()

    def events(self, job_id: str) -> list[str]:
        with self.database.read() as connection:
            return [str(event.type) for event in JobRepository(connection).events(job_id, after=0, limit=100)]

    def artifacts(self, job_id: str) -> list[str]:
        with self.database.read() as connection:
            return [artifact.path for artifact in JobRepository(connection).artifacts(job_id)]

    def change(self, job_id: str, **values: object) -> None:
        """Change a row behind everybody's back."""
        with self.database.write() as connection:
            connection.execute(jobs.update().where(jobs.c.id == job_id).values(**values))

    def child_is_gone(self) -> bool:
        return not alive(int((self.notes / "pid").read_text()))

    def scratch_is_empty(self) -> bool:
        return not list(self.settings.resolved_scratch_dir.iterdir())


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended but was not yet waited for does not."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def gone_soon(pid: int, within_s: float = 5) -> bool:
    deadline = time.monotonic() + within_s
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not alive(pid)


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    for name in [name for name in os.environ if name.startswith("COPPICE_")]:
        monkeypatch.delenv(name)
    settings = Settings(
        data_dir=tmp_path / "data",
        sandbox=Sandbox.OFF,  # the scripts leave notes beside their folder; tests/unit/worker/test_sandbox.py has it on
        lease_s=20,
        heartbeat_s=0.1,
        kill_grace_s=0.5,
        max_attempts=3,
        job_timeout_s=30,
        crash_pause_s=0,
        storage_wait_s=0,
        min_free_bytes=0,  # other tests fill the same disk
    )
    database = Database(settings.resolved_database_url)
    upgrade(database)
    store = LocalArtifactStore(settings.resolved_artifacts_dir)
    yield Bench(settings, database, store, tmp_path)
    database.close()
